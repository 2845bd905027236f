// One bit, one page or one file spoilt after a store was filled: what is hit is right, what is lost
// is a miss with its reason and a counter, and what has a copy loses nothing.

import LogStore
import SegmentFormat
import SimulatedDisk
import Staging
import Testing

@Suite struct DamageTests {
    private static let length = 20_000
    private static let count = 400

    /// 400 blocks in some sealed segments and an open one; staging off, so that gets read the disk.
    private func filled(checkpoint: Bool = false) throws -> (World, UInt16) {
        let world = try World(World.configuration(staging: 0))
        let space = world.namespace()
        for number in 0..<Self.count {
            let status = world.put("key-\(number)", space, revision: 0, length: Self.length)
            #expect(status == .stored)
        }
        world.flush()
        if checkpoint { world.checkpoint() }
        return (world, space)
    }

    /// The numbers of the keys that miss, with their reasons.
    private func misses(_ world: World, _ space: UInt16) -> [Int: MissReason] {
        var found: [Int: MissReason] = [:]
        for number in 0..<Self.count {
            found[number] = world.missed(
                "key-\(number)", space, revision: 0, length: Self.length)
        }
        return found
    }

    private func expectAll(_ world: World, _ space: UInt16) {
        let lost = misses(world, space)
        #expect(lost.isEmpty, "\(lost)")
        world.checkAccounts()
        #expect(world.driver.violations.isEmpty)
    }

    // MARK: Values

    @Test(arguments: [GetMode.direct, .cached], [true, false])
    func aFlippedBitInAValueIsAMiss(mode: GetMode, reopened: Bool) throws {
        let world = try World(World.configuration(staging: 1 << 20, inclusive: false))
        let space = world.namespace()
        #expect(world.put("a", space, revision: 0, length: 30_000) == .stored)
        #expect(world.put("b", space, revision: 0, length: 30_000) == .stored)
        let place = try world.place("a", space)
        world.flip(place, byte: 29_999, bit: 7)
        if reopened {
            world.kill()
            try world.open()
        }
        let before = world.store.log.statistics
        #expect(world.missed("a", space, revision: 0, length: 30_000, mode: mode) == .failedCheck)
        let after = world.store.log.statistics
        #expect(after.checkFailures == before.checkFailures + 2, "read twice")
        #expect(after.readRetries == before.readRetries + 1)
        #expect(after.quarantinedBlocks == before.quarantinedBlocks + 1)
        #expect(after.reasons[.failedCheck] == before.reasons[.failedCheck] + 1)
        #expect(world.missed("a", space, revision: 0, length: 30_000, mode: mode) == .quarantined)
        #expect(world.missed("b", space, revision: 0, length: 30_000, mode: mode) == nil)
        #expect(world.put("a", space, revision: 1, length: 30_000) == .stored, "can be put again")
        #expect(world.missed("a", space, revision: 1, length: 30_000, mode: mode) == nil)
        world.checkAccounts()
        // Should the old copy be readable once more, it is still dead.
        world.flip(place, byte: 29_999, bit: 7)
        world.kill()
        try world.open()
        #expect(world.missed("a", space, revision: 1, length: 30_000, mode: mode) == nil)
        world.checkAccounts()
    }

    @Test func paddingIsNotTheValue() throws {
        let world = try World(World.configuration(staging: 0))
        let space = world.namespace()
        #expect(world.put("a", space, revision: 0, length: 5000) == .stored)
        world.flip(try world.place("a", space), byte: 5000)
        #expect(world.missed("a", space, revision: 0, length: 5000) == nil)
        world.checkAccounts()
    }

    @Test func anUnreadablePageIsAMiss() throws {
        let world = try World(World.configuration(staging: 0))
        let space = world.namespace()
        #expect(world.put("a", space, revision: 0, length: 30_000) == .stored)
        #expect(world.put("b", space, revision: 0, length: 30_000) == .stored)
        let place = try world.place("a", space)
        world.machine.breakPages(
            place.directory, place.name, offset: place.page * pageBytes, length: 1)
        #expect(world.missed("a", space, revision: 0, length: 30_000) == .failedCheck)
        #expect(world.store.log.statistics.readErrors == 2)
        #expect(world.missed("b", space, revision: 0, length: 30_000) == nil)
        world.checkAccounts()
    }

    /// A copy that could not be read is not on disk for good when its key is deleted.
    @Test func aDeleteOfAnUnreadableBlockHolds() throws {
        let world = try World(World.configuration(staging: 0))
        let space = world.namespace()
        #expect(world.put("a", space, revision: 0, length: 3000) == .stored)
        let place = try world.place("a", space)
        world.flip(place)
        #expect(world.missed("a", space, revision: 0, length: 3000) == .failedCheck)
        #expect(world.remove("a", space) == .deleted)
        #expect(world.remove("a", space) == .notFound)
        world.flip(place)
        world.kill()
        try world.open()
        #expect(world.missed("a", space, revision: 0, length: 3000) == .neverPut)
        world.checkAccounts()
    }

    // MARK: Shards

    private static let shards: [UInt32] = [8192, 4096, 12_288, 5000]

    private func shard(
        _ world: World, _ space: UInt16, _ value: [UInt8], _ number: Int,
        mode: GetMode = .direct, sourceLocation: SourceLocation = #_sourceLocation
    ) -> MissReason? {
        let length = Int(Self.shards[number])
        let start = Int(Self.shards[..<number].reduce(0, +))
        let (answer, bytes) = world.get("s", space, length: length, mode: mode) {
            $0.firstShard = number
            $0.shardCount = 1
        }
        if answer.status == .miss { return answer.reason }
        #expect(answer.status == .hit, sourceLocation: sourceLocation)
        #expect(
            bytes == Array(value[start..<(start + length)]), "shard \(number)",
            sourceLocation: sourceLocation)
        return nil
    }

    /// What the whole block and each shard say; the misses of the damaged shard do not take the
    /// others away.
    @Test(arguments: [false, true], [false, true])
    func oneDamagedShardLeavesTheOthers(aligned: Bool, unreadable: Bool) throws {
        let world = try World(World.configuration(staging: 0))
        let space = world.namespace(aligned: aligned)
        let value = payload("s", revision: 0, length: Int(Self.shards.reduce(0, +)))
        #expect(world.put("s", space, value, shards: Self.shards).status == .stored)
        world.kill()
        try world.open()
        var place = try world.place("s", space)
        // The third shard, behind 12,288 bytes (and the table's page when aligned).
        place.page += aligned ? 4 : 3
        if unreadable {
            world.machine.breakPages(
                place.directory, place.name, offset: place.page * pageBytes, length: 1)
        } else {
            world.flip(place)
        }
        for number in [0, 1, 3] { #expect(shard(world, space, value, number) == nil) }
        let before = world.store.log.statistics
        #expect(shard(world, space, value, 2) == .failedCheck)
        let after = world.store.log.statistics
        #expect(after.reasons[.failedCheck] == before.reasons[.failedCheck] + 1)
        if unreadable {
            #expect(after.readErrors > before.readErrors)
        } else {
            #expect(after.checkFailures > before.checkFailures)
        }
        for number in [0, 1, 3] {
            #expect(shard(world, space, value, number) == nil, "still there")
        }
        #expect(shard(world, space, value, 2) == .failedCheck)
        let (whole, _) = world.get("s", space, length: value.count)
        #expect(whole.status == .miss && whole.reason == .failedCheck)
        for number in [0, 1, 3] { #expect(shard(world, space, value, number) == nil) }
        #expect(world.store.log.statistics.quarantinedBlocks == 1)
        // Whoever asks is told to put it again.
        let key = world.fingerprint("s", space)
        #expect(!world.store.log.index.reader.contains(key, now: 1))
        // A put takes the damaged block's place, although it was not asked to replace one.
        #expect(world.put("s", space, value, shards: Self.shards).status == .stored)
        for number in 0..<4 { #expect(shard(world, space, value, number) == nil) }
        #expect(world.store.log.index.reader.contains(key, now: 1))
        #expect(world.get("s", space, length: value.count).1 == value)
        world.kill()
        try world.open()
        #expect(world.get("s", space, length: value.count).1 == value)
        world.checkAccounts()
    }

    @Test(arguments: [false, true]) func aFlippedBitInTheShardTable(aligned: Bool) throws {
        let world = try World(World.configuration(staging: 0))
        let space = world.namespace(aligned: aligned)
        let total = Int(Self.shards.reduce(0, +))
        let value = payload("s", revision: 0, length: total)
        #expect(world.put("s", space, value, shards: Self.shards).status == .stored)
        world.kill()
        try world.open()
        var place = try world.place("s", space)
        let table = aligned ? 0 : (total + 7) / 8 * 8
        place.page += table / pageBytes
        world.flip(place, byte: table % pageBytes + 9)
        #expect(shard(world, space, value, 1) == .failedCheck)
        #expect(world.store.log.statistics.checkFailures == 2)
        let (whole, _) = world.get("s", space, length: total)
        #expect(whole.status == .miss, "without its table nothing of it can be checked")
        #expect(world.put("s", space, value, shards: Self.shards).status == .stored)
        #expect(shard(world, space, value, 1) == nil)
        world.checkAccounts()
    }

    /// A good table in memory does not vouch for the one in an image that is read whole and served
    /// by its own table later.
    @Test(arguments: [false, true]) func aFlippedBitInTheTableOfAnImage(aligned: Bool) throws {
        let world = try World()
        let space = world.namespace(aligned: aligned)
        let total = Int(Self.shards.reduce(0, +))
        let value = payload("s", revision: 0, length: total)
        #expect(world.put("s", space, value, shards: Self.shards).status == .stored)
        world.kill()
        try world.open()
        #expect(shard(world, space, value, 1) == nil, "it brings the table into the cache")
        var place = try world.place("s", space)
        let table = aligned ? 0 : (total + 7) / 8 * 8
        place.page += table / pageBytes
        world.flip(place, byte: table % pageBytes + 1)  // the first shard's length
        let before = world.store.log.statistics.checkFailures
        #expect(shard(world, space, value, 2, mode: .cached) == .failedCheck)
        #expect(world.store.log.statistics.checkFailures == before + 2)
        #expect(shard(world, space, value, 2, mode: .cached) == .failedCheck)
        world.checkAccounts()
    }

    // MARK: Descriptors, footers, trailers, headers

    @Test(arguments: [false, true]) func aFlippedBitInAGroupsDescriptors(strict: Bool) throws {
        let (world, space) = try filled()
        let open = try #require(world.segment(.open) { $0.minValueVersion != UInt64.max })
        let pages = world.descriptorPages(open, .group)
        try #require(pages.count > 2)
        let damaged = pages[pages.count / 2]
        let held = (0..<Self.count).filter { number in
            guard let entry = world.entry("key-\(number)", space) else { return false }
            return entry.place.segment == open && Int(entry.place.page) > damaged
                && !pages.contains { $0 > damaged && $0 < Int(entry.place.page) }
        }
        #expect(!held.isEmpty)
        world.flip(world.place(segment: open, page: damaged), byte: 70)
        world.kill()
        if strict {
            let error = world.openingError { $0.log.openMode = .strict }
            #expect(error?.kind == .damaged, "\(String(describing: error))")
            return
        }
        try world.open()
        #expect(world.store.log.statistics.recovery.damagedPages == 1)
        let lost = misses(world, space)
        #expect(lost.keys.sorted() == held, "its group and nothing else")
        #expect(lost.values.allSatisfy { $0 == .neverPut })
        world.checkAccounts()
        // And what is put from here on does not lie over what was found.
        for number in held {
            let status = world.put("key-\(number)", space, revision: 0, length: Self.length)
            #expect(status == .stored)
        }
        expectAll(world, space)
        world.close()
        try world.open()
        expectAll(world, space)
    }

    /// What the checkpoint knows is not overwritten because its descriptors are gone.
    @Test func aDamagedDescriptorBehindACheckpointLosesNothing() throws {
        let (world, space) = try filled(checkpoint: true)
        let open = try #require(world.segment(.open) { $0.minValueVersion != UInt64.max })
        for page in world.descriptorPages(open, .group) {
            world.flip(world.place(segment: open, page: page), byte: 70)
        }
        world.kill()
        try world.open()
        expectAll(world, space)
        for number in 0..<30 {
            let status = world.put("more-\(number)", space, revision: 0, length: Self.length)
            #expect(status == .stored)
        }
        expectAll(world, space)
    }

    /// Nor what came into the dump while it was written, of a group that it does not count as
    /// written; also where nothing else is found in the segment, and it looks empty, and where a
    /// footer without it could hide it once the segment is sealed.
    @Test(arguments: [(false, false), (true, false), (false, true)])
    func whatADumpCameToTellOfIsNotOverwritten(alone: Bool, sealed: Bool) throws {
        let world = try World(World.configuration(staging: 0))
        let space = world.namespace()
        #expect(world.put("a", space, revision: 0, length: Self.length) == .stored)
        world.flush()
        if alone { world.seal(.fresh) }
        var bytes = payload("b", revision: 0, length: Self.length)
        let stored = bytes.withUnsafeMutableBytes { memory in
            world.run(.put, "b", space, bytes: memory) {
                $0.durability = .written
                world.store.checkpoint(token: world.token())
            }
        }
        #expect(stored.status == .stored)
        world.settle()
        let (first, place) = (try world.place("a", space), try world.place("b", space))
        try #require(alone || first.name == place.name && first.page < place.page)
        let segment = try #require(world.entry("b", space)).place.segment
        world.kill()
        // Where its descriptors lie, another page is read.
        let pages = world.descriptorPages(segment, .group).filter { alone || $0 > first.page }
        try #require(!pages.isEmpty)
        let told = pages.map {
            world.machine.contents(
                place.directory, place.name, offset: $0 * pageBytes, length: pageBytes) ?? []
        }
        for page in pages {
            let made = world.machine.overwrite(
                place.directory, place.name, page: page, [UInt8](repeating: 0, count: pageBytes))
            #expect(made)
        }
        try world.open()
        #expect(world.store.log.statistics.recovery.checkpointEntries == 2)
        world.checkAccounts()
        for number in 0..<30 {
            let status = world.put("more-\(number)", space, revision: 0, length: Self.length)
            #expect(status == .stored)
        }
        #expect(world.missed("a", space, revision: 0, length: Self.length) == nil)
        #expect(world.missed("b", space, revision: 0, length: Self.length) == nil)
        world.checkAccounts()

        // Read well again it is found without a checkpoint, too.
        world.flush()
        if sealed { world.seal(.fresh) }
        world.kill()
        for (page, bytes) in zip(pages, told) {
            #expect(world.machine.overwrite(place.directory, place.name, page: page, bytes))
        }
        for name in world.machine.fileNames(place.directory) where name.hasPrefix("checkpoint-") {
            for offset in [16, CheckpointHeader.endOffset + 16] {
                world.machine.flipBit(place.directory, name, offset: offset, bit: 1)
            }
        }
        try world.open()
        #expect(world.store.log.statistics.recovery.checkpointEntries == 0)
        #expect(world.missed("b", space, revision: 0, length: Self.length) == nil)
        world.checkAccounts()
    }

    @Test(arguments: [false, true]) func aFlippedBitInAFooterLosesNothing(strict: Bool) throws {
        let (world, space) = try filled()
        let sealed = try #require(world.segment(.sealed))
        let pages = world.descriptorPages(sealed, .footer)
        try #require(!pages.isEmpty)
        world.flip(world.place(segment: sealed, page: pages[0]), byte: 200)
        world.kill()
        if strict {
            #expect(world.openingError { $0.log.openMode = .strict }?.kind == .damaged)
            return
        }
        try world.open()
        #expect(world.store.log.statistics.recovery.damagedPages == 1)
        expectAll(world, space)
    }

    @Test func aFlippedBitInATrailerLosesNothing() throws {
        let (world, space) = try filled()
        let sealed = try #require(world.segment(.sealed))
        let last = Int(world.store.log.segmentPages) - 1
        world.flip(world.place(segment: sealed, page: last), byte: 45)
        world.kill()
        try world.open()
        expectAll(world, space)
        for number in 0..<200 { _ = world.put("m\(number)", space, revision: 0, length: 9000) }
        expectAll(world, space)
        world.close()
        try world.open()
        expectAll(world, space)
    }

    /// The header of an open segment has a copy on its last page; that of a sealed one a trailer.
    @Test(arguments: [SegmentState.open, .sealed])
    func aFlippedBitInASegmentHeaderLosesNothing(state: SegmentState) throws {
        let (world, space) = try filled()
        let segment = try #require(world.segment(state) { $0.minValueVersion != UInt64.max })
        world.flip(world.place(segment: segment, page: 0), byte: 60)
        world.kill()
        try world.open()
        #expect(world.store.log.statistics.recovery.damagedSegments == 0)
        expectAll(world, space)
    }

    @Test func bothHeadersGoneIsASegmentLost() throws {
        let (world, space) = try filled()
        let segment = try #require(world.segment(.sealed))
        let held = (0..<Self.count).filter {
            world.entry("key-\($0)", space)?.place.segment == segment
        }
        let last = Int(world.store.log.segmentPages) - 1
        world.flip(world.place(segment: segment, page: 0), byte: 60)
        world.flip(world.place(segment: segment, page: last), byte: 60)
        world.kill()
        #expect(world.openingError { $0.log.openMode = .strict }?.kind == .damaged)
        try world.open()
        #expect(world.store.log.statistics.recovery.damagedSegments == 1)
        let lost = misses(world, space)
        #expect(lost.keys.sorted() == held)
        world.checkAccounts()
    }

    // MARK: A segment cut short

    @Test(arguments: [false, true]) func aTruncatedSegment(checkpoint: Bool) throws {
        let (world, space) = try filled(checkpoint: checkpoint)
        let segment = try #require(world.segment(.sealed))
        let kept = Int(world.store.log.segmentPages) / 2
        let place = world.place(segment: segment, page: 0)
        var within: [Int] = []
        var gone: [Int] = []
        for number in 0..<Self.count {
            let entry = try #require(world.entry("key-\(number)", space))
            guard entry.place.segment == segment else { continue }
            if Int(entry.place.page) + 5 <= kept {
                within.append(number)
            } else {
                gone.append(number)
            }
        }
        #expect(within.count > 20 && gone.count > 20)
        world.machine.truncate(place.directory, place.name, to: kept * pageBytes)
        world.kill()
        #expect(
            world.openingError { $0.log.openMode = .strict }?.kind == .damaged,
            "strict refuses it with a checkpoint and without")
        try world.open()
        let lost = misses(world, space)
        #expect(lost.keys.sorted() == gone, "the half that is there is served")
        #expect(world.store.log.space.capacity > 0)
        // The device as a whole is well: it goes on serving and taking writes.
        #expect(world.put("new", space, revision: 0, length: Self.length) == .stored)
        #expect(world.missed("new", space, revision: 0, length: Self.length) == nil)
        world.checkAccounts()
    }

    // MARK: Checkpoints

    enum CheckpointPart: CaseIterable { case header, end, table, chunk }

    @Test(arguments: CheckpointPart.allCases, [false, true])
    func aFlippedBitInACheckpointLosesNothing(part: CheckpointPart, strict: Bool) throws {
        let (world, space) = try filled()
        #expect(world.remove("key-7", space) == .deleted)
        world.checkpoint()
        let name = try #require(
            world.machine.fileNames("/store").first {
                $0.hasPrefix("checkpoint-") && world.machine.fileSize("/store", $0) != 0
            })
        let segments = world.store.log.segments.counts.reduce(0, +)
        let offset =
            switch part {
            case .header: 40
            case .end: CheckpointHeader.endOffset + 16
            case .table: 2 * pageBytes + 20
            case .chunk: Int(CheckpointHeader.dataOffset(segments: segments)) + 1000
            }
        #expect(world.machine.flipBit("/store", name, offset: offset, bit: 1))
        world.kill()
        if strict {
            #expect(world.openingError { $0.log.openMode = .strict }?.kind == .damaged)
            return
        }
        try world.open()
        let recovery = world.store.log.statistics.recovery
        #expect(recovery.damagedCheckpoints == 1)
        #expect(recovery.footerSegments + recovery.scannedSegments > 3, "replayed")
        let lost = misses(world, space)
        #expect(Array(lost.keys) == [7], "\(lost)")
        world.checkAccounts()
    }

    @Test func aWholeCheckpointIsUsedInStrict() throws {
        let (world, space) = try filled(checkpoint: true)
        world.close()
        try world.open(.strict)
        #expect(world.store.log.recoveryFailure == nil)
        #expect(world.store.log.statistics.recovery.checkpointEntries == UInt64(Self.count))
        expectAll(world, space)
        #expect(world.put("new", space, revision: 0, length: 100) == .stored)
    }

    // MARK: Manifests

    @Test func aFlippedBitInAManifestCopyLosesNothing() throws {
        let (world, space) = try filled()
        world.close()
        for copy in 0..<Manifest.copies {
            let offset = copy * Manifest.copyBytes + 120
            #expect(world.machine.flipBit("/store", StoreFiles.manifest, offset: offset, bit: 0))
            let error = world.openingError { $0.log.openMode = .strict }
            #expect(error?.kind == .damaged, "\(String(describing: error))")
            try world.open()
            #expect(world.store.log.statistics.damage.damagedCopies == 1)
            #expect(world.namespace() == space)
            expectAll(world, space)
            // Two epochs rewrite all four.
            _ = world.namespace("x\(copy)")
            _ = world.namespace("y\(copy)")
            world.close()
        }
        #expect(world.openingError { $0.log.openMode = .strict } == nil)
    }

    /// Bad sectors across two copies, and a crash that tore both copies of the epoch that was being
    /// written.
    @Test(arguments: [0, 1] as [UInt64], 0..<(Manifest.copies - 1))
    func badSectorsAcrossTwoManifestCopiesLoseNothing(torn: UInt64, first: Int) throws {
        let (world, space) = try filled()
        world.close()
        for copy in Set(Manifest.places(of: torn) + [first, first + 1]) {
            let offset = copy * Manifest.copyBytes + 120
            #expect(world.machine.flipBit("/store", StoreFiles.manifest, offset: offset, bit: 0))
        }
        try world.open()
        #expect(world.store.log.statistics.damage.damagedCopies == 3)
        #expect(world.namespace() == space)
        expectAll(world, space)
    }

    /// A copy that was written elsewhere is missing at its place, and lies over two others.
    @Test func aManifestCopyThatWasMisdirectedTakesNothing() throws {
        for missing in 0..<Manifest.copies {
            for struck in 0..<(Manifest.copies - 1) {
                let world = try World(World.configuration(staging: 0))
                let space = world.namespace("before")
                let newest = world.namespace("newest")
                world.machine.crash(keep: .none)
                for copy in Set([missing, struck, struck + 1]) {
                    let offset = copy * Manifest.copyBytes + 120
                    #expect(
                        world.machine.flipBit(
                            "/store", StoreFiles.manifest, offset: offset, bit: 0))
                }
                try world.open()
                let found = world.store.log.manifest.namespaces.count
                #expect(found == 2, "\(missing) \(struck)")
                #expect(world.namespace("before") == space)
                #expect(world.namespace("newest") == newest)
            }
        }
    }

    @Test func withAllManifestCopiesGoneOpeningSaysWhatToDo() throws {
        let (world, _) = try filled()
        let identity = world.store.log.manifest.store
        world.close()
        for copy in 0..<Manifest.copies {
            _ = world.machine.flipBit(
                "/store", StoreFiles.manifest, offset: copy * Manifest.copyBytes + 120, bit: 0)
        }
        for mode in [OpenMode.quiet, .strict] {
            let error = try #require(world.openingError { $0.log.openMode = mode })
            #expect(error.kind == .damaged)
            #expect(error.subject.contains("manifest"))
            #expect(error.advice.contains("fresh"), "\(error)")
        }
        world.configuration.log.entropy = (5, 6, 7, 8)
        try world.open(.fresh)
        let again = world.namespace()
        let lost = misses(world, again)
        #expect(lost.count == Self.count, "old data is unreadable")
        #expect(world.store.log.index.count == 0)
        world.checkAccounts()
        let answer = world.put("key-1", again, payload("key-1", revision: 5, length: 100))
        #expect(answer.status == .stored)
        // Nothing tells the old counters any more: a new store, with an identity of its own.
        #expect(world.store.log.manifest.store != identity)
        #expect(world.missed("key-1", again, revision: 5, length: 100) == nil)
        world.close()
        try world.open()
        #expect(world.missed("key-1", again, revision: 5, length: 100) == nil)
        #expect(world.store.log.index.count == 1, "nothing old comes back")
        world.checkAccounts()
    }

    @Test func freshStartsEmptyWithCountersMovingForward() throws {
        let (world, space) = try filled()
        let version = world.put("last", space, payload("last", revision: 0, length: 10)).version
        let instance = world.store.log.namespaces.instance(space)
        let generation = try #require(
            world.segment(.open).map { world.store.log.segments[$0].generation })
        world.close()
        world.configuration.log.entropy = (5, 6, 7, 8)
        try world.open(.fresh)
        let again = world.namespace()
        #expect(world.store.log.namespaces.instance(again) > instance)
        #expect(misses(world, again).count == Self.count)
        let answer = world.put("key-1", again, payload("key-1", revision: 5, length: 100))
        #expect(answer.status == .stored && answer.version > version)
        let open = try #require(world.segment(.open))
        #expect(world.store.log.segments[open].generation > generation)
        world.close()
        try world.open()
        #expect(world.store.log.index.count == 1, "nothing old comes back")
        #expect(world.missed("key-1", again, revision: 5, length: 100) == nil)
        world.checkAccounts()
    }

    // MARK: Deletes and replaces

    /// A tombstone is written to two segments: either page of descriptors may rot.
    @Test(arguments: [0, 1]) func aDeleteOutlivesOneOfItsPages(which: Int) throws {
        let (world, space) = try filled()
        world.checkpoint()
        #expect(world.remove("key-9", space) == .deleted)
        let records = world.recordSegments
        try #require(records.count == 2)
        let pages = world.descriptorPages(records[which], .group)
        world.flip(world.place(segment: records[which], page: try #require(pages.last)), byte: 80)
        world.kill()
        try world.open()
        let lost = misses(world, space)
        #expect(Array(lost.keys) == [9], "\(lost)")
        world.checkAccounts()
        // And so it stays when the rest has been gone through once more.
        world.close()
        try world.open()
        #expect(Array(misses(world, space).keys) == [9])
        world.checkAccounts()
    }

    @Test(arguments: [Durability.written, .durable], [false, true])
    func anOldVersionNeverComesBack(durability: Durability, checkpoint: Bool) throws {
        let (world, space) = try filled(checkpoint: checkpoint)
        for number in [3, 350] {
            let status = world.put(
                "key-\(number)", space, revision: 1, length: 25_000, replace: true,
                durability: durability)
            #expect(status == .stored)
            let place = try world.place("key-\(number)", space)
            world.flip(place)
        }
        world.kill()
        try world.open()
        for number in [3, 350] {
            let key = "key-\(number)"
            let (answer, _) = world.get(key, space, length: 25_000)
            #expect(answer.status == .miss, "\(key): \(answer)")
            #expect(answer.reason == .failedCheck || answer.reason == .neverPut)
        }
        world.checkAccounts()
        world.close()
        try world.open()
        for number in [3, 350] {
            #expect(world.get("key-\(number)", space, length: 25_000).0.status == .miss)
        }
        world.checkAccounts()
    }
}
