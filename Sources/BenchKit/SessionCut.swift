// SessionCut: a trace of which some sessions are gone: which blocks are still read by a session
// that stays, and how long a prefix of each request that leaves. A block goes when no session that
// stays reads it.

package struct SessionCut: Sendable {
    /// Ids of the trace's blocks, by their number in the table.
    package private(set) var ids: [UInt64] = []
    package private(set) var table: TraceTable
    package private(set) var sessions = 0
    package private(set) var sessionsGone = 0
    /// By number of the block.
    package private(set) var survives: [Bool] = []

    /// `percent` of the sessions go, drawn by the seed.
    package init(
        _ source: inout some TraceSource & ~Copyable, percent: UInt64, seed: UInt64
    ) throws(TraceError) {
        table = try TraceTable(&source, join: 1, requests: nil)
        try source.rewind()
        // Numbers are given as blocks first appear.
        var seen: Set<UInt64> = []
        var request = TraceRequest()
        while try source.next(&request) {
            for block in request.blocks where seen.insert(block).inserted { ids.append(block) }
        }
        cut(percent, seed)
    }

    private mutating func cut(_ percent: UInt64, _ seed: UInt64) {
        sessions = Int((table.sessions.max() ?? -1) + 1)
        var stays = [Bool](repeating: true, count: sessions)
        var random = SeededGenerator(seed: seed)
        let gone = sessions * Int(percent) / 100
        while sessionsGone < gone {
            let session = Int(random.below(UInt64(sessions)))
            if stays[session] {
                stays[session] = false
                sessionsGone += 1
            }
        }
        survives = [Bool](repeating: false, count: ids.count)
        for request in 0..<table.requests where stays[Int(table.sessions[request])] {
            for access in table.accesses(of: request) {
                survives[Int(table.blocks[access])] = true
            }
        }
    }

    /// The blocks of a request up to the first that is gone.
    package func prefix(of request: Int) -> ArraySlice<Int32> {
        let all = table.blocks[table.accesses(of: request)]
        return all.prefix { survives[Int($0)] }
    }

    package var surviving: [UInt64] { ids.indices.filter { survives[$0] }.map { ids[$0] } }
    package var gone: [UInt64] { ids.indices.filter { !survives[$0] }.map { ids[$0] } }
}

/// Where a block lies: a segment, its first page and the page behind it.
package struct BlockPlace: Equatable, Sendable {
    package var segment: UInt32
    package var page: UInt32
    package var end: UInt32
    package init(segment: UInt32, page: UInt32, end: UInt32) {
        (self.segment, self.page, self.end) = (segment, page, end)
    }

    /// Right behind another, but for a page of descriptors.
    package func follows(_ before: BlockPlace) -> Bool {
        segment == before.segment && page >= before.end && page - before.end <= 1
    }

    /// Runs on disk of blocks in this order.
    package static func extents(_ places: some Sequence<BlockPlace>) -> Int {
        var count = 0
        var last: BlockPlace?
        for place in places {
            if let last, place.follows(last) {} else { count += 1 }
            last = place
        }
        return count
    }
}
