// Displacement: making room in one of two full buckets by moving entries to their other bucket. The
// shortest way to a bucket with an empty slot is searched first, breadth first and bounded; only
// then are the entries moved, the last one first, so that each is copied into an empty slot before
// it is cleared where it was.

/// A bucket reached in the search, by moving the entry in `slot` of the parent's bucket here.
struct PathNode {
    var bucket: UInt32
    /// Number of the parent's node; a root is its own.
    var parent: UInt16
    var slot: UInt8
    var depth: UInt8

    /// Nodes, and the longest way. At 95 % load a free slot is a handful of nodes away.
    static let limit = 512
    static let maxDepth: UInt8 = 6
}

extension BlockIndex {
    /// Frees a slot in one of the two (full) buckets; nil when no short way was found.
    func makeRoom(_ first: Int, _ second: Int) -> Slot? {
        path[0] = PathNode(
            bucket: UInt32(truncatingIfNeeded: first), parent: 0, slot: 0, depth: 0)
        path[1] = PathNode(
            bucket: UInt32(truncatingIfNeeded: second), parent: 1, slot: 0, depth: 0)
        var made = 2
        var looked = 0
        while looked < made {
            let node = path[looked]
            let bucket = Int(node.bucket)
            let address = layout.address(bucket)
            for slot in 0..<IndexLayout.slots {
                let other = otherBucket(address, slot, bucket)
                guard mayMove(from: bucket, to: other) else { continue }
                let empty = IndexLayout.slots(layout.address(other), having: 0)
                if empty != 0 {
                    let hole = Slot(bucket: other, slot: empty.trailingZeroBitCount)
                    return moveAlong(looked, slot, hole)
                }
                if made < PathNode.limit, node.depth < PathNode.maxDepth,
                    !isOnPath(other, looked)
                {
                    path[made] = PathNode(
                        bucket: UInt32(truncatingIfNeeded: other),
                        parent: UInt16(truncatingIfNeeded: looked),
                        slot: UInt8(truncatingIfNeeded: slot), depth: node.depth &+ 1)
                    made &+= 1
                }
            }
            looked &+= 1
        }
        return nil
    }

    /// The other bucket of the entry in a slot.
    private func otherBucket(_ address: UnsafeRawPointer, _ slot: Int, _ bucket: Int) -> Int {
        let (first, second) = layout.buckets(IndexLayout.load(address, field: 1, slot: slot))
        return first == bucket ? second : first
    }

    /// A way must not visit a bucket twice: the later move would meet what the earlier one changed.
    private func isOnPath(_ bucket: Int, _ from: Int) -> Bool {
        var index = from
        while true {
            if Int(path[index].bucket) == bucket { return true }
            let parent = Int(path[index].parent)
            if parent == index { return false }
            index = parent
        }
    }

    /// Moves the entry in `slot` of node `from` into the hole, then its parents' entries down the
    /// way; returns the slot that becomes free in the root.
    private func moveAlong(_ from: Int, _ slot: Int, _ hole: Slot) -> Slot {
        var index = from
        var source = Slot(bucket: Int(path[from].bucket), slot: slot)
        var target = hole
        while true {
            move(source, target)
            let node = path[index]
            let parent = Int(node.parent)
            if parent == index { return source }
            target = source
            source = Slot(bucket: Int(path[parent].bucket), slot: Int(node.slot))
            index = parent
        }
    }

    /// Copies an entry into an empty slot of its other bucket, then clears it where it was.
    private func move(_ source: Slot, _ target: Slot) {
        let address = layout.address(source.bucket)
        let hi = IndexLayout.load(address, field: 0, slot: source.slot)
        let lo = IndexLayout.load(address, field: 1, slot: source.slot)
        write(target, hi, lo, IndexLayout.words(address, slot: source.slot))
        clear(source)
        moves &+= 1
        copyScan.noteMove(from: source.bucket, to: target.bucket, Fingerprint(hi: hi, lo: lo))
        sweepScan.noteMove(from: source.bucket, to: target.bucket, Fingerprint(hi: hi, lo: lo))
    }

    @inline(__always)
    private func mayMove(from: Int, to: Int) -> Bool {
        copyScan.mayMove(from: from, to: to) && sweepScan.mayMove(from: from, to: to)
    }
}
