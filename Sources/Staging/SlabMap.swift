// SlabMap: which slabs are free, one bit each, with a summary bit per word, so that the next free
// slab of a full arena is found in a few loads. Takes runs: exactly as long as asked where one is
// found within a bounded number of probes, else the longest seen.

struct SlabMap: ~Copyable {
    /// Runs looked at before settling for a shorter one: bounds a reservation in a fragmented map.
    private static let probes = 128

    let count: Int
    private(set) var freeCount: Int
    /// A set bit is a free slab.
    private let words: UnsafeMutablePointer<UInt64>
    /// A set bit is a word with a free slab.
    private let summary: UnsafeMutablePointer<UInt64>
    private let wordCount: Int
    private let summaryCount: Int
    private var cursor = 0

    init(count: Int) {
        precondition(count > 0, "a map needs slabs")
        self.count = count
        wordCount = (count + 63) / 64
        summaryCount = (wordCount + 63) / 64
        words = .allocate(capacity: wordCount)
        summary = .allocate(capacity: summaryCount)
        words.initialize(repeating: 0, count: wordCount)
        summary.initialize(repeating: 0, count: summaryCount)
        freeCount = 0
        give(start: 0, length: count)
    }

    deinit {
        words.deallocate()
        summary.deallocate()
    }

    var bytes: Int { (wordCount + summaryCount) * 8 }

    @inline(__always)
    func isFree(_ slab: Int) -> Bool { words[slab >> 6] & (1 << UInt64(slab & 63)) != 0 }

    /// The first free slab at or after `start`, or nil.
    func nextFree(from start: Int) -> Int? {
        guard start < count else { return nil }
        var word = start >> 6
        let here = words[word] & (~0 << UInt64(start & 63))
        if here != 0 { return word << 6 + here.trailingZeroBitCount }
        word += 1
        var index = word >> 6
        guard index < summaryCount else { return nil }
        var bits = summary[index] & (~0 << UInt64(word & 63))
        while bits == 0 {
            index += 1
            guard index < summaryCount else { return nil }
            bits = summary[index]
        }
        word = index << 6 + bits.trailingZeroBitCount
        return word << 6 + words[word].trailingZeroBitCount
    }

    /// Free slabs in a row from `start`, at most `limit`.
    func runLength(at start: Int, limit: Int) -> Int {
        let end = min(count, start + limit)
        var at = start
        while at < end {
            let room = 64 - at & 63
            let ones = min((~(words[at >> 6] >> UInt64(at & 63))).trailingZeroBitCount, room)
            at += ones
            if ones < room { break }
        }
        return min(at, end) - start
    }

    /// Takes up to `length` slabs in a row: at `hint` if that many are free there, else the first
    /// run long enough after the cursor, else the longest found. nil when none is free.
    mutating func take(upTo length: Int, hint: Int) -> (start: Int, length: Int)? {
        guard freeCount > 0, length > 0 else { return nil }
        if hint >= 0, hint < count, runLength(at: hint, limit: length) == length {
            mark(start: hint, length: length)
            return (hint, length)
        }
        var best = (start: 0, length: 0)
        var at = cursor
        var wrapped = false
        for _ in 0..<Self.probes {
            guard let start = nextFree(from: at) else {
                if wrapped { break }
                wrapped = true
                at = 0
                continue
            }
            if wrapped && start >= cursor { break }
            let run = runLength(at: start, limit: length)
            if run > best.length { best = (start, run) }
            if run == length { break }
            at = start + run
        }
        // Free slabs before the cursor and none found after it within the probes cannot be: the
        // search wraps at its first empty answer.
        guard best.length > 0 else { return nil }
        mark(start: best.start, length: best.length)
        cursor = best.start + best.length < count ? best.start + best.length : 0
        return best
    }

    /// Takes exactly `length` in a row, within the same bound of probes; nil when not found.
    mutating func takeExactly(_ length: Int) -> Int? {
        guard let run = take(upTo: length, hint: -1) else { return nil }
        if run.length == length { return run.start }
        give(start: run.start, length: run.length)
        return nil
    }

    private mutating func mark(start: Int, length: Int) {
        // Local copies: the compiler's thread sanitizer pass stops at the fields themselves.
        let (words, summary) = (words, summary)
        var at = start
        let end = start + length
        while at < end {
            let word = at >> 6
            let run = min(end - at, 64 - at & 63)
            words[word] &= ~(Self.mask(run) << UInt64(at & 63))
            if words[word] == 0 { summary[word >> 6] &= ~(1 << UInt64(word & 63)) }
            at += run
        }
        freeCount -= length
    }

    mutating func give(start: Int, length: Int) {
        precondition(start >= 0 && length > 0 && start + length <= count, "slabs out of range")
        let (words, summary) = (words, summary)
        var at = start
        let end = start + length
        while at < end {
            let word = at >> 6
            let run = min(end - at, 64 - at & 63)
            let bits = Self.mask(run) << UInt64(at & 63)
            precondition(words[word] & bits == 0, "a slab was given back twice")
            words[word] |= bits
            summary[word >> 6] |= 1 << UInt64(word & 63)
            at += run
        }
        freeCount += length
    }

    @inline(__always)
    private static func mask(_ bits: Int) -> UInt64 { bits == 64 ? ~0 : 1 << UInt64(bits) - 1 }
}
