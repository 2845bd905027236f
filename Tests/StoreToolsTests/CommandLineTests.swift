// The built program `hearth`: its exit codes, what it says when it refuses, and that what it prints
// for programs can be read by them. Stores come from the simulated machine, written out as files.

import BlockIO
import Foundation
import LogStore
import SegmentFormat
import Testing

@testable import StoreTools

/// A directory with a store in it that goes away again.
private final class Scratch {
    let path: String

    init() throws {
        var name = Array("/var/tmp/hearth-tool-XXXXXX".utf8CString)
        try #require(mkdtemp(&name) != nil)
        path = String(decoding: name.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    /// Writes a world's store out as files.
    func write(_ world: ToolWorld, as name: String) throws -> String {
        let folder = path + "/" + name
        try FileManager.default.createDirectory(
            atPath: folder, withIntermediateDirectories: true)
        for file in world.machine.fileNames("/store") {
            let size = world.machine.fileSize("/store", file) ?? 0
            let bytes = world.machine.contents("/store", file, offset: 0, length: size) ?? []
            try Data(bytes).write(to: URL(fileURLWithPath: folder + "/" + file))
        }
        return folder
    }

    func flip(_ file: String, offset: UInt64) throws {
        let handle = try FileHandle(forUpdating: URL(fileURLWithPath: file))
        try handle.seek(toOffset: offset)
        let byte = try #require(handle.read(upToCount: 1)?.first)
        try handle.seek(toOffset: offset)
        try handle.write(contentsOf: Data([byte ^ 1]))
        try handle.close()
    }
}

private struct Ended {
    var code: Int32
    var out: Data
    var error: String
    var text: String { String(decoding: out, as: UTF8.self) }
}

@Suite(.serialized) struct CommandLineTests {
    /// Beside the tests' own binary.
    private static let program = URL(fileURLWithPath: "/proc/self/exe")
        .resolvingSymlinksInPath().deletingLastPathComponent().appendingPathComponent("hearth-cli")

    private func hearth(_ words: String..., input: Data? = nil) throws -> Ended {
        let process = Process()
        process.executableURL = Self.program
        process.arguments = words
        let (out, error, into) = (Pipe(), Pipe(), Pipe())
        process.standardOutput = out
        process.standardError = error
        process.standardInput = into
        try process.run()
        let writer = Thread {
            try? into.fileHandleForWriting.write(contentsOf: input ?? Data())
            try? into.fileHandleForWriting.close()
        }
        writer.start()
        let told = try out.fileHandleForReading.readToEnd() ?? Data()
        let errors = try error.fileHandleForReading.readToEnd() ?? Data()
        process.waitUntilExit()
        return Ended(
            code: process.terminationStatus, out: told,
            error: String(decoding: errors, as: UTF8.self))
    }

    private func json(_ data: Data) throws -> [String: Any] {
        try #require(try JSONSerialization.jsonObject(with: data) as? [String: Any])
    }

    @Test func verifyAndInspect() throws {
        let scratch = try Scratch()
        let (world, made) = Fixture.shared.world()
        let store = try scratch.write(world, as: "store")
        let clean = try hearth("verify", store)
        #expect(clean.code == 0 && clean.text.hasSuffix("clean\n"), "\(clean)")
        // Not a terminal: no progress.
        #expect(clean.error.isEmpty)
        let document = try json(try hearth("verify", store, "--json", "--threads", "1").out)
        #expect(document["clean"] as? Bool == true)

        let told = try json(try hearth("inspect", store, "--json").out)
        let space = try #require(told["space"] as? [String: Int])
        #expect(space.values.reduce(0, +) == told["capacity_bytes"] as? Int)
        #expect(told["blocks"] as? Int == made.values.map(\.count).reduce(0, +))
        for words in [["--segments"], ["--namespaces"], ["--segment", "0"], ["--key", "block-1"]] {
            for format in [[], ["--json"]] {
                let shown = try hearth2(["inspect", store] + words + format)
                #expect(shown.code == 0 && !shown.out.isEmpty, "\(words): \(shown.error)")
                if !format.isEmpty { _ = try json(shown.out) }
            }
        }
        let page = scratch.path + "/map.html"
        #expect(try hearth("inspect", store, "--html", page).code == 0)
        #expect(try String(contentsOfFile: page, encoding: .utf8).contains("<svg"))
        #expect(try hearth("inspect", store, "--key", "none such").code == 7)
        #expect(try hearth("inspect", store, "--segment", "999").code == 7)

        let place = try world.record("block-1")
        let file = store + "/" + StoreFiles.segment(SegmentTable.local(place.segment))
        try scratch.flip(file, offset: UInt64(place.page) * 4096 + 5)
        let bad = try hearth("verify", store)
        #expect(bad.code == 1 && bad.text.contains("block-1") && bad.text.contains(file))
        let findings = try json(try hearth("verify", store, "--json").out)["findings"]
        #expect((findings as? [[String: Any]])?.first?["structure"] as? String == "value")
        let export = try hearth(
            "export", store, "--namespace", "packed", "--output", scratch.path + "/x")
        #expect(export.code == 1 && export.error.contains("block-1"))

        // The block is lost, which is told by name; from then on there is nothing to repair.
        let repaired = try hearth("verify", store, "--repair")
        #expect(repaired.code == 1 && repaired.text.contains("lost: key block-1,"))
        #expect(repaired.text.hasSuffix("clean\n"), "\(repaired.text)")
        let again = try json(try hearth("verify", store, "--repair", "--json").out)
        #expect(again["rounds"] as? Int == 0 && again["clean"] as? Bool == true)
        try scratch.flip(store + "/manifest", offset: 99)
        let manifest = try hearth("verify", store, "--repair", "--json")
        let healed = try json(manifest.out)
        #expect(manifest.code == 0 && healed["lost_blocks"] as? Int == 0)
        #expect((healed["rebuilt"] as? [String: Int])?["manifest"] == 1)
        #expect(try hearth("verify", store).code == 0)
    }

    private func hearth2(_ words: [String]) throws -> Ended {
        switch words.count {
        case 3: try hearth(words[0], words[1], words[2])
        case 4: try hearth(words[0], words[1], words[2], words[3])
        default: try hearth(words[0], words[1], words[2], words[3], words[4])
        }
    }

    @Test func exportImportPurge() throws {
        let scratch = try Scratch()
        let store = try scratch.write(Fixture.shared.world().world, as: "store")
        let target = try scratch.write(try ToolWorld.empty(), as: "target")
        let file = scratch.path + "/packed.hearth"
        let out = try hearth(
            "export", store, "--namespace", "model=packed", "--output", file, "--json")
        #expect(out.code == 0, "\(out.error)")
        let blocks = try #require(try json(out.out)["blocks"] as? Int)
        #expect(try hearth("import", target, "--input", file, "--dry-run").code == 0)
        let put = try json(try hearth("import", target, "--input", file, "--json").out)
        #expect(put["put"] as? Int == blocks && put["refused"] as? Int == 0)
        let again = try json(try hearth("import", target, "--input", file, "--json").out)
        #expect(again["put"] as? Int == 0 && again["present"] as? Int == blocks)
        #expect(try hearth("verify", target).code == 0)

        let piped = try hearth("export", store, "--namespace", "aligned", "--output", "-")
        #expect(piped.code == 0 && piped.error.contains("exported"))
        #expect(try hearth("import", target, "--input", "-", input: piped.out).code == 0)
        try scratch.flip(file, offset: 5000)
        let bad = try hearth("import", target, "--input", file)
        #expect(bad.code == 8 && bad.error.contains("at byte"))
        #expect(try hearth("import", target, "--input", "/nowhere").code == 3)
        #expect(try hearth("export", store, "--namespace", "none", "--output", file).code == 7)
        let several = try hearth("export", store, "--namespace", "bf16", "--output", file)
        #expect(several.code == 7 && several.error.contains("model=packed"))

        let would = try json(try hearth("compact", target, "--dry-run", "--json").out)
        #expect(would["dry_run"] as? Bool == true && would["moved_blocks"] is Int)
        let dense = try hearth("compact", target, "--order", "key")
        #expect(dense.code == 0 && dense.text.contains("after"), "\(dense.error)")
        #expect(try hearth("verify", target).code == 0)

        let look = try json(
            try hearth("purge", target, "--namespace", "packed", "--dry-run", "--json").out)
        #expect(look["blocks"] as? Int == blocks && look["purged"] as? Bool == false)
        let gone = try hearth("purge", target, "--namespace", "packed", "--erase", "--json")
        #expect(gone.code == 0, "\(gone.error)")
        let erased = try json(gone.out)
        #expect(erased["purged"] as? Bool == true && erased["erased_bytes"] as? Int ?? 0 > 0)
        #expect(try hearth("purge", target, "--namespace", "packed").code == 7)
        #expect(try hearth("verify", target).code == 0)
    }

    @Test func refusals() throws {
        let scratch = try Scratch()
        let store = try scratch.write(try ToolWorld.empty(), as: "store")
        let none = scratch.path + "/none"
        try FileManager.default.createDirectory(
            atPath: none, withIntermediateDirectories: false)
        for command in ["verify", "inspect"] {
            let missing = try hearth(command, scratch.path + "/nowhere")
            #expect(missing.code == 3 && missing.error.contains("no such directory"))
            let empty = try hearth(command, none)
            #expect(empty.code == 3 && empty.error.contains("No Hearth store"))
            #expect(try FileManager.default.contentsOfDirectory(atPath: none).isEmpty)
            #expect(try hearth(command, store + "/manifest").code == 3)
        }
        #expect(try hearth("verify").code == 64)
        #expect(try hearth("verify", store, "--threads", "many").code == 64)
        #expect(try hearth("purge", store).code == 64)
        #expect(try hearth("compact", store, "--order", "size").code == 64)
        #expect(try hearth("compact", store, "--utilization", "2").code == 64)
        #expect(try hearth("compact", store, "--max-bytes", "lots").code == 64)
        #expect(try hearth("nonsense").code == 64)
        #expect(try hearth("--help").code == 0)

        let driver = try makeDriver(.threads, regions: RegionTable(), depth: 8)
        let held = try ClosedStore.open(
            [store], driver: driver, clock: SystemClock(), holder: "a busy engine")
        for words in [["verify"], ["inspect"]] {
            let locked = try hearth(words[0], store)
            #expect(locked.code == 4 && locked.error.contains("a busy engine"))
        }
        held.close()
        driver.shutdown()
        for copy in 0..<Manifest.copies {
            try scratch.flip(store + "/manifest", offset: UInt64(copy * Manifest.copyBytes + 99))
        }
        #expect(try hearth("verify", store).code == 1)
        guard geteuid() != 0 else { return }
        try FileManager.default.setAttributes([.posixPermissions: 0], ofItemAtPath: none)
        #expect(try hearth("verify", none).code == 6)
    }

    @Test func completionsAndManual() throws {
        for shell in ["bash", "zsh", "fish"] {
            let script = try hearth("--generate-completion-script", shell)
            #expect(script.code == 0 && script.text.contains("hearth"))
        }
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .deletingLastPathComponent().deletingLastPathComponent()
        let header = try String(
            contentsOf: root.appendingPathComponent("Sources/CHearth/include/hearth.h"),
            encoding: .utf8)
        let version = try hearth("--version").text.split { " .\n".contains($0) }
        #expect(version.count == 3 && header.contains("HEARTH_VERSION_MAJOR \(version[1])\n"))
        #expect(header.contains("HEARTH_VERSION_MINOR \(version[2])\n"))
        // Every command has its page.
        for command in [
            "", "-verify", "-inspect", "-compact", "-export", "-import", "-purge", "-stat", "-top",
            "-explain", "-metrics",
        ] {
            let page = root.appendingPathComponent("docs/man/hearth\(command).1")
            let text = try String(contentsOf: page, encoding: .utf8)
            #expect(text.contains(".TH HEARTH"))
            guard !command.isEmpty else { continue }
            let help = try hearth(String(command.dropFirst()), "--help").text
            let options = help.split(separator: "\n")
                .compactMap { $0.split(separator: " ").first }
            for word in options where word.hasPrefix("--") && !word.hasSuffix("`") {
                let option = word.replacingOccurrences(of: "-", with: "\\-")
                #expect(text.contains(option), "\(word) is not in hearth\(command).1")
            }
        }
    }
}
