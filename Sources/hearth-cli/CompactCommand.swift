// `hearth compact`: writes a closed store's live blocks anew, in an order that makes reading
// cheaper, and takes the dead space out.

import ArgumentParser
import BlockIO
import LogStore
import StoreTools

extension CompactionOrder: ExpressibleByArgument {}

struct CompactCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "compact",
        abstract: "Rewrite the live blocks of a closed store densely and in order.",
        discussion: """
            With --order chain, the default, the blocks of a prefix chain come to lie one behind \
            the other, so that a prefix returns in few large reads; heat puts what is asked for \
            most first, key sorts by namespace and key, none only takes dead space out. Nothing is \
            evicted. It may be interrupted at any moment, also by force: nothing is lost, and the \
            next run goes on from what it finds. Where the free space does not do for the order, \
            the emptiest segments are emptied first; where that does not do either, it says how \
            much is missing and changes nothing.
            """)

    @OptionGroup var store: StoreArguments

    @Option(help: "chain, heat, key or none.")
    var order = CompactionOrder.chain

    @Option(
        help: """
            Segments alive to at least this share, 0 to 1, are left alone where what is in them \
            lies in order.
            """)
    var utilization = 0.95

    @Option(help: "Write at most so many bytes of blocks: a number, with K, M, G or T.")
    var maxBytes: String?

    @Flag(help: "Only tell what would be written, and what room that needs.")
    var dryRun = false

    @Flag(help: "Print one JSON document instead of text.")
    var json = false

    func validate() throws {
        guard (0...1).contains(utilization) else {
            throw ValidationError("--utilization is a share from 0 to 1, not \(utilization).")
        }
        if let maxBytes, Self.bytes(maxBytes) == nil {
            throw ValidationError("--max-bytes: '\(maxBytes)' is no size such as 4096, 64K or 10G.")
        }
    }

    /// Digits, then nothing or K, M, G, T, with or without "iB".
    static func bytes(_ text: String) -> UInt64? {
        let digits = text.prefix { $0.isASCII && $0.isNumber }
        var unit = text.dropFirst(digits.count).lowercased()
        if unit.hasSuffix("ib") { unit.removeLast(2) }
        let shifts = ["": 0, "k": 10, "m": 20, "g": 30, "t": 40]
        guard let number = UInt64(digits), let shift = shifts[unit],
            number <= UInt64.max >> UInt64(shift)
        else { return nil }
        return number << UInt64(shift)
    }

    func run() throws {
        try reporting("compact") {
            var random = SystemRandomNumberGenerator()
            var options = CompactOptions(
                entropy: (random.next(), random.next(), random.next(), random.next()))
            options.order = order
            options.utilization = utilization
            options.maximumBytes = maxBytes.flatMap { Self.bytes($0) } ?? UInt64.max
            options.dryRun = dryRun
            options.allowAbsent = store.allowAbsent
            options.holder = StoreArguments.holder("compact")
            let driver = try store.makeDriver()
            defer { driver.shutdown() }
            let bar = ProgressBar("compact")
            let report: CompactReport
            do {
                report = try Compactor.run(
                    store.directories, driver: driver, clock: SystemClock(), options: options
                ) { bar.update($0, of: $1) }
            } catch let error as StoreError {
                bar.finish()
                throw Failure(error)
            }
            bar.finish()
            Output.text(json ? document(report).description : summary(report))
            if report.damaged > 0 { throw ToolExit.damage }
        }
    }

    private func summary(_ report: CompactReport) -> String {
        func line(_ name: String, _ shape: StoreShape) -> [String] {
            [
                name, String(shape.segments), Figures.size(shape.liveBytes),
                Figures.percent(shape.deadBytes, of: shape.liveBytes + shape.deadBytes),
                String(shape.chains), Figures.decimal(shape.blocksPerChain, 1),
                Figures.decimal(shape.extentsPerChain, 2),
            ]
        }
        let heads = ["", "segments", "live", "dead", "chains", "blocks/chain", "extents/chain"]
        var rows = [line("before", report.before)]
        if !dryRun { rows.append(line("after", report.after)) }
        var text = Figures.table(heads, rows)
        text += dryRun ? "would write" : "wrote"
        text += " \(report.moved) blocks, \(Figures.size(report.movedBytes))"
        if report.movedForRoom > 0 {
            text += " (\(report.movedForRoom) of them to make room first)"
        }
        text += "; \(report.freeSegments) segments were free"
        text +=
            report.neededSegments > report.freeSegments
            ? ", \(report.neededSegments) wanted for all in order\n" : "\n"
        if !report.isWhole { text += "not all of it: run it again to go on\n" }
        if report.damaged > 0 {
            text += "\(report.damaged) blocks could not be read and are gone: hearth verify\n"
        }
        return text
    }

    private func document(_ report: CompactReport) -> JSONText {
        func shape(_ shape: StoreShape) -> JSONText {
            .object([
                ("segments", .count(shape.segments)), ("live_bytes", .count(shape.liveBytes)),
                ("dead_bytes", .count(shape.deadBytes)), ("dead_share", .number(shape.deadShare)),
                ("blocks", .count(shape.blocks)), ("chains", .count(shape.chains)),
                ("blocks_per_chain", .number(shape.blocksPerChain)),
                ("extents_per_chain", .number(shape.extentsPerChain)),
            ])
        }
        return .object([
            ("before", shape(report.before)), ("after", shape(report.after)),
            ("moved_blocks", .count(report.moved)), ("moved_bytes", .count(report.movedBytes)),
            ("moved_for_room", .count(report.movedForRoom)),
            ("damaged_blocks", .count(report.damaged)),
            ("free_segments", .count(report.freeSegments)),
            ("needed_segments", .count(report.neededSegments)), ("whole", .flag(report.isWhole)),
            ("dry_run", .flag(dryRun)),
        ])
    }
}
