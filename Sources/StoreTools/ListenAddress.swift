// ListenAddress: where a server waits for connections: ADDRESS:PORT with a numeric address,
// `localhost` or `*`, or unix:PATH; and the socket that does it.

import BlockIO
import Glibc
import LogStore

package enum ListenAddress: Equatable, Sendable {
    /// IPv4; `host` as inet_pton takes it.
    case internet(host: String, port: UInt16)
    case internet6(host: String, port: UInt16)
    case unix(path: String)

    /// Nil: it is none.
    package init?(_ text: String) {
        if text.hasPrefix("unix:") {
            let path = String(text.dropFirst(5))
            // What an address has room for, its end included.
            guard !path.isEmpty, path.utf8.count < 108, !path.utf8.contains(0) else { return nil }
            self = .unix(path: path)
            return
        }
        guard let colon = text.lastIndex(of: ":"),
            let port = UInt16(text[text.index(after: colon)...])
        else { return nil }
        var host = String(text[..<colon])
        if host.hasPrefix("["), host.hasSuffix("]") {
            host = String(host.dropFirst().dropLast())
            var address = in6_addr()
            guard inet_pton(AF_INET6, host, &address) == 1 else { return nil }
            self = .internet6(host: host, port: port)
            return
        }
        if host == "localhost" { host = "127.0.0.1" }
        if host == "*" { host = "0.0.0.0" }
        var address = in_addr()
        guard inet_pton(AF_INET, host, &address) == 1 else { return nil }
        self = .internet(host: host, port: port)
    }

    /// A socket that listens there, without blocking, and where that is: port 0 gets a number.
    package func listen() throws(StoreError) -> (descriptor: Int32, address: ListenAddress) {
        let family =
            switch self {
            case .internet: AF_INET
            case .internet6: AF_INET6
            case .unix: AF_UNIX
            }
        let descriptor = socket(family, Int32(SOCK_STREAM.rawValue), 0)
        guard descriptor >= 0 else { throw failure(errno) }
        do throws(StoreError) {
            _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
            _ = fcntl(descriptor, F_SETFL, O_NONBLOCK)
            var yes: Int32 = 1
            _ = setsockopt(
                descriptor, SOL_SOCKET, SO_REUSEADDR, &yes, socklen_t(MemoryLayout<Int32>.size))
            try bind(descriptor)
            guard Glibc.listen(descriptor, 16) == 0 else { throw failure(errno) }
            return (descriptor, bound(descriptor))
        } catch {
            _ = close(descriptor)
            throw error
        }
    }

    private func bind(_ descriptor: Int32) throws(StoreError) {
        switch self {
        case .internet(let host, let port):
            var address = sockaddr_in()
            address.sin_family = sa_family_t(AF_INET)
            address.sin_port = port.bigEndian
            inet_pton(AF_INET, host, &address.sin_addr)
            try bind(descriptor, &address)
        case .internet6(let host, let port):
            var address = sockaddr_in6()
            address.sin6_family = sa_family_t(AF_INET6)
            address.sin6_port = port.bigEndian
            inet_pton(AF_INET6, host, &address.sin6_addr)
            try bind(descriptor, &address)
        case .unix(let path):
            removeStale(path)
            var address = Self.unixAddress(path)
            try bind(descriptor, &address)
        }
    }

    private func bind<Address>(
        _ descriptor: Int32, _ address: inout Address
    ) throws(StoreError) {
        let result = withUnsafeBytes(of: &address) { bytes in
            bytes.baseAddress.map {
                Glibc.bind(
                    descriptor, $0.assumingMemoryBound(to: sockaddr.self),
                    socklen_t(bytes.count))
            } ?? -1
        }
        guard result == 0 else { throw failure(errno) }
    }

    private static func unixAddress(_ path: String) -> sockaddr_un {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        return address
    }

    /// Removes a socket on which nobody listens any more; anything else stays, and binding fails.
    private func removeStale(_ path: String) {
        var found = stat()
        guard lstat(path, &found) == 0, found.st_mode & S_IFMT == S_IFSOCK else { return }
        let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        guard descriptor >= 0 else { return }
        defer { _ = close(descriptor) }
        var address = Self.unixAddress(path)
        let result = withUnsafeBytes(of: &address) { bytes in
            bytes.baseAddress.map {
                connect(
                    descriptor, $0.assumingMemoryBound(to: sockaddr.self),
                    socklen_t(bytes.count))
            } ?? 0
        }
        if result != 0, errno == ECONNREFUSED { unlink(path) }
    }

    private func bound(_ descriptor: Int32) -> ListenAddress {
        guard case .internet(let host, 0) = self else {
            guard case .internet6(let host, 0) = self else { return self }
            var address = sockaddr_in6()
            name(descriptor, &address)
            return .internet6(host: host, port: UInt16(bigEndian: address.sin6_port))
        }
        var address = sockaddr_in()
        name(descriptor, &address)
        return .internet(host: host, port: UInt16(bigEndian: address.sin_port))
    }

    private func name<Address>(_ descriptor: Int32, _ address: inout Address) {
        var length = socklen_t(MemoryLayout<Address>.size)
        withUnsafeMutableBytes(of: &address) { bytes in
            guard let base = bytes.baseAddress else { return }
            _ = getsockname(descriptor, base.assumingMemoryBound(to: sockaddr.self), &length)
        }
    }

    private func failure(_ number: Int32) -> StoreError {
        StoreError(
            IOError(operation: "listen", path: description, errno: number), "listen", description,
            number == EADDRINUSE
                ? "Somebody listens there already." : "It cannot be listened on there.")
    }

    /// What a client is told.
    package var description: String {
        switch self {
        case .internet(let host, let port): "http://\(host):\(port)/metrics"
        case .internet6(let host, let port): "http://[\(host)]:\(port)/metrics"
        case .unix(let path): "unix:\(path)"
        }
    }
}
