// Lease: a read-only view of a block as it lies in the DRAM tier, without a copy. The block's
// memory stays as it is until the lease ends, with the value's life; so hold it briefly: all leases
// together hold at most a quarter of the slabs.

import LogStore
import SegmentFormat
import Staging

/// A held block, or a held part of one.
public struct Lease: ~Copyable, Sendable {
    /// Bytes of the block.
    public let blockLength: Int
    /// The version given at put.
    public let version: UInt64
    /// Shards of the block.
    public let shardCount: Int
    /// Where the block came from.
    public let tier: GetResult.Tier
    /// Bytes held.
    public let count: Int

    private let runs: [Run]
    private let hold: Hold

    /// What is given back, and to whom; keeps the memory mapped.
    enum Hold: Sendable {
        case owner(SharedStore, Int32)
        case reader(SharedStore, PinnedBlock)

        var shared: SharedStore {
            switch self {
            case .owner(let shared, _), .reader(let shared, _): shared
            }
        }
    }

    init(_ result: GetResult, _ runs: [Run], _ hold: Hold) {
        blockLength = result.length
        version = result.version
        shardCount = result.shardCount
        tier = result.tier
        self.runs = runs
        self.hold = hold
        count = runs.reduce(0) { $0 + $1.count }
    }

    deinit { Self.end(hold) }

    static func end(_ hold: Hold) {
        switch hold {
        case .owner(let shared, let slot): shared.engine.endLease(slot)
        case .reader(let shared, let block): shared.residents?.unpin(block)
        }
    }

    /// Calls the body with the runs of memory that hold the bytes, in order. They are valid only
    /// within the call.
    public borrowing func withRuns<Answer, Failure: Error>(
        _ body: ([UnsafeRawBufferPointer]) throws(Failure) -> Answer
    ) throws(Failure) -> Answer {
        guard let base = hold.shared.residents?.arenaBase else { return try body([]) }
        let views = runs.map { UnsafeRawBufferPointer(start: base + $0.offset, count: $0.count) }
        return try body(views)
    }

    /// The runs as addresses, for whoever hands them on; valid as long as this lease lives.
    public borrowing func unsafeRuns() -> [UnsafeRawBufferPointer] {
        withRuns { $0 }
    }

    /// A copy of the bytes.
    public borrowing func bytes() -> [UInt8] {
        withRuns { runs in
            var copy: [UInt8] = []
            copy.reserveCapacity(runs.reduce(0) { $0 + $1.count })
            for run in runs { copy.append(contentsOf: run) }
            return copy
        }
    }
}

/// The leases of one batch. Take those to be kept; the rest end with this value.
public struct Leases: ~Copyable, Sendable {
    /// How each key came out; a hit has a lease until it is taken.
    public let results: [GetResult]
    private var held: [Held?]

    struct Held: Sendable {
        var runs: [Run]
        var hold: Lease.Hold
    }

    init(results: [GetResult], held: [Held?]) {
        self.results = results
        self.held = held
    }

    deinit {
        for case let held? in held { Lease.end(held.hold) }
    }

    /// Keys asked for.
    public var count: Int { results.count }

    /// Takes the lease of the key at this place; nil where it was no hit, or is taken already.
    public mutating func take(_ index: Int) -> Lease? {
        guard let taken = held[index] else { return nil }
        held[index] = nil
        return Lease(results[index], taken.runs, taken.hold)
    }
}

extension Store {
    /// Holds blocks in the DRAM tier for reading without a copy, bringing those that are not there
    /// from the device. Needs staging; a block larger than it is `invalid`.
    public func lease(
        _ keys: [Key], in namespace: Namespace, selection: Selection = .whole,
        deadline: Duration? = nil
    ) async -> Leases {
        var results = [GetResult](
            repeating: GetResult(status: .invalid), count: keys.count)
        var held = [Leases.Held?](repeating: nil, count: keys.count)
        guard !namespace.isPurged, let residents = shared.residents else {
            return Leases(results: results, held: held)
        }
        if shared.recorder != nil {
            recordGets(count: keys.count, namespace) { (keys[$0], selection) }
        }
        var rest = leaseResidents(keys, namespace, selection, &results, &held)
        let batch = Batch(
            count: rest.count, keyBytes: rest.reduce(0) { $0 + keys[$1].bytes.count })
        let limit = self.deadline(deadline)
        rest = rest.filter { number in
            var operation = batch.operation(.get, namespace, keys[number])
            operation.mode = .lease
            operation.deadline = limit
            guard operation.select(selection) else { return false }
            batch.append(operation)
            return true
        }
        await batch.run(engine, namespace)
        for (place, number) in rest.enumerated() {
            results[number] = GetResult(batch.answers[place])
            guard let leased = batch.leases[place] else { continue }
            let hold = Lease.Hold.owner(shared, leased.slot)
            let view = ImageView(
                runs: leased.runs, base: residents.arenaBase,
                layout: BlockLayout(
                    length: UInt32(results[number].length), shardCount: results[number].shardCount,
                    aligned: leased.aligned))
            if let runs = view.runs(of: selection) {
                held[number] = Leases.Held(runs: runs, hold: hold)
                results[number].delivered = runs.reduce(0) { $0 + $1.count }
            } else {
                results[number] = GetResult(status: .invalid)
                Lease.end(hold)
            }
        }
        return Leases(results: results, held: held)
    }

    /// Holds one block; nil when it is not there, or no lease is to be had now.
    public func lease(
        _ key: Key, in namespace: Namespace, selection: Selection = .whole,
        deadline: Duration? = nil
    ) async -> Lease? {
        var leases = await lease(
            [key], in: namespace, selection: selection, deadline: deadline)
        return leases.take(0)
    }

    /// Leases what is resident, on this thread; returns what is left.
    private func leaseResidents(
        _ keys: [Key], _ namespace: Namespace, _ selection: Selection,
        _ results: inout [GetResult], _ held: inout [Leases.Held?]
    ) -> [Int] {
        let start = engine.clock.monotonic
        var left: [Int] = []
        var bytes = 0
        for (number, key) in keys.enumerated() {
            guard Self.isValid(key) else { continue }
            let fingerprint = shared.fingerprint(namespace.instance, key)
            guard let (block, view) = shared.pin(fingerprint, lease: true) else {
                left.append(number)
                continue
            }
            let hold = Lease.Hold.reader(shared, block)
            guard let runs = view.runs(of: selection) else {
                Lease.end(hold)
                continue
            }
            var result = GetResult(status: .hit)
            result.tier = .staging
            result.version = block.info.version
            result.length = Int(block.info.length)
            result.delivered = runs.reduce(0) { $0 + $1.count }
            result.shardCount = Int(block.info.shardCount) + 1
            bytes += result.delivered
            results[number] = result
            held[number] = Leases.Held(runs: runs, hold: hold)
            shared.touches.push(StagingKey(hi: fingerprint.hi, lo: fingerprint.lo))
        }
        let hits = held.count { $0 != nil }
        if hits > 0 {
            shared.noteHits(
                hits, bytes: bytes, leases: hits, nanoseconds: engine.clock.monotonic - start)
        }
        return left
    }
}
