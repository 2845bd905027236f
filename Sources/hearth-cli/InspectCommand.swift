// `hearth inspect`: what a closed store is and holds, for people and for programs.

import ArgumentParser
import BlockIO
import Glibc
import LogStore
import SegmentFormat
import StoreTools

struct InspectCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "inspect",
        abstract: "Tell what a closed store is and holds.",
        discussion: """
            Without options: one screen with the store's identity, its space, members, segments \
            and namespaces. Reads headers, footers and the checkpoint, not the values.
            """)

    @OptionGroup var store: StoreArguments

    @Flag(help: "One line a segment: state, generation, stream, live share, age.")
    var segments = false

    @Flag(help: "Only the namespaces.")
    var namespaces = false

    @Option(help: "Every record of a key, given as text or as 0x and hexadecimal.")
    var key: String?

    @Option(help: "One segment and every record in it.")
    var segment: UInt32?

    @Option(
        help: "Write a page with the segment map, by live share and age.", completion: .file())
    var html: String?

    @Flag(help: "Print one JSON document instead of text.")
    var json = false

    func validate() throws {
        let asked = [segments, namespaces, key != nil, segment != nil, html != nil].count { $0 }
        guard asked <= 1 else {
            throw ValidationError(
                "Give one of --segments, --namespaces, --key, --segment and --html.")
        }
        guard key.map({ KeyText.bytes($0) != nil }) ?? true else {
            throw ValidationError("'\(key ?? "")' is no hexadecimal: two digits a byte after 0x.")
        }
    }

    func run() throws {
        try reporting("inspect") {
            try store.withStore("inspect") { closed in
                let bar = ProgressBar("inspect")
                let catalog = try Catalog(closed) { done, all in
                    let segment = closed.manifest.segmentBytes
                    bar.update(UInt64(done) * segment, of: UInt64(all) * segment)
                }
                bar.finish()
                try show(catalog)
            }
        }
    }

    private func show(_ catalog: Catalog) throws {
        let summary = StoreSummary(catalog, now: SystemClock().wallSeconds)
        if let key {
            try showKey(catalog, KeyText.bytes(key) ?? [])
        } else if let segment {
            try showSegment(catalog, summary, segment)
        } else if let html {
            try OutputFile.write(html, SegmentMap.html(summary))
            if json { Output.text(JSONText.object([("html", .text(html))]).description) }
        } else if json {
            Output.text(
                summary.json(segments: segments, namespaces: namespaces).description)
        } else if segments {
            Output.text(summary.segmentText())
        } else if namespaces {
            Output.text(summary.namespaceText)
        } else {
            Output.text(summary.text)
        }
    }

    private func showKey(_ catalog: Catalog, _ bytes: [UInt8]) throws {
        let records = try catalog.records(ofKey: bytes)
        if json {
            Output.text(
                JSONText.object([
                    ("key", .text(KeyText.of(bytes))), ("records", .array(records.map(\.json))),
                ]).description)
        } else if !records.isEmpty {
            Output.text(ListedRecord.table(records))
        }
        if records.isEmpty {
            throw Failure(ToolExit.notFound, "no record of the key \(KeyText.of(bytes))")
        }
    }

    private func showSegment(_ catalog: Catalog, _ summary: StoreSummary, _ id: UInt32) throws {
        guard let info = summary.segments.first(where: { $0.id == id }) else {
            throw Failure(
                ToolExit.notFound,
                "no segment \(id): `hearth inspect --segments` lists them")
        }
        let records = try catalog.records(ofSegment: info)
        if json {
            Output.text(
                JSONText.object([
                    ("segment", summary.json(of: info)), ("records", .array(records.map(\.json))),
                ]).description)
            return
        }
        Output.text(summary.segmentText(only: id))
        if !records.isEmpty { Output.text("\n" + ListedRecord.table(records)) }
    }
}

/// A file that is there whole, or as it was before.
enum OutputFile {
    static func write(_ path: String, _ text: String) throws {
        let part = path + ".part"
        let descriptor = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { throw failure(path) }
        var text = text
        let written = text.withUTF8 { bytes in
            var done = 0
            while done < bytes.count {
                let count = Glibc.write(
                    descriptor, bytes.baseAddress.map { $0 + done }, bytes.count - done)
                if count < 0 {
                    if errno == EINTR { continue }
                    return false
                }
                done += count
            }
            return true
        }
        let closed = close(descriptor) == 0
        guard written, closed, rename(part, path) == 0 else {
            let failure = failure(path)
            unlink(part)
            throw failure
        }
    }

    static func failure(_ path: String) -> Failure {
        let code = errno == EACCES || errno == EPERM ? ToolExit.permission : ToolExit.failed
        return Failure(code, "\(path): \(String(cString: strerror(errno)))")
    }
}
