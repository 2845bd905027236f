// `hearth metrics` over real sockets: what it answers, what it refuses, that it outlives clients
// and owners, and that a signal ends it in good order.

import Foundation
import Glibc
import Hearth
import Testing

@Suite(.serialized) struct MetricsTests {
    /// The program while it serves.
    private final class Server {
        let process = Process()
        private let error = Pipe()
        /// What it says that it listens on.
        let address: String

        init(_ directory: String, _ listen: String) throws {
            process.executableURL = URL(fileURLWithPath: "/proc/self/exe")
                .resolvingSymlinksInPath().deletingLastPathComponent()
                .appendingPathComponent("hearth-cli")
            process.arguments = ["metrics", directory, "--listen", listen]
            process.standardError = error
            try process.run()
            var line: [UInt8] = []
            while line.last != 0x0A,
                let byte = try error.fileHandleForReading.read(upToCount: 1)?.first
            {
                line.append(byte)
            }
            address = String(decoding: line.dropLast(), as: UTF8.self)
                .replacingOccurrences(of: "hearth metrics: listening on ", with: "")
        }

        deinit { if process.isRunning { process.terminate() } }

        func end(_ signal: Int32) -> Int32 {
            kill(process.processIdentifier, signal)
            process.waitUntilExit()
            return process.terminationReason == .exit ? process.terminationStatus : -1
        }

        func connect() throws -> Int32 {
            if address.hasPrefix("unix:") {
                var to = sockaddr_un()
                to.sun_family = sa_family_t(AF_UNIX)
                withUnsafeMutableBytes(of: &to.sun_path) {
                    $0.copyBytes(from: address.dropFirst(5).utf8)
                }
                return try connect(AF_UNIX, &to)
            }
            var to = sockaddr_in()
            to.sin_family = sa_family_t(AF_INET)
            let port = address.split(separator: ":").last?.prefix { $0.isNumber } ?? ""
            to.sin_port = try #require(UInt16(port), "\(address)").bigEndian
            inet_pton(AF_INET, "127.0.0.1", &to.sin_addr)
            return try connect(AF_INET, &to)
        }

        private func connect<Address>(_ family: Int32, _ to: inout Address) throws -> Int32 {
            let made = socket(family, Int32(SOCK_STREAM.rawValue), 0)
            let result = withUnsafeBytes(of: &to) {
                Glibc.connect(
                    made, $0.baseAddress!.assumingMemoryBound(to: sockaddr.self),
                    socklen_t($0.count))
            }
            try #require(result == 0, "errno \(errno)")
            return made
        }

        /// Sends, and reads until the connection ends.
        func ask(_ request: String) throws -> String {
            let made = try connect()
            defer { close(made) }
            var bytes = Array(request.utf8)
            // It may have answered and gone before all is sent.
            _ = send(made, &bytes, bytes.count, Int32(MSG_NOSIGNAL))
            return try readAll(made)
        }

        func readAll(_ from: Int32) throws -> String {
            var told: [UInt8] = []
            var part = [UInt8](repeating: 0, count: 65_536)
            while true {
                let count = read(from, &part, part.count)
                if count <= 0 { return String(decoding: told, as: UTF8.self) }
                told += part[..<count]
            }
        }
    }

    private func open(_ directory: TemporaryDirectory) async throws -> Store {
        var configuration = Small.configuration(directory)
        configuration.statisticsPeriodSeconds = 0.05
        return try await Store.open(configuration)
    }

    @Test func itAnswersAndRefuses() async throws {
        let directory = TemporaryDirectory()
        let store = try await open(directory)
        let server = try Server(directory.path, "localhost:0")
        #expect(server.address.hasPrefix("http://127.0.0.1:"))
        let told = try server.ask("GET /metrics HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n")
        let parts = told.components(separatedBy: "\r\n\r\n")
        #expect(parts.count == 2 && parts[0].hasPrefix("HTTP/1.1 200 OK\r\n"))
        #expect(parts[0].contains("text/plain; version=0.0.4"))
        #expect(parts[0].contains("Content-Length: \(parts.last?.utf8.count ?? -1)\r\n"))
        #expect(parts.last?.contains("hearth_up 1\n") == true)
        #expect(parts.last?.contains("\nhearth_space_capacity \(64 << 20)\n") == true)
        let head = try server.ask("HEAD /metrics HTTP/1.0\n\n")
        #expect(head.hasPrefix("HTTP/1.1 200 ") && head.hasSuffix("\r\n\r\n"))
        #expect(try server.ask("GET /metrics?x=1 HTTP/1.1\r\n\r\n").hasPrefix("HTTP/1.1 200 "))
        for (request, status) in [
            ("GET / HTTP/1.1\r\n\r\n", 404), ("POST /metrics HTTP/1.1\r\n\r\n", 405),
            ("GET /metrics\r\n\r\n", 400), ("\r\n\r\n\r\n", 400),
            ("GET /metrics HTTP/2\r\n\r\n", 505),
            ("GET /metrics HTTP/1.1\r\nX: " + String(repeating: "x", count: 20_000), 431),
        ] {
            let answer = try server.ask(request)
            #expect(answer.hasPrefix("HTTP/1.1 \(status) "), "\(request.prefix(40)): \(answer)")
        }
        // Clients that say nothing, or go in the middle, hold up nobody.
        let silent = try (0..<8).map { _ in try server.connect() }
        close(try server.connect())
        let broken = try server.connect()
        write(broken, "GET /met", 8)
        close(broken)
        #expect(try server.ask("GET /metrics HTTP/1.1\r\n\r\n").hasPrefix("HTTP/1.1 200 "))
        // Their time is over after five seconds.
        #expect(try server.readAll(silent[0]).hasPrefix("HTTP/1.1 408 "))
        for each in silent { close(each) }

        // It goes on without an owner, and finds the next one.
        await store.close()
        let down = try server.ask("GET /metrics HTTP/1.1\r\n\r\n")
        #expect(down.contains("hearth_up 0\n") && !down.contains("hearth_space"))
        let again = try await open(directory)
        #expect(try server.ask("GET /metrics HTTP/1.1\r\n\r\n").contains("hearth_up 1\n"))
        await again.close()
        unlink(directory.path + "/statistics")
        #expect(try server.ask("GET /metrics HTTP/1.1\r\n\r\n").hasPrefix("HTTP/1.1 503 "))
        #expect(server.end(SIGTERM) == 0)
    }

    @Test func aSocketInTheFileSystem() async throws {
        let directory = TemporaryDirectory()
        let store = try await open(directory)
        let other = TemporaryDirectory()
        let path = other.path + "/metrics"
        let server = try Server(directory.path, "unix:" + path)
        #expect(server.address == "unix:" + path)
        #expect(try server.ask("GET /metrics HTTP/1.1\r\n\r\n").contains("hearth_up 1\n"))
        let second = try Server(directory.path, "unix:" + path)
        #expect(second.address.contains("listens there already"))
        second.process.waitUntilExit()
        #expect(second.process.terminationStatus == 2)
        #expect(server.end(SIGINT) == 0)
        #expect(!FileManager.default.fileExists(atPath: path))
        // One that a killed server left behind is in nobody's way.
        let killed = try Server(directory.path, "unix:" + path)
        #expect(killed.end(SIGKILL) == -1 && FileManager.default.fileExists(atPath: path))
        let next = try Server(directory.path, "unix:" + path)
        #expect(try next.ask("GET /metrics HTTP/1.1\r\n\r\n").contains("hearth_up 1\n"))
        #expect(next.end(SIGTERM) == 0)
        await store.close()
    }
}
