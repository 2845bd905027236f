// BlockOrder: the live blocks of a closed store, with keys and parents, and the order in which
// compaction writes them: chain by chain, by heat, by key, or as they lie.
//
// Invariant: an order names each block once.

import LogStore
import SegmentFormat

/// In what order compaction writes blocks.
package enum CompactionOrder: String, Sendable, CaseIterable {
    /// Each block behind its parent, so that a prefix comes back in few large reads.
    case chain
    /// The most asked for first, each with the chain before it.
    case heat
    /// By namespace and key.
    case key
    /// As they lie: only dead space goes.
    case none
}

/// A live block and where it lies.
package struct OrderedBlock: Sendable {
    package var fingerprint: Fingerprint
    /// Place of the block before it in its chain; -1 for none.
    package var parent = -1
    package var segment: UInt32
    package var page: UInt32
    package var pages: UInt32
    package var slot: UInt16
    package var keyLength: UInt16
    package var parentLength: UInt16
    /// In `keys`: the key, then the parent's.
    package var keyOffset: Int
    package var heat: UInt8 = 0
}

package struct BlockOrder {
    package private(set) var blocks: [OrderedBlock] = []
    package private(set) var keys: [UInt8] = []

    /// Reads the record of every live block; of those in some segments, if told.
    package init(_ catalog: Catalog, in only: Set<UInt32>? = nil) throws(StoreError) {
        var places: [Fingerprint: Int] = [:]
        var parents: [Fingerprint] = []
        places.reserveCapacity(catalog.blocks.count)
        let none = Fingerprint(hi: 0, lo: 0)
        for info in catalog.segments where only?.contains(info.id) ?? true {
            try catalog.visit(info) { view in
                guard catalog.isLive(view, info.id),
                    UInt64(view.descriptor.page) + UInt64(view.descriptor.storedPages)
                        < UInt64(catalog.store.segmentPages)
                else { return }
                let instance = view.descriptor.namespaceInstance
                let fingerprint = catalog.store.fingerprint(instance: instance, view.key)
                guard places[fingerprint] == nil, let block = catalog.blocks[fingerprint] else {
                    return
                }
                places[fingerprint] = blocks.count
                parents.append(
                    view.parent.isEmpty
                        ? none : catalog.store.fingerprint(instance: instance, view.parent))
                blocks.append(
                    OrderedBlock(
                        fingerprint: fingerprint, segment: info.id, page: view.descriptor.page,
                        pages: view.descriptor.storedPages, slot: block.slot,
                        keyLength: UInt16(view.key.count),
                        parentLength: UInt16(view.parent.count), keyOffset: keys.count))
                keys.append(contentsOf: view.key)
                keys.append(contentsOf: view.parent)
            }
        }
        for number in blocks.indices where parents[number] != none {
            // A block that names itself, or a ring, is no chain: `chained` cuts it.
            blocks[number].parent = places[parents[number]] ?? -1
        }
    }

    /// Adds a block that the log has no record of, and whose key was found elsewhere.
    mutating func add(
        _ fingerprint: Fingerprint, _ block: CatalogBlock, pages: UInt32, key: [UInt8]
    ) {
        blocks.append(
            OrderedBlock(
                fingerprint: fingerprint, segment: block.segment, page: block.page, pages: pages,
                slot: block.slot, keyLength: UInt16(key.count), parentLength: 0,
                keyOffset: keys.count))
        keys += key
    }

    package mutating func setHeat(_ heat: (Fingerprint) -> UInt8) {
        for number in blocks.indices { blocks[number].heat = heat(blocks[number].fingerprint) }
    }

    package func key(_ number: Int) -> ArraySlice<UInt8> {
        let block = blocks[number]
        return keys[block.keyOffset..<block.keyOffset + Int(block.keyLength)]
    }

    // MARK: Orders

    /// The places of all blocks, in order.
    package func sorted(by order: CompactionOrder) -> [Int] {
        switch order {
        case .chain: return chained(roots: { isBefore($0, $1) })
        case .heat:
            let hottest = hottestBelow()
            return chained(roots: { one, other in
                hottest[one] != hottest[other]
                    ? hottest[one] > hottest[other] : isBefore(one, other)
            })
        case .key:
            return blocks.indices.sorted { one, other in
                if blocks[one].slot != blocks[other].slot {
                    return blocks[one].slot < blocks[other].slot
                }
                return key(one).lexicographicallyPrecedes(key(other))
            }
        case .none: return blocks.indices.sorted { isBefore($0, $1) }
        }
    }

    /// Whether a block lies before another on disk.
    private func isBefore(_ one: Int, _ other: Int) -> Bool {
        (blocks[one].segment, blocks[one].page) < (blocks[other].segment, blocks[other].page)
    }

    /// Each chain from its head on; where it branches, the branch with most blocks goes on at once
    /// and the others follow, so that the longest prefixes have the fewest breaks.
    private func chained(roots precedes: (Int, Int) -> Bool) -> [Int] {
        let (children, starts) = childLists()
        let sizes = subtreeSizes()
        var order: [Int] = []
        order.reserveCapacity(blocks.count)
        var taken = [Bool](repeating: false, count: blocks.count)
        func take(from root: Int) {
            var open = [root]
            while let number = open.popLast() {
                if taken[number] { continue }
                taken[number] = true
                order.append(number)
                let own = children[starts[number]..<starts[number + 1]]
                // The last one pushed is taken first.
                for child in own.sorted(by: {
                    sizes[$0] != sizes[$1] ? sizes[$0] < sizes[$1] : isBefore($1, $0)
                }) { open.append(child) }
            }
        }
        for root in blocks.indices.filter({ blocks[$0].parent < 0 }).sorted(by: precedes) {
            take(from: root)
        }
        // Rings, which no engine makes and a damaged key could: from anywhere.
        for number in blocks.indices where !taken[number] { take(from: number) }
        return order
    }

    /// The children of each block, one behind the other: those of block n from starts[n] on.
    private func childLists() -> (children: [Int], starts: [Int]) {
        var starts = [Int](repeating: 0, count: blocks.count + 1)
        for block in blocks where block.parent >= 0 { starts[block.parent + 1] += 1 }
        for number in blocks.indices { starts[number + 1] += starts[number] }
        var next = starts
        var children = [Int](repeating: 0, count: starts[blocks.count])
        for number in blocks.indices where blocks[number].parent >= 0 {
            children[next[blocks[number].parent]] = number
            next[blocks[number].parent] += 1
        }
        return (children, starts)
    }

    /// Visits the blocks so that each comes before its parent; those in rings not at all.
    private func upwards(_ visit: (Int) -> Void) {
        var waiting = [Int](repeating: 0, count: blocks.count)
        for block in blocks where block.parent >= 0 { waiting[block.parent] += 1 }
        var ready = blocks.indices.filter { waiting[$0] == 0 }
        while let number = ready.popLast() {
            visit(number)
            let parent = blocks[number].parent
            guard parent >= 0 else { continue }
            waiting[parent] -= 1
            if waiting[parent] == 0 { ready.append(parent) }
        }
    }

    private func subtreeSizes() -> [Int] {
        var sizes = [Int](repeating: 1, count: blocks.count)
        upwards { number in
            let parent = blocks[number].parent
            if parent >= 0 { sizes[parent] += sizes[number] }
        }
        return sizes
    }

    private func hottestBelow() -> [UInt8] {
        var hottest = blocks.map(\.heat)
        upwards { number in
            let parent = blocks[number].parent
            if parent >= 0 { hottest[parent] = max(hottest[parent], hottest[number]) }
        }
        return hottest
    }

    // MARK: What it is like

    /// Whether the second block lies right behind the first, but for a page of descriptors.
    package func follows(_ second: Int, _ first: Int) -> Bool {
        let end = blocks[first].page + blocks[first].pages
        return blocks[second].segment == blocks[first].segment && blocks[second].page >= end
            && blocks[second].page - end <= 1
    }

    /// Over all chains, each from its head to its last block: how many there are, how many blocks
    /// and how many runs on disk they have. A block of several chains counts in each.
    package func chains() -> (chains: Int, blocks: UInt64, extents: UInt64) {
        var lengths = [UInt64](repeating: 0, count: blocks.count)
        var extents = lengths
        var order: [Int] = []
        order.reserveCapacity(blocks.count)
        upwards { order.append($0) }
        var isParent = [Bool](repeating: false, count: blocks.count)
        for number in order.reversed() {
            let parent = blocks[number].parent
            if parent >= 0 {
                isParent[parent] = true
                lengths[number] = lengths[parent] + 1
                extents[number] = extents[parent] + (follows(number, parent) ? 0 : 1)
            } else {
                lengths[number] = 1
                extents[number] = 1
            }
        }
        var all = (chains: 0, blocks: UInt64(0), extents: UInt64(0))
        for number in order where !isParent[number] {
            all.chains += 1
            all.blocks += lengths[number]
            all.extents += extents[number]
        }
        return all
    }
}
