// SharedStore: what callers' threads may use of an open store without its owner: the inbox, the
// index and the residents, read without locks, and the key hash.

import BlockIO
import LogStore
import SegmentFormat
import Staging
import Synchronization
import Tiering

final class SharedStore: Sendable {
    let engine: Engine
    let index: IndexReader
    let residents: ResidentReader?
    let touches: TouchQueue
    let secret: SecretKey
    let caller = Mutex(CallerCounts())
    let hints = HintCounter()
    /// Nil: nothing is recorded.
    let recorder: Recorder?
    /// Decides how much of a prefix is worth loading.
    let judge: PrefixJudge
    /// Pages for tools, and files of what was learnt, that could not be written.
    let pageErrors = Atomic<UInt64>(0)
    /// Whether blocks read stay as copies; if not, reads have to tell the owner.
    let inclusive: Bool
    let hasArena: Bool
    /// One flag for each instance that was opened, shared by all its values.
    private let purged = Mutex<[UInt64: PurgedFlag]>([:])

    /// Owner thread.
    init(engine: Engine, store tiered: TieredStore, recorder: Recorder? = nil) {
        self.recorder = recorder
        let store = tiered.staged
        self.engine = engine
        judge = tiered.judge
        index = store.log.index.reader
        residents = store.arena?.reader
        touches = store.touches
        secret = store.log.manifest.secret
        inclusive = store.configuration.inclusive
        hasArena = store.arena != nil
    }

    func purgedFlag(_ instance: UInt64) -> PurgedFlag {
        purged.withLock { flags in
            if let flag = flags[instance] { return flag }
            let flag = PurgedFlag()
            flags[instance] = flag
            return flag
        }
    }

    @inline(__always)
    func fingerprint(_ instance: UInt64, _ key: UnsafeRawBufferPointer) -> Fingerprint {
        let id = SipHash.hash128(secret, instance, key)
        return Fingerprint(hi: id.hi == 0 ? 1 : id.hi, lo: id.lo)
    }

    func fingerprint(_ instance: UInt64, _ key: Key) -> Fingerprint {
        key.bytes.withUnsafeBytes { fingerprint(instance, $0) }
    }

    /// Which keys are present, unexpired, in the index or in staging.
    func contains(
        _ instance: UInt64, _ keys: ArraySlice<Key>, into: UnsafeMutablePointer<Bool>
    ) {
        withUnsafeTemporaryAllocation(of: Fingerprint.self, capacity: max(1, keys.count)) { room in
            var count = 0
            for key in keys {
                room.initializeElement(at: count, to: fingerprint(instance, key))
                count += 1
            }
            contains(UnsafeBufferPointer(start: room.baseAddress, count: count), into: into)
        }
    }

    /// The same for one: engines ask key by key.
    func contains(_ fingerprint: Fingerprint) -> Bool {
        let now = engine.clock.wallSeconds
        if index.contains(fingerprint, now: now) { return true }
        let key = StagingKey(hi: fingerprint.hi, lo: fingerprint.lo)
        return residents?.contains(key, now: now) ?? false
    }

    func contains(
        _ fingerprints: UnsafeBufferPointer<Fingerprint>, into: UnsafeMutablePointer<Bool>
    ) {
        let now = engine.clock.wallSeconds
        index.contains(fingerprints, now: now, into: into)
        guard let residents else { return }
        // A block that was put as volatile, or is on its way to the device, is in staging alone.
        for number in fingerprints.indices where !into[number] {
            let key = StagingKey(hi: fingerprints[number].hi, lo: fingerprints[number].lo)
            into[number] = residents.contains(key, now: now)
        }
    }

    /// A resident's image and its pin, or nil when it is not there (or no lease is to be had).
    func pin(_ fingerprint: Fingerprint, lease: Bool) -> (block: PinnedBlock, view: ImageView)? {
        guard let residents else { return nil }
        let key = StagingKey(hi: fingerprint.hi, lo: fingerprint.lo)
        guard let block = residents.pin(key, now: engine.clock.wallSeconds, lease: lease) else {
            return nil
        }
        var runs: [Run] = []
        residents.forEachRun(block) { offset, length in
            runs.append(Run(offset: offset, count: length))
        }
        let layout = BlockLayout(
            length: block.info.length, shardCount: Int(block.info.shardCount) + 1,
            aligned: block.info.aligned)
        return (block, ImageView(runs: runs, base: residents.arenaBase, layout: layout))
    }

    /// Serves a cached get from a resident, on this thread; nil: it takes the owner.
    func copyResident(_ fingerprint: Fingerprint, _ item: GetItem) -> GetResult? {
        guard inclusive, item.destination.isAddressable, let residents,
            let (block, view) = pin(fingerprint, lease: false)
        else { return nil }
        defer { residents.unpin(block) }
        guard let runs = view.runs(of: item.selection) else { return nil }
        let bytes = runs.reduce(0) { $0 + $1.count }
        guard UInt64(bytes) <= item.destination.byteCount else { return nil }
        var done = 0
        for run in runs {
            item.destination.write(at: done, view.base + run.offset, count: run.count)
            done += run.count
        }
        var result = GetResult(status: .hit)
        result.tier = .staging
        result.version = block.info.version
        result.length = Int(block.info.length)
        result.delivered = bytes
        result.shardCount = Int(block.info.shardCount) + 1
        return result
    }

    func noteHits(_ count: Int, bytes: Int, leases: Int = 0, nanoseconds: UInt64) {
        caller.withLock { counts in
            counts.hits += UInt64(count)
            counts.bytes += UInt64(bytes)
            counts.leases += UInt64(leases)
            for _ in 0..<count { counts.latency.record(nanoseconds / UInt64(max(count, 1))) }
        }
    }
}
