// Compactor: writes the live blocks of a closed store anew, one behind the other, and lets the
// segments that they leave become clean. Where there is not enough room to write them all in the
// order asked for, the emptiest segments are emptied first, as they lie.
//
// It may be killed at any moment: the log keeps every block durable at one place or the other, and
// the next run begins with what it finds; stretches that lie as they should are left alone.

import BlockIO
import LogStore
import SegmentFormat

package struct CompactOptions: Sendable {
    package var order = CompactionOrder.chain
    /// Segments of which at least this share is alive are dense enough to be left alone, where
    /// what is in them lies in order.
    package var utilization = 0.95
    /// At most so many value bytes are written.
    package var maximumBytes = UInt64.max
    package var dryRun = false
    package var allowAbsent = false
    package var holder = "hearth compact"
    package var entropy: (UInt64, UInt64, UInt64, UInt64)
    /// Bytes of blocks under way at once.
    package var bytesInFlight = 32 << 20
    package init(entropy: (UInt64, UInt64, UInt64, UInt64)) { self.entropy = entropy }
}

/// What a store is like, as far as compaction changes it.
package struct StoreShape: Sendable {
    /// Segments that hold anything.
    package var segments = 0
    package var liveBytes: UInt64 = 0
    package var deadBytes: UInt64 = 0
    package var blocks = 0
    package var chains = 0
    package var extentsPerChain = 0.0
    package var blocksPerChain = 0.0
    package init() {}

    package var deadShare: Double {
        let all = liveBytes + deadBytes
        return all == 0 ? 0 : Double(deadBytes) / Double(all)
    }
}

package struct CompactReport: Sendable {
    package var before = StoreShape()
    package var after = StoreShape()
    /// Blocks that were written anew, and their bytes; with `dryRun`, that would be.
    package var moved = 0
    package var movedBytes: UInt64 = 0
    /// Of them, how many twice: to make room first.
    package var movedForRoom = 0
    /// Blocks that could not be read: they have left the store.
    package var damaged = 0
    /// Segments that had to be free at the most, and that were.
    package var neededSegments = 0
    package var freeSegments = 0
    package var isWhole = true
    package init() {}
}

package final class Compactor {
    private static let page = FormatConstants.pageBytes
    private let options: CompactOptions
    private let progress: Verifier.Progress
    private var report = CompactReport()

    private init(_ options: CompactOptions, _ progress: @escaping Verifier.Progress) {
        self.options = options
        self.progress = progress
    }

    /// Compacts the store in these directories. Throws `noSpace` when there is too little room to
    /// begin with; the store is then as it was.
    package static func run(
        _ directories: [String], driver: any BlockDriver, clock: any Clock,
        options: CompactOptions, progress: @escaping Verifier.Progress = { _, _ in }
    ) throws(StoreError) -> CompactReport {
        let compactor = Compactor(options, progress)
        try compactor.run(directories, driver, clock)
        return compactor.report
    }

    /// What a store is like, without opening it: nothing is written.
    package static func shape(
        of directories: [String], driver: any BlockDriver, clock: any Clock,
        options: CompactOptions
    ) throws(StoreError) -> StoreShape {
        try Compactor(options) { _, _ in }.look(directories, driver, clock).shape
    }

    private func run(
        _ directories: [String], _ driver: any BlockDriver, _ clock: any Clock
    ) throws(StoreError) {
        var (order, shape, manifest, paths) = try look(directories, driver, clock)
        report.before = shape
        report.after = shape
        let store = try PumpedStore(
            manifest, paths, blocks: order.blocks.count, driver: driver, clock: clock,
            holder: options.holder, entropy: options.entropy, rewriting: true)
        do throws(StoreError) {
            try work(&order, store)
        } catch {
            try? store.close()
            throw error
        }
        try store.close()
        if !options.dryRun { report.after = try look(directories, driver, clock).shape }
    }

    private func look(
        _ directories: [String], _ driver: any BlockDriver, _ clock: any Clock
    ) throws(StoreError) -> (
        order: BlockOrder, shape: StoreShape, manifest: Manifest, paths: [String]
    ) {
        let closed = try ClosedStore.open(
            directories, allowAbsent: options.allowAbsent, driver: driver, clock: clock,
            holder: options.holder)
        defer { closed.close() }
        let catalog = try Catalog(closed)
        _ = try catalog.settleContested()
        let order = try BlockOrder(catalog)
        var shape = StoreShape()
        shape.blocks = order.blocks.count
        for info in catalog.segments where info.records > 0 {
            shape.segments += 1
            let live = UInt64(info.livePages * Self.page)
            let meta = UInt64(info.metaPages * Self.page)
            shape.liveBytes += live
            let written = UInt64(info.writtenPages * Self.page)
            shape.deadBytes += written > live + meta ? written - live - meta : 0
        }
        let chains = order.chains()
        shape.chains = chains.chains
        if chains.chains > 0 {
            shape.extentsPerChain = Double(chains.extents) / Double(chains.chains)
            shape.blocksPerChain = Double(chains.blocks) / Double(chains.chains)
        }
        return (order, shape, closed.manifest, closed.members.compactMap { $0?.path })
    }

    // MARK: Deciding

    private func work(_ order: inout BlockOrder, _ store: PumpedStore) throws(StoreError) {
        if options.order == .heat {
            order.setHeat { store.log.index.find($0)?.heat ?? 0 }
        }
        var room = RewriteRoom(order, store.log)
        report.freeSegments = room.free
        let wanted = toMove(order, room)
        var first: [Int] = []
        var need = room.shortage(of: wanted)
        report.neededSegments = room.free + need
        if need > 0, options.order != .none {
            // Dead space first, where it is cheapest, until the rest finds room.
            var target = room.free + need
            for segment in room.emptiestFirst where need > 0 {
                let blocks = room.blocks(of: segment)
                guard room.shareAlive(segment) < 0.98, room.shortage(of: blocks) == 0 else {
                    continue
                }
                room.write(blocks)
                first += blocks
                guard room.free >= target else { continue }
                need = room.shortage(of: wanted)
                target = room.free + need
            }
            need = room.shortage(of: wanted)
            if need > 0 { throw shortOfRoom(store, need) }
        } else if need > 0, room.free == 0 {
            throw shortOfRoom(store, need)
        }
        report.movedForRoom = first.count
        if options.dryRun {
            report.moved = wanted.count
            for number in wanted {
                report.movedBytes += UInt64(Int(order.blocks[number].pages) * Self.page)
            }
            return
        }
        let all = UInt64(first.count + wanted.count)
        store.log.sealBlocks()
        if try !move(first, order, store, done: 0, of: all) {
            if !first.isEmpty { store.log.sealBlocks() }
            _ = try move(wanted, order, store, done: first.count, of: all)
        }
        // What they left behind becomes clean, as far as the devices let it.
        if !store.recycle(progress: { progress(all, all) }) { report.isWhole = false }
    }

    private func shortOfRoom(_ store: PumpedStore, _ need: Int) -> StoreError {
        let bytes = UInt64(need) * store.log.manifest.segmentBytes
        return StoreError(
            .noSpace, operation: "compact", subject: "the store",
            advice:
                "In this order it needs \(Figures.size(bytes)) more that are free, and emptying "
                + "the emptiest segments first does not give as much: delete something, or use "
                + "--order none, which only takes dead space out. Nothing was changed.")
    }

    /// The blocks that do not lie as they should, in order.
    private func toMove(_ order: BlockOrder, _ room: RewriteRoom) -> [Int] {
        let sorted = order.sorted(by: options.order)
        var wanted: [Int] = []
        var bytes: UInt64 = 0
        var start = 0
        while start < sorted.count {
            // A run that lies in order already.
            var end = start + 1
            var size = UInt64(Int(order.blocks[sorted[start]].pages) * Self.page)
            while end < sorted.count, order.follows(sorted[end], sorted[end - 1]) {
                size += UInt64(Int(order.blocks[sorted[end]].pages) * Self.page)
                end += 1
            }
            let isChain = options.order == .chain || options.order == .heat
            let begins = !isChain || order.blocks[sorted[start]].parent < 0
            let ends =
                end == sorted.count || !isChain || order.blocks[sorted[end]].parent < 0
            let dense = room.shareAlive(order.blocks[sorted[start]].segment) >= options.utilization
            let long = size >= UInt64(8 << 20)
            if !(dense && (options.order == .none || long || (begins && ends))) {
                if bytes + size > options.maximumBytes {
                    report.isWhole = false
                    return wanted
                }
                bytes += size
                wanted += sorted[start..<end]
            }
            start = end
        }
        return wanted
    }

    // MARK: Moving

    /// Whether the store was full before all had been written.
    private func move(
        _ numbers: [Int], _ order: BlockOrder, _ store: PumpedStore, done before: Int,
        of all: UInt64
    ) throws(StoreError) -> Bool {
        var window = RewriteWindow(bytes: options.bytesInFlight)
        let ended = window.carry(all: numbers, order, store) { done in
            progress(UInt64(before + done), all)
        }
        report.moved += ended.moved
        report.movedBytes += ended.bytes
        report.damaged += ended.damaged
        if ended.isFull { report.isWhole = false }
        return ended.isFull
    }
}
