// PageRanges: which pages of a simulated file are allocated on its device. Sorted, disjoint, never
// touching; a preallocated segment is one range, so the common question is answered at the first.

struct PageRanges {
    private(set) var ranges: ContiguousArray<Range<Int>> = []
    /// Pages in all ranges.
    private(set) var count = 0

    /// Pages of `range` that are not in the set.
    func missing(_ range: Range<Int>) -> Int {
        if let first = ranges.first, first.lowerBound <= range.lowerBound,
            range.upperBound <= first.upperBound
        {
            return 0
        }
        var absent = range.count
        for present in ranges {
            if present.lowerBound >= range.upperBound { break }
            absent -= present.clamped(to: range).count
        }
        return absent
    }

    /// Adds the range; returns how many pages were new.
    @discardableResult
    mutating func insert(_ range: Range<Int>) -> Int {
        let added = missing(range)
        if added == 0 { return 0 }
        var merged = range
        var low = 0
        while low < ranges.count, ranges[low].upperBound < range.lowerBound { low += 1 }
        var high = low
        while high < ranges.count, ranges[high].lowerBound <= range.upperBound {
            merged =
                min(
                    merged.lowerBound, ranges[high].lowerBound)..<max(
                    merged.upperBound, ranges[high].upperBound)
            high += 1
        }
        ranges.replaceSubrange(low..<high, with: CollectionOfOne(merged))
        count += added
        return added
    }

    /// Takes the range out; returns how many pages went.
    @discardableResult
    mutating func remove(_ range: Range<Int>) -> Int {
        let gone = range.count - missing(range)
        if gone == 0 { return 0 }
        var kept: ContiguousArray<Range<Int>> = []
        for present in ranges {
            let cut = present.clamped(to: range)
            if cut.isEmpty {
                kept.append(present)
                continue
            }
            if present.lowerBound < cut.lowerBound {
                kept.append(present.lowerBound..<cut.lowerBound)
            }
            if cut.upperBound < present.upperBound {
                kept.append(cut.upperBound..<present.upperBound)
            }
        }
        ranges = kept
        count -= gone
        return gone
    }
}
