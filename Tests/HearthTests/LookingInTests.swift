// The program `hearth` beside a process that has the store open: stat, top, explain and metrics see
// what it does, take no lock, and say so when nobody is there; the tools for closed stores do not
// mind the page.

import BlockIO
import Foundation
import Glibc
import Hearth
import Testing

@testable import SegmentFormat

@Suite(.serialized) struct LookingInTests {
    /// A program beside the tests' own binary.
    private static func program(_ name: String) -> URL {
        URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
            .deletingLastPathComponent().appendingPathComponent(name)
    }

    private struct Ended {
        var code: Int32
        var out: String
        var error: String

        func json() throws -> [String: Any] {
            try #require(
                try JSONSerialization.jsonObject(with: Data(out.utf8)) as? [String: Any])
        }
    }

    private func hearth(_ words: String...) throws -> Ended { try hearth(words) }

    private func hearth(_ words: [String]) throws -> Ended {
        let process = Process()
        process.executableURL = Self.program("hearth-cli")
        process.arguments = words
        let (out, error) = (Pipe(), Pipe())
        process.standardOutput = out
        process.standardError = error
        try process.run()
        let told = try out.fileHandleForReading.readToEnd() ?? Data()
        let errors = try error.fileHandleForReading.readToEnd() ?? Data()
        process.waitUntilExit()
        return Ended(
            code: process.terminationStatus, out: String(decoding: told, as: UTF8.self),
            error: String(decoding: errors, as: UTF8.self))
    }

    private func open(_ directory: TemporaryDirectory) async throws -> Store {
        var configuration = Small.configuration(directory)
        configuration.statisticsPeriodSeconds = 0.05
        let store = try await Store.open(configuration)
        try await store.waitUntilRecovered()
        return store
    }

    @Test func statAndTop() async throws {
        let directory = TemporaryDirectory()
        let store = try await open(directory)
        let space = try await store.namespace(Small.description)
        for number in 0..<20 {
            _ = await store.putBytes(
                Payload.key(number), [UInt8](repeating: 1, count: 5000), in: space)
        }
        _ = await store.getBytes(Payload.key(0), in: space, mode: .direct)
        _ = await store.getBytes("none", in: space, mode: .direct)
        // The page comes a period later, on a busy machine more.
        for _ in 0..<100 where try !hearth("stat", directory.path).out.contains("never_put 1") {
            try await Task.sleep(for: .milliseconds(50))
        }
        let text = try hearth("stat", directory.path)
        #expect(text.code == 0 && text.error.isEmpty, "\(text.error)")
        #expect(text.out.contains("process \(getpid())") && text.out.contains("stored 20"))
        #expect(text.out.contains("never_put 1") && text.out.contains("trouble"))
        let document = try hearth("stat", directory.path, "--json").json()
        #expect(document["owner"] as? String == "running")
        #expect(document["process"] as? Int == Int(getpid()))
        let figures = try #require(document["statistics"] as? [String: Any])
        #expect((figures["space"] as? [String: Any])?["blocks"] as? Int == 20)
        let prometheus = try hearth("stat", directory.path, "--prometheus")
        #expect(prometheus.code == 0)
        checkPrometheus(prometheus.out)
        #expect(prometheus.out.contains("hearth_up 1\n"))
        #expect(prometheus.out.contains("\nhearth_space_blocks 20\n"))
        #expect(try hearth("stat", directory.path, "--json", "--prometheus").code == 64)

        let top = try hearth("top", directory.path, "--interval", "0.1", "--count", "3")
        #expect(top.code == 0, "\(top.error)")
        let lines = top.out.split(separator: "\n")
        #expect(lines.count == 4 && lines[0].contains("gets/s") && !top.out.contains("\u{1B}"))
        #expect(try hearth("top", directory.path, "--interval", "0").code == 64)
        #expect(try hearth("top", directory.path, "--count", "0").code == 64)

        await store.close()
        let closed = try hearth("stat", directory.path)
        #expect(closed.code == 0 && closed.out.contains("closed; the last figures"))
        let ended = try hearth("top", directory.path, "--count", "1")
        #expect(ended.code == 9 && ended.error.contains("is closed"))
        let down = try hearth("stat", directory.path, "--prometheus")
        #expect(down.out.contains("hearth_up 0\n") && !down.out.contains("hearth_space"))
    }

    /// Every line is a comment or a sample, and every sample's metric was declared.
    private func checkPrometheus(_ text: String) {
        var declared: Set<Substring> = []
        for line in text.split(separator: "\n") {
            if line.hasPrefix("# TYPE ") {
                #expect(declared.insert(line.split(separator: " ")[2]).inserted, "\(line)")
                continue
            }
            if line.hasPrefix("# HELP ") { continue }
            let name = line.prefix { $0 != "{" && $0 != " " }
            let plain = ["_sum", "_count"].reduce(name) { name, end in
                name.hasSuffix(end) ? name.dropLast(end.count) : name
            }
            #expect(declared.contains(name) || declared.contains(plain), "\(line)")
            #expect(Double(line.split(separator: " ").last ?? "") != nil, "\(line)")
        }
        #expect(declared.count > 90)
    }

    @Test func explainWhileTheOwnerWrites() async throws {
        let directory = TemporaryDirectory()
        let store = try await open(directory)
        let space = try await store.namespace(Small.description)
        for number in 0..<50 {
            _ = await store.putBytes(
                Payload.key(number), Payload.bytes(Payload.key(number), count: 3000), in: space,
                options: PutOptions(durability: .written))
        }
        _ = await store.delete([Payload.key(7)], in: space)
        let ends = Flag()
        let writer = Task {
            var number = 1000
            while !ends.isSet {
                let keys = (number..<(number + 16)).map(Payload.key)
                _ = await store.put(
                    keys.map { PutItem(key: $0, bytes: Payload.bytes($0, count: 20_000)) },
                    in: space)
                number += 16
            }
        }
        for number in [0, 13, 49] {
            let found = try hearth("explain", directory.path, "key-\(number)", "--json")
            #expect(found.code == 0, "\(found.error)")
            let document = try found.json()
            #expect(document["open"] as? Bool == true)
            let told = try #require((document["namespaces"] as? [[String: Any]])?.first)
            #expect(told["verdict"] as? String == "present")
            let device = try #require(told["device"] as? [String: Any])
            #expect(device["value_bytes"] as? Int == 3000 && device["shards"] as? Int == 1)
            #expect((device["file"] as? String)?.hasPrefix(directory.path + "/segment-") == true)
        }
        let text = try hearth("explain", directory.path, "key-3", "--namespace", "model=test")
        #expect(text.code == 0 && text.out.contains("present") && text.out.contains("heat"))
        let deleted = try hearth("explain", directory.path, "key-7")
        #expect(deleted.code == 7 && deleted.out.contains("deleted at"), "\(deleted)")
        let never = try hearth("explain", directory.path, "no such key")
        #expect(never.code == 7 && never.error.contains("never put"))
        let other = try hearth("explain", directory.path, "k", "--namespace", "nothing")
        #expect(other.code == 7 && other.error.contains("no namespace"))
        #expect(try hearth("explain", directory.path, "0xabc").code == 64)
        ends.set()
        await writer.value
        await store.close()

        // Closed, the log tells.
        let closed = try hearth("explain", directory.path, "key-13", "--json")
        #expect(closed.code == 0, "\(closed.error)")
        #expect(try closed.json()["open"] as? Bool == false)
        let gone = try hearth("explain", directory.path, "key-7")
        #expect(gone.code == 7 && gone.out.contains("deleted"), "\(gone)")
        // And the page is in nobody's way.
        #expect(FileManager.default.fileExists(atPath: directory.path + "/statistics"))
        for command in ["verify", "inspect", "compact"] {
            let ended = try hearth(command, directory.path)
            #expect(ended.code == 0, "\(command): \(ended.out) \(ended.error)")
        }
        #expect(try hearth("verify", directory.path, "--json").json()["clean"] as? Bool == true)
    }

    @Test func aKilledOwnerIsTold() async throws {
        let directory = TemporaryDirectory()
        // Where the benchmark keeps the store of a job of that name.
        let store = directory.path + "/w.hearth"
        defer { try? FileManager.default.removeItem(atPath: store) }
        let owner = Process()
        owner.executableURL = Self.program("hearth-bench")
        owner.arguments = [
            "--name=w", "--directory=\(directory.path)", "--rw=randwrite", "--bs=64k",
            "--size=64m", "--iodepth=4", "--time_based", "--runtime=120",
        ]
        owner.standardOutput = FileHandle.nullDevice
        owner.standardError = FileHandle.nullDevice
        try owner.run()
        var seen = Ended(code: -1, out: "", error: "")
        for _ in 0..<200 where seen.code != 0 && owner.isRunning {
            try await Task.sleep(for: .milliseconds(50))
            seen = try hearth("stat", store, "--json")
        }
        try #require(seen.code == 0, "\(seen.error)")
        #expect(try seen.json()["process"] as? Int32 == owner.processIdentifier)
        // Another process's memory, too.
        #expect(try hearth("explain", store, "none").code == 7)
        kill(owner.processIdentifier, SIGKILL)
        owner.waitUntilExit()
        let gone = try hearth("stat", store)
        #expect(gone.code == 9 && gone.out.contains("ended without closing"), "\(gone)")
        let top = try hearth("top", store, "--count", "1")
        #expect(top.code == 9 && top.error.contains("ended without closing"))
        #expect(try hearth("stat", store, "--json").json()["owner"] as? String == "gone")
    }

    @Test func errorsHaveTheirCodes() async throws {
        let directory = TemporaryDirectory()
        for command in ["stat", "top"] {
            let none = try hearth(command, directory.path + "/none")
            #expect(none.code == 3 && none.error.contains("no such directory"))
            let empty = try hearth(command, directory.path)
            #expect(empty.code == 3 && empty.error.contains("No Hearth store"))
            #expect(try hearth(command, "/proc/self/exe").code == 3)
        }
        #expect(try hearth("explain", directory.path, "k").code == 3)
        #expect(try hearth("metrics", directory.path, "--listen", "127.0.0.1:0").code == 3)
        for address in ["nowhere", "127.0.0.1", "127.0.0.1:70000", "unix:", "example.org:1"] {
            #expect(try hearth("metrics", directory.path, "--listen", address).code == 64)
        }
        let store = try await open(directory)
        let path = directory.path + "/statistics"
        unlink(path)
        let missing = try hearth("stat", directory.path)
        #expect(missing.code == 3 && missing.error.contains("no page"))
        try Data("no page".utf8).write(to: URL(fileURLWithPath: path))
        let torn = try hearth("stat", directory.path)
        #expect(torn.code == 2 && torn.error.contains("no whole page"), "\(torn)")
        var newer = try #require(StatisticsPage().encode())
        newer[4] = 2
        newer.withUnsafeMutableBytes {
            $0.seal(StatisticsPage.seed, at: StatisticsPage.checkOffset)
        }
        try Data(newer).write(to: URL(fileURLWithPath: path))
        for words in [["stat"], ["top"], ["explain", "k"]] {
            let refused = try hearth([words[0], directory.path] + words.dropFirst())
            #expect(refused.code == 5 && refused.error.contains("version 2"), "\(refused)")
        }
        unlink(path)
        // Without a page the lock tells that the store is open.
        #expect(try hearth("explain", directory.path, "k").code == 4)
        await store.close()
        if geteuid() != 0 {
            try Data().write(to: URL(fileURLWithPath: path))
            chmod(path, 0)
            let foreign = try hearth("stat", directory.path)
            #expect(foreign.code == 6 && foreign.error.contains("only that user and root"))
        }
    }
}
