// MetricsServer: answers GET /metrics, one thread for a few connections at a time. What a client
// may take is bounded: bytes, seconds, connections; a slow or silent one holds up nobody else.
//
// Invariant: each connection ends with one answer, or without one when its time is over or it is
// broken.

import BlockIO
import Glibc

package final class MetricsServer {
    /// Status, and the text of it.
    package typealias Answer = () -> (status: Int, body: String)

    private enum Phase {
        case receiving
        case sending
        /// Answered; what the client still sends is thrown away until it ends, or the close would
        /// take the answer from it.
        case draining
    }

    private struct Client {
        let descriptor: Int32
        let deadline: UInt64
        var phase = Phase.receiving
        var received: [UInt8] = []
        var answer: [UInt8] = []
        var sent = 0
    }

    private let listener: Int32
    private let clock: any Clock
    private let answer: Answer
    private var clients: [Client] = []
    private static let mostClients = 32
    /// From accepting to the end.
    private static let patience: UInt64 = 5_000_000_000

    /// Serves what comes to a socket that listens, which is the server's from here on.
    package init(listener: Int32, clock: any Clock, answer: @escaping Answer) {
        self.listener = listener
        self.clock = clock
        self.answer = answer
    }

    deinit {
        for client in clients { _ = close(client.descriptor) }
        _ = close(listener)
    }

    /// Waits for something to do, and does it. Call it for ever.
    package func turn() {
        let now = clock.monotonic
        var waiting: [pollfd] = clients.map {
            pollfd(
                fd: $0.descriptor,
                events: Int16($0.phase == .sending ? POLLOUT : POLLIN), revents: 0)
        }
        // With as many as it takes, the others wait in the kernel's queue.
        let accepts = clients.count < Self.mostClients
        if accepts { waiting.append(pollfd(fd: listener, events: Int16(POLLIN), revents: 0)) }
        let first = clients.map(\.deadline).min()
        let left = first.map { $0 > now ? ($0 - now) / 1_000_000 + 1 : 0 }
        let count = poll(&waiting, nfds_t(waiting.count), left.map { Int32(clamping: $0) } ?? -1)
        guard count > 0 else {
            dropLate()
            return
        }
        var kept: [Client] = []
        for (place, client) in clients.enumerated() {
            var client = client
            if waiting[place].revents == 0 || advance(&client) {
                kept.append(client)
            } else {
                _ = close(client.descriptor)
            }
        }
        clients = kept
        if accepts, let last = waiting.last, last.revents != 0 { accept() }
        dropLate()
    }

    private func dropLate() {
        let now = clock.monotonic
        for client in clients where client.deadline <= now {
            if client.phase == .receiving {
                // Once, without waiting: it was slow enough.
                _ = HTTPExchange.refusal(408).withUnsafeBytes {
                    write(client.descriptor, $0.baseAddress, $0.count)
                }
            }
            _ = close(client.descriptor)
        }
        clients.removeAll { $0.deadline <= now }
    }

    private func accept() {
        let descriptor = Glibc.accept(listener, nil, nil)
        guard descriptor >= 0 else {
            // Short of descriptors: the listener stays ready, so not at once again.
            if errno == EMFILE || errno == ENFILE { usleep(100_000) }
            return
        }
        _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
        _ = fcntl(descriptor, F_SETFL, O_NONBLOCK)
        clients.append(
            Client(descriptor: descriptor, deadline: clock.monotonic + Self.patience))
    }

    /// False: it is over.
    private func advance(_ client: inout Client) -> Bool {
        switch client.phase {
        case .receiving: return receive(&client)
        case .sending: return send(&client)
        case .draining:
            let descriptor = client.descriptor
            let count = withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 1) {
                read(descriptor, $0.baseAddress, $0.count)
            }
            return count > 0 || count < 0 && Self.isPatient
        }
    }

    private static var isPatient: Bool { errno == EAGAIN || errno == EINTR }

    private func receive(_ client: inout Client) -> Bool {
        let room = HTTPExchange.mostBytes - client.received.count
        var count = 0
        let part = [UInt8](unsafeUninitializedCapacity: max(room, 1)) { buffer, filled in
            count = read(client.descriptor, buffer.baseAddress, max(room, 1))
            filled = max(0, count)
        }
        if count < 0 { return Self.isPatient }
        if count == 0 { return false }
        client.received += part
        switch HTTPExchange.parse(client.received) {
        case .incomplete: return true
        case .refused(let status): client.answer = HTTPExchange.refusal(status)
        case .asked("/metrics", let headOnly):
            let (status, body) = answer()
            client.answer = HTTPExchange.answer(
                status, body,
                type: status == 200
                    ? "text/plain; version=0.0.4; charset=utf-8" : "text/plain; charset=utf-8",
                headOnly: headOnly)
        case .asked: client.answer = HTTPExchange.refusal(404)
        }
        client.phase = .sending
        client.received = []
        return send(&client)
    }

    private func send(_ client: inout Client) -> Bool {
        while client.sent < client.answer.count {
            let count = client.answer.withUnsafeBytes {
                write(
                    client.descriptor, $0.baseAddress.map { $0 + client.sent },
                    $0.count - client.sent)
            }
            if count < 0 { return Self.isPatient }
            client.sent += count
        }
        client.phase = .draining
        return shutdown(client.descriptor, Int32(SHUT_WR)) == 0
    }
}
