// `hearth explain`: where a key's block is, or why it is not: on an open store through its owner's
// shared memory, on a closed one from the log, as `inspect --key` reads it.

import ArgumentParser
import BlockIO
import LogStore
import SegmentFormat
import StoreTools

struct ExplainCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "explain",
        abstract: "Tell where a key's block is, or why it is not there.",
        discussion: """
            If a process has the store open, its index, residents and memory of what is gone are \
            looked into, which that process does not notice; it takes the same user, or root. A \
            closed store is read as `inspect --key` reads it, under its lock. Without --namespace \
            every namespace that knows of the key is told. Ends with 7 when the block is nowhere.
            """)

    @Argument(
        help: "The store's directory; of a store of several devices, the first.",
        completion: .directory)
    var directory: String

    @Argument(help: "The key, as text or as 0x and hexadecimal.")
    var key: String

    @Option(
        help: """
            The namespace: its instance number, field=value pairs that it has, or one of its \
            values.
            """)
    var namespace: String?

    @Option(
        help: "Of a closed store of several devices: another member's directory (may be repeated).",
        completion: .directory)
    var member: [String] = []

    @OptionGroup var reading: ReadingArguments

    @Flag(help: "Print one JSON document instead of text.")
    var json = false

    func validate() throws {
        guard !directory.isEmpty, member.allSatisfy({ !$0.isEmpty }) else {
            throw ValidationError("An empty path is no directory.")
        }
        guard let bytes = KeyText.bytes(key) else {
            throw ValidationError("'\(key)' is no hexadecimal: two digits a byte after 0x.")
        }
        guard (1...FormatConstants.maxKeyBytes).contains(bytes.count) else {
            throw ValidationError(
                "A key has 1 to \(FormatConstants.maxKeyBytes) bytes, not \(bytes.count).")
        }
    }

    func run() throws {
        try reporting("explain") {
            let bytes = KeyText.bytes(key) ?? []
            let now = SystemClock().wallSeconds
            let (found, isOpen) = try explain(bytes, now)
            // Of many namespaces those that know nothing are left out.
            var told = found.filter(\.isKnown)
            if told.isEmpty, namespace != nil { told = found }
            Output.text(json ? document(bytes, told, isOpen).description : text(told))
            if !told.contains(where: { $0.staging != nil || $0.device != nil }) {
                let name = KeyText.of(bytes)
                throw Failure(
                    ToolExit.notFound,
                    told.isEmpty
                        ? "no namespace knows of the key \(name): never put, or gone for longer "
                            + "than is remembered" : "no block under the key \(name)")
            }
        }
    }

    private func explain(
        _ bytes: [UInt8], _ now: UInt32
    ) throws -> (found: [KeyExplanation], isOpen: Bool) {
        let clock = SystemClock()
        if let page = try page(clock), page.isOpen {
            let store = try OpenStore(page, clock: clock)
            let spaces = try namespace.map { [try ExportCommand.choose($0, store.namespaces)] }
            let found = (spaces ?? store.namespaces).map {
                store.explain(bytes, in: $0, now: now)
            }
            return (found, true)
        }
        let found = try reading.withStore([directory] + member, "explain") { closed in
            let spaces = try namespace.map { [try ExportCommand.choose($0, closed)] }
            let all = closed.namespaces.values.sorted { $0.instance < $1.instance }
            return try Catalog(closed).explain(bytes, in: spaces ?? all, now: now)
        }
        return (found, false)
    }

    /// Nil without a page, or with one that is torn: the lock decides then.
    private func page(_ clock: SystemClock) throws -> OwnerPage? {
        do {
            return try OwnerPage.read(directory, clock: clock)
        } catch let error where error.kind == .permission || error.kind == .newerFormat {
            throw error
        } catch {
            return nil
        }
    }

    private func text(_ found: [KeyExplanation]) -> String {
        found.map(\.text).joined()
    }

    private func document(
        _ bytes: [UInt8], _ found: [KeyExplanation], _ isOpen: Bool
    ) -> JSONText {
        .object([
            ("key", .text(KeyText.of(bytes))), ("open", .flag(isOpen)),
            ("namespaces", .array(found.map(\.json))),
        ])
    }
}
