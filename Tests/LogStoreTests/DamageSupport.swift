// DamageSupport: looking at what a store wrote, spoiling it, and what must hold at the end of every
// test, whatever was spoilt.

import BlockIO
import Glibc
import LogStore
import SegmentFormat
import Staging
import Testing

@testable import SimulatedDisk

let pageBytes = FormatConstants.pageBytes

extension Harness {
    func fingerprint(_ key: String, _ namespace: UInt16) -> Fingerprint {
        Array(key.utf8).withUnsafeBytes { store.log.fingerprint(namespace, $0) }
    }

    func entry(_ key: String, _ namespace: UInt16) -> IndexEntry? {
        store.log.index.find(fingerprint(key, namespace))
    }

    /// Capacity adds up, and what is accounted as live is what the index has.
    func checkAccounts(sourceLocation: SourceLocation = #_sourceLocation) {
        let space = store.log.space
        #expect(space.sum == space.capacity, "\(space)", sourceLocation: sourceLocation)
        #expect(store.log.auditLivePages() == nil, sourceLocation: sourceLocation)
    }

    /// A control call, waited for.
    func control(_ body: (UInt64) -> Void) -> Outcome {
        let token = token()
        body(token)
        settle()
        return sink.outcomes[token] ?? Outcome(token: token, status: .failed)
    }

    func flush() { _ = control { store.flush(token: $0, through: UInt64.max) } }
    func checkpoint() { _ = control { store.checkpoint(token: $0) } }
    func remove(_ key: String, _ namespace: UInt16) -> Status {
        run(.delete, key, namespace).status
    }

    /// Puts `key` with its payload of a revision; the status.
    func put(
        _ key: String, _ namespace: UInt16, revision: Int, length: Int, replace: Bool = false,
        durability: Durability = .written
    ) -> Status {
        put(
            key, namespace, payload(key, revision: revision, length: length), replace: replace,
            durability: durability
        ).status
    }

    /// Gets a key: its reason when it misses, nil when it hits with the right bytes.
    func missed(
        _ key: String, _ namespace: UInt16, revision: Int, length: Int, mode: GetMode = .direct,
        sourceLocation: SourceLocation = #_sourceLocation
    ) -> MissReason? {
        let (answer, bytes) = get(key, namespace, length: length, mode: mode)
        if answer.status == .miss { return answer.reason }
        #expect(answer.status == .hit, "\(key): \(answer)", sourceLocation: sourceLocation)
        let right = bytes == payload(key, revision: revision, length: length)
        #expect(right, "wrong bytes of \(key)", sourceLocation: sourceLocation)
        return nil
    }
}

extension World {
    struct FilePlace {
        var directory: String
        var name: String
        var page: Int
    }

    /// Where the first page of a block lies.
    func place(_ key: String, _ namespace: UInt16) throws -> FilePlace {
        let entry = try #require(self.entry(key, namespace))
        return place(segment: entry.place.segment, page: Int(entry.place.page))
    }

    func place(segment: UInt32, page: Int) -> FilePlace {
        FilePlace(
            directory: configuration.log.directories[SegmentTable.device(segment)],
            name: StoreFiles.segment(SegmentTable.local(segment)), page: page)
    }

    func flip(_ place: FilePlace, byte: Int = 100, bit: Int = 3) {
        let done = machine.flipBit(
            place.directory, place.name, offset: place.page * pageBytes + byte, bit: bit)
        #expect(done, "no such byte: \(place)")
    }

    /// The pages of a segment that are descriptor pages of its present life, of the kind.
    func descriptorPages(_ segment: UInt32, _ kind: DescriptorPageKind) -> [Int] {
        let log = store.log
        let context = PageContext(
            secret: log.manifest.secret, store: log.manifest.store, segment: segment,
            generation: log.segments[segment].generation)
        let place = place(segment: segment, page: 0)
        return (0..<Int(log.segmentPages)).filter { page in
            let bytes =
                machine.contents(
                    place.directory, place.name, offset: page * pageBytes, length: pageBytes) ?? []
            return bytes.withUnsafeBytes {
                (try? DescriptorPageReader(
                    page: $0, context: context, pageNumber: UInt32(page)))?.header.kind == kind
            }
        }
    }

    /// The first segment in a state.
    func segment(_ state: SegmentState, where matches: (Segment) -> Bool = { _ in true }) -> UInt32?
    {
        var found: UInt32?
        store.log.segments.forEach { id in
            let segment = store.log.segments[id]
            if found == nil, segment.state == state, matches(segment) { found = id }
        }
        return found
    }

    /// Stops without a checkpoint, as a kill does: what was written stays.
    func kill() { machine.crash(keep: .all) }

    /// Opens in another mode, once.
    func open(_ mode: OpenMode) throws {
        configuration.log.openMode = mode
        defer { configuration.log.openMode = .quiet }
        try open()
    }

    /// The error of an opening that must fail.
    func openingError(_ change: (inout StagedConfiguration) -> Void = { _ in }) -> StoreError? {
        var changed = configuration
        change(&changed)
        let driver = SimulatedDriver(
            machine: machine, regions: RegionTable(), clock: clock, seed: 9)
        do throws(StoreError) {
            let opened = try StagedStore.open(changed, driver: driver, clock: clock)
            while !opened.isRecovered || !opened.isIdle || driver.inFlight > 0 {
                if !opened.pump() { driver.wait(until: clock.monotonic + 1_000_000) }
            }
            let failure = opened.log.recoveryFailure
            opened.shutdown()
            return failure
        } catch {
            return error
        }
    }
}

extension SimulatedMachine {
    /// Cuts a file short.
    func truncate(_ directory: String, _ name: String, to bytes: Int) {
        guard let place = locate(directory, name) else { return }
        state.devices[place.device].files[place.index].size = bytes
        state.devices[place.device].files[place.index].durableSize = bytes
    }
}
