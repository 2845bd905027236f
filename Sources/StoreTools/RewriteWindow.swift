// RewriteWindow: the blocks that compaction (or repair) has under way at once: all are read, each
// into its place and checked, and then written in order. And RewriteRoom: how many segments that
// takes, played through before anything is written.

import BlockIO
import LogStore
import SegmentFormat

/// What has become of blocks that were to be written anew.
struct RewriteCount {
    var moved = 0
    var bytes: UInt64 = 0
    /// They could not be read.
    var damaged = 0
    /// The store had no room for the next one.
    var isFull = false
}

struct RewriteWindow {
    private static let page = FormatConstants.pageBytes
    private static let mostBlocks = 512

    private let limit: Int
    private var memory: PageBuffer
    private var pages: [UInt32] = []
    private var used = 0

    init(bytes: Int) {
        limit = bytes
        memory = PageBuffer(bytes: bytes)
    }

    /// Makes room for one block more; false when the window is full, which one block alone never
    /// finds.
    mutating func take(_ count: UInt32) -> Bool {
        let bytes = Int(count) * Self.page
        if pages.isEmpty {
            if bytes > memory.count { memory = PageBuffer(bytes: bytes) }
        } else if used + bytes > limit || pages.count >= Self.mostBlocks {
            return false
        }
        pages.append(count)
        used += bytes
        return true
    }

    /// Reads the blocks that room was made for and writes them anew, in order; the window is empty
    /// afterwards.
    mutating func carry(
        _ numbers: ArraySlice<Int>, _ order: BlockOrder, _ store: PumpedStore
    ) -> RewriteCount {
        let pieces = UnsafeMutablePointer<Piece>.allocate(capacity: numbers.count)
        defer { pieces.deallocate() }
        var entries = [IndexEntry?](repeating: nil, count: numbers.count)
        var tokens = [UInt64](repeating: 0, count: numbers.count)
        var offset = 0
        order.keys.withUnsafeBytes { keys in
            for (place, number) in numbers.enumerated() {
                let block = order.blocks[number]
                let bytes = Int(block.pages) * Self.page
                (pieces + place).initialize(
                    to: Piece(
                        region: .process,
                        offset: UInt64(UInt(bitPattern: memory.base + offset)),
                        length: UInt64(bytes)))
                offset += bytes
                guard let entry = store.log.index.find(block.fingerprint) else { continue }
                entries[place] = entry
                tokens[place] = store.token()
                var request = ReadRequest(
                    token: tokens[place], fingerprint: block.fingerprint,
                    namespaceSlot: entry.namespaceSlot, key: Self.key(keys, block), entry: entry,
                    range: 0..<bytes, pages: true, pieces: UnsafePointer(pieces + place),
                    pieceCount: 1)
                request.shards = entry.shardCount
                while !store.log.read(request) { store.pump() }
            }
        }
        var result = RewriteCount()
        for place in entries.indices where entries[place] != nil {
            if store.outcome(of: tokens[place]).status != .hit {
                entries[place] = nil
                result.damaged += 1
            }
        }
        order.keys.withUnsafeBytes { keys in
            for (place, number) in numbers.enumerated() {
                guard let entry = entries[place] else { continue }
                let block = order.blocks[number]
                tokens[place] = store.token()
                let request = RewriteRequest(
                    token: tokens[place], fingerprint: block.fingerprint, entry: entry,
                    key: Self.key(keys, block), parent: Self.parent(keys, block),
                    pieces: UnsafePointer(pieces + place), pieceCount: 1, storedPages: block.pages)
                while !store.log.rewrite(request) { store.pump() }
            }
        }
        for (place, number) in numbers.enumerated() where entries[place] != nil {
            switch store.outcome(of: tokens[place]).status {
            case .stored:
                result.moved += 1
                result.bytes += UInt64(Int(order.blocks[number].pages) * Self.page)
            case .notFound: break
            default: result.isFull = true
            }
        }
        pages.removeAll(keepingCapacity: true)
        used = 0
        return result
    }

    /// Writes all of these anew, window by window, until the store is full; `progress` is told how
    /// many are through.
    mutating func carry(
        all numbers: [Int], _ order: BlockOrder, _ store: PumpedStore, progress: (Int) -> Void
    ) -> RewriteCount {
        var sum = RewriteCount()
        var next = 0
        while next < numbers.count, !sum.isFull {
            var count = 0
            while next + count < numbers.count,
                take(order.blocks[numbers[next + count]].pages)
            { count += 1 }
            let ended = carry(numbers[next..<next + count], order, store)
            sum.moved += ended.moved
            sum.bytes += ended.bytes
            sum.damaged += ended.damaged
            sum.isFull = ended.isFull
            next += count
            progress(next)
        }
        return sum
    }

    private static func key(
        _ keys: UnsafeRawBufferPointer, _ block: OrderedBlock
    ) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(
            rebasing: keys[block.keyOffset..<block.keyOffset + Int(block.keyLength)])
    }

    private static func parent(
        _ keys: UnsafeRawBufferPointer, _ block: OrderedBlock
    ) -> UnsafeRawBufferPointer {
        let start = block.keyOffset + Int(block.keyLength)
        return UnsafeRawBufferPointer(rebasing: keys[start..<start + Int(block.parentLength)])
    }
}

/// Segments of one store while blocks are written anew.
struct RewriteRoom {
    private let order: BlockOrder
    private let usable: Int
    /// Live pages of each segment, and the blocks in it by page.
    private var live: [UInt32: Int] = [:]
    private var members: [UInt32: [Int]] = [:]
    /// Where each block lies: its segment, or nil once it has been written anew.
    private var isWritten: [Bool]
    /// Segments free at present, on the device that has fewest.
    private(set) var free: Int
    /// Pages written into the last segment taken.
    private var filled = 0

    init(_ order: BlockOrder, _ log: LogStore) {
        self.order = order
        let pages = Int(log.segmentPages)
        usable = pages - pages / 16 - 2
        isWritten = [Bool](repeating: false, count: order.blocks.count)
        for (number, block) in order.blocks.enumerated() {
            live[block.segment, default: 0] += Int(block.pages)
            members[block.segment, default: []].append(number)
        }
        for segment in members.keys {
            members[segment]?.sort { order.blocks[$0].page < order.blocks[$1].page }
        }
        free =
            log.devices.indices.filter { log.devices[$0].takesWrites }
            .map { log.spareSegments($0) }.min() ?? 0
        filled = usable  // the first block takes a segment
    }

    var emptiestFirst: [UInt32] {
        live.keys.sorted { (live[$0] ?? 0, $0) < (live[$1] ?? 0, $1) }
    }

    func shareAlive(_ segment: UInt32) -> Double {
        min(1, Double(live[segment] ?? 0) / Double(usable))
    }

    func blocks(of segment: UInt32) -> [Int] {
        (members[segment] ?? []).filter { !isWritten[$0] }
    }

    /// Segments that are missing on the way when these are written, in this order.
    func shortage(of numbers: [Int]) -> Int {
        var played = self
        return played.play(numbers)
    }

    mutating func write(_ numbers: [Int]) { _ = play(numbers) }

    private mutating func play(_ numbers: [Int]) -> Int {
        var lowest = 0
        for number in numbers {
            let block = order.blocks[number]
            if filled + Int(block.pages) > usable {
                free -= 1
                lowest = min(lowest, free)
                filled = 0
            }
            filled += Int(block.pages)
            guard !isWritten[number] else { continue }
            isWritten[number] = true
            let left = (live[block.segment] ?? 0) - Int(block.pages)
            live[block.segment] = left
            if left == 0 {
                live[block.segment] = nil
                free += 1
            }
        }
        return -lowest
    }
}
