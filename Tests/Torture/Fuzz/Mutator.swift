// Mutator: changes a structure, asks its reader, and puts it back. Most changes are of fields, by
// values at the edges of what they hold; half of the time the checks are made anew, so that a
// change gets past them to what stands behind.

import Glibc
import SegmentFormat

struct FuzzTally: Sendable {
    enum Edge: Int, CaseIterable {
        case foundByCheck, cutShort, madeLonger, unchanged
        case sealedTaken, sealedDamaged, sealedStrange, sealedElsewhere, sealedNewer

        /// Those that every structure has; which errors a reader knows differs.
        static let required: [Edge] = [.foundByCheck, .cutShort, .sealedTaken]
    }

    var counts = [Int](
        repeating: 0, count: FuzzCatalog.names.count * Edge.allCases.count)
    var mutations = 0

    static func place(_ structure: Int, _ edge: Edge) -> Int {
        structure * Edge.allCases.count + edge.rawValue
    }

    subscript(structure: Int, edge: Edge) -> Int { counts[Self.place(structure, edge)] }

    mutating func note(_ structure: Int, _ edge: Edge) { counts[Self.place(structure, edge)] += 1 }

    mutating func add(_ other: FuzzTally) {
        for index in counts.indices { counts[index] += other.counts[index] }
        mutations += other.mutations
    }

    /// Refusals of what was sealed anew, of any kind.
    func refusals(_ structure: Int) -> Int {
        [Edge.sealedDamaged, .sealedStrange, .sealedElsewhere, .sealedNewer]
            .reduce(0) { $0 + self[structure, $1] }
    }
}

/// All structures, by number.
enum FuzzCatalog {
    static let names = [
        "segment header", "trailer", "segment life", "group descriptors", "footer descriptors",
        "manifest", "checkpoint table", "checkpoint chunk", "checkpoint end", "statistics page",
        "export header", "export record", "export end", "stored image",
    ]

    /// Which structure a seed is of: of 64 seeds one is of a chunk and four of a manifest, which
    /// are large, and take their time.
    static func number(seed: Int) -> Int {
        switch seed & 63 {
        case 0: return 7
        case 1...4: return 5
        case let left:
            let number = (left - 5 + seed / 64) % 12
            return number < 5 ? number : number == 5 ? 6 : number + 2
        }
    }

    static func make(_ number: Int, _ choices: inout Choices) -> FuzzedStructure {
        switch number {
        case 0: FuzzedHeader(&choices)
        case 1: FuzzedTrailer(&choices)
        case 2: FuzzedLife(&choices)
        case 3: FuzzedDescriptors(&choices, .group)
        case 4: FuzzedDescriptors(&choices, .footer)
        case 5: FuzzedManifest(&choices)
        case 6: FuzzedCheckpoint(&choices)
        case 7: FuzzedChunk(&choices)
        case 8: FuzzedEnd(&choices)
        case 9: FuzzedStatistics(&choices)
        case 10: FuzzedExportHeader(&choices)
        case 11: FuzzedExportRecord(&choices)
        case 12: FuzzedExportEnd(&choices)
        default: FuzzedImage(&choices)
        }
    }
}

struct Mutator {
    let structure: FuzzedStructure
    private let number: Int
    /// What was written to since it was last put back.
    private var touched: [Range<Int>] = []
    /// Where its fields end.
    private let extent: Int

    init(_ structure: FuzzedStructure, _ number: Int) {
        self.structure = structure
        self.number = number
        extent = structure.fields.reduce(0) { max($0, $1.at + $1.width) }
        touched.reserveCapacity(16)
        _ = structure.pristine
    }

    /// Whether it is taken as it was made; what is wrong otherwise.
    func untouched() -> String? {
        structure.isSealed = false
        switch structure.decode(view(structure.count)) {
        case .accepted: return nil
        case .refused(let error): return "refused as it was made: \(error)"
        case .wrong(let text): return "as it was made: \(text)"
        }
    }

    private func view(_ count: Int) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: structure.raw[..<count])
    }

    /// One mutation: what does not hold, or nil.
    mutating func mutate(_ choices: inout Choices, _ tally: inout FuzzTally) -> String? {
        tally.mutations += 1
        structure.isSealed = choices.below(2) == 0
        for _ in 0..<(1 + choices.below(3)) { edit(&choices) }
        if structure.isSealed {
            for range in structure.sealed { touch(range) }
            structure.seal(&choices)
        }
        var count = structure.count
        if choices.below(24) == 0 {
            count =
                choices.below(3) == 0
                ? count + 1 + choices.below(FuzzedStructure.room) : choices.below(count)
        }
        let verdict = structure.decode(view(count))
        let wrong = judge(verdict, count, &tally)
        restore()
        return wrong
    }

    private func judge(
        _ verdict: FuzzVerdict, _ count: Int, _ tally: inout FuzzTally
    ) -> String? {
        let changed = changedSpan()
        if case .wrong(let text) = verdict { return text }
        if count != structure.count {
            tally.note(number, count < structure.count ? .cutShort : .madeLonger)
            guard case .accepted = verdict else { return nil }
            let fits = structure.takesMore && (count > structure.count || structure.isSealed)
            return fits || structure.survivesDamage
                ? nil : "taken with \(count) bytes of \(structure.count)"
        }
        guard structure.isSealed else {
            if changed == 0 {
                tally.note(number, .unchanged)
                if case .accepted = verdict { return nil }
                return "refused, and nothing was changed"
            }
            guard case .accepted = verdict else {
                tally.note(number, .foundByCheck)
                return nil
            }
            let mayPass = structure.survivesDamage || structure.weakCheck && changed > 4
            return mayPass ? nil : "a change passes the check"
        }
        switch verdict {
        case .refused(.damaged), .refused(.tooLarge): tally.note(number, .sealedDamaged)
        case .refused(.notHearth): tally.note(number, .sealedStrange)
        case .refused(.wrongPlace): tally.note(number, .sealedElsewhere)
        case .refused(.newerFormat): tally.note(number, .sealedNewer)
        default: tally.note(number, .sealedTaken)
        }
        return nil
    }

    // MARK: Changing and putting back

    private mutating func touch(_ range: Range<Int>) { touched.append(range) }

    private mutating func restore() {
        for range in touched {
            memcpy(
                structure.memory.base + range.lowerBound,
                structure.pristine.base + range.lowerBound, range.count)
        }
        touched.removeAll(keepingCapacity: true)
    }

    /// Bytes from the first that is changed to the last; 0 when none is.
    private func changedSpan() -> Int {
        var first = Int.max
        var last = -1
        for range in touched {
            for at in range
            where structure.bytes[at] != structure.pristine.bytes[at]
                && !structure.foreign.contains(at)
            {
                first = min(first, at)
                last = max(last, at)
            }
        }
        return last < 0 ? 0 : last - first + 1
    }

    private mutating func edit(_ choices: inout Choices) {
        let bytes = structure.bytes
        let whole = choices.below(8) == 0 ? structure.count : min(extent, structure.count)
        switch choices.below(10) {
        case 0:
            let at = choices.below(whole)
            touch(at..<(at + 1))
            bytes[at] ^= 1 << UInt8(choices.below(8))
        case 1:
            let at = choices.below(whole)
            touch(at..<(at + 1))
            bytes[at] = UInt8(choices.below(256))
        case 2:
            // A run of it over another place of it.
            let count = min(1 + choices.below(64), structure.count)
            let from = choices.below(structure.count - count + 1)
            let to = choices.below(structure.count - count + 1)
            touch(to..<(to + count))
            memmove(structure.memory.base + to, structure.memory.base + from, count)
        case 3 where choices.below(4) == 0:
            let start = choices.below((whole + 511) / 512) * 512
            let end = min(start + 512, structure.count)
            touch(start..<end)
            memset(structure.memory.base + start, 0, end - start)
        default:
            editField(&choices)
        }
    }

    private mutating func editField(_ choices: inout Choices) {
        guard !structure.fields.isEmpty else { return }
        let field = structure.fields[choices.below(structure.fields.count)]
        if field.width > 8 || field.width & (field.width - 1) != 0 {
            // A text: one byte of it.
            let at = field.at + choices.below(field.width)
            touch(at..<(at + 1))
            structure.bytes[at] = UInt8(choices.below(256))
            return
        }
        let held = load(field)
        let value: UInt64 =
            switch choices.below(6) {
            case 0: held &+ 1
            case 1: held &- 1
            case 2: held ^ 1 << UInt64(choices.below(8 * field.width))
            case 3: load(structure.fields[choices.below(structure.fields.count)])
            case 4: UInt64(structure.count)
            default: choices.word()
            }
        touch(field.at..<(field.at + field.width))
        Raw.store(value, field.width, at: structure.memory.base + field.at)
    }

    private func load(_ field: FuzzField) -> UInt64 {
        Raw.load(min(8, field.width), at: structure.memory.base + field.at)
    }
}
