// Opening: directories, locks and manifests, synchronously; what the blocks are is then found out
// by the pumped recovery. Every refusal says what is wrong and what to do, and changes nothing.

import BlockIO
import Glibc
import SegmentFormat

/// What opening found, handed to `LogStore.init`.
struct OpenedStore {
    var driver: any BlockDriver
    var clock: any Clock
    var configuration: LogStoreConfiguration
    var manifest: Manifest
    var devices: [Device]
    var segments: SegmentTable
    var namespaces: NamespaceTable
    var readOnly: Bool
    var created: Bool
    var damage: OpenDamage
}

/// What was found damaged, absent or old at open; counted in `quiet`, refused in `strict`.
package struct OpenDamage: Sendable {
    /// Members of whose manifest no copy verifies.
    package var manifestCopies = 0
    /// Single copies that do not verify.
    package var damagedCopies = 0
    package var absentDevices = 0
    package var staleDevices = 0
    /// Members that came back and start empty: struck, or stale in a cache.
    package var emptiedDevices = 0
}

package enum StoreFiles {
    package static let manifest = "manifest"
    package static let lock = "LOCK"
    /// What the owner tells tools; no part of the store.
    package static let statistics = "statistics"
    /// What its owner has learnt of returns; no part of the store.
    package static let learnt = "learnt"
    /// Why blocks that are gone are gone; no part of the store.
    package static let ghosts = "ghosts"
    package static func checkpoint(_ number: Int) -> String { "checkpoint-\(number)" }
    package static func segment(_ local: Int) -> String {
        // Concatenated, not padded by repeating: strings this short take no heap memory.
        let zeros = local < 10 ? "0000" : local < 100 ? "000" : local < 1000 ? "00" : "0"
        return "segment-" + (local < 10_000 ? zeros : "") + String(local)
    }
    package static func segmentNumber(_ name: String) -> Int? {
        guard name.hasPrefix("segment-"), name.utf8.count == 13 else { return nil }
        return Int(name.dropFirst(8))
    }
}

extension LogStore {
    /// Opens or creates the store. Recovery then goes on in `pump`; reads are served meanwhile.
    package static func open(
        _ configuration: LogStoreConfiguration, driver: any BlockDriver, clock: any Clock
    ) throws(StoreError) -> LogStore {
        var opener = Opener(configuration: configuration, driver: driver, clock: clock)
        do throws(StoreError) {
            let parts = try opener.open()
            let store = try LogStore(parts: parts)
            store.begin(parts)
            return store
        } catch {
            opener.closeAll()
            throw error
        }
    }

    private func begin(_ parts: OpenedStore) {
        manifestState.limits = ManifestLimits(
            generation: manifest.generationLimit, version: manifest.versionLimit)
        manifestState.exists = !parts.created
        manifest.generationLimit += Self.generationStep
        manifest.versionLimit += Self.versionStep
        manifest.cleanClose = false
        // In `strict` nothing is written before it is known that the store is taken.
        manifestState.dirty = !readOnly && configuration.openMode != .strict
        statistics.damage = parts.damage
        spreading.memberIsGone = parts.damage.emptiedDevices > 0
        recovery = Recovery(store: self, startedAt: clock.monotonic)
    }

    /// What a silent device still has is the kernel's: its files stay open and its directory locked
    /// until the process ends, so that nobody else writes where a late request may land.
    private func keepsFiles(_ device: Int) -> Bool {
        lanes[device].gaveUp && lanes[device].underWay > 0
    }

    /// Whether `shutdown` leaves requests behind; driver and memory must then outlive the store.
    package var leavesRequests: Bool { devices.indices.contains { keepsFiles($0) } }

    /// Closes files and locks. The caller has flushed what it wanted (`close` of the layer above).
    package func shutdown() {
        segments.forEach { id in
            guard !keepsFiles(SegmentTable.device(id)) else { return }
            if segments[id].file >= 0 { driver.close(FileID(segments[id].file)) }
            segments[id].file = -1
        }
        for device in devices where !keepsFiles(device.index) {
            for file in [
                device.manifestFile, device.checkpointFiles.0, device.checkpointFiles.1,
                device.directory,
            ] where file != .none { driver.close(file) }
        }
        namespaces.deallocate()
    }
}

/// The synchronous part of opening.
struct Opener {
    let configuration: LogStoreConfiguration
    let driver: any BlockDriver
    let clock: any Clock
    var opened: [FileID] = []

    private struct Member {
        var path: String
        var directory: FileID
        var names: [String]
        var file: FileID = .none
        var manifest: Manifest?
        var failure: FormatError?
        /// Copies that were written once and do not verify.
        var damagedCopies = 0
    }

    mutating func open() throws(StoreError) -> OpenedStore {
        var members: [Member] = []
        for path in configuration.directories {
            if let member = try openMember(path) { members.append(member) }
        }
        guard !members.isEmpty else {
            throw StoreError(
                .missing, operation: "open",
                subject: configuration.directories.joined(separator: ", "),
                advice: "None of the store's directories can be opened.")
        }
        var newest: Manifest?
        for member in members {
            if let found = member.manifest, found.epoch >= newest?.epoch ?? 0 { newest = found }
        }
        let created = newest == nil
        try refuseUnusable(members, anyManifest: !created)
        var manifest = newest ?? create()
        if configuration.openMode == .fresh && !created { startFresh(&manifest) }
        try checkAgainst(manifest, members, created: created)
        return try assemble(manifest, members, created: created)
    }

    func closeAll() { for file in opened.reversed() { driver.close(file) } }

    // MARK: Members

    /// Nil for a directory that cannot be opened, where absent members are allowed.
    private mutating func openMember(_ path: String) throws(StoreError) -> Member? {
        let directory: FileID
        do {
            directory = try driver.openDirectory(path, create: true)
        } catch {
            if configuration.allowAbsent && configuration.directories.count > 1 { return nil }
            throw Self.translate(
                error, "open", path, "Check that the path exists, is a directory and is yours.")
        }
        opened.append(directory)
        do {
            try driver.lock(directory, holder: configuration.holder)
        } catch {
            throw StoreError(lock: error, directory: path)
        }
        var member: Member
        do {
            member = Member(path: path, directory: directory, names: try driver.list(directory))
        } catch {
            throw Self.translate(error, "list", path, "Check the directory's permissions.")
        }
        if member.names.contains(StoreFiles.manifest) { try readManifest(&member) }
        return member
    }

    private mutating func readManifest(_ member: inout Member) throws(StoreError) {
        do {
            member.file = try driver.open(member.directory, StoreFiles.manifest, .existing)
        } catch {
            throw Self.translate(
                error, "open", member.path + "/manifest", "Check the file's permissions.")
        }
        opened.append(member.file)
        let length = Manifest.copies * Manifest.copyBytes
        let memory = UnsafeMutableRawPointer.allocate(byteCount: length, alignment: 4096)
        memset(memory, 0, length)
        defer { memory.deallocate() }
        // Copies are read one by one: a bad sector takes only its copy.
        for copy in 0..<Manifest.copies {
            let at = memory + copy * Manifest.copyBytes
            let result = transfer(
                .read, member.file, copy * Manifest.copyBytes, at, Manifest.copyBytes)
            let bytes = UnsafeRawBufferPointer(start: at, count: Manifest.copyBytes)
            if result < 0 {
                memset(at, 0, Manifest.copyBytes)
                member.damagedCopies += 1
            } else if (try? Manifest.decode(copy: bytes)) == nil, !bytes.isZero {
                member.damagedCopies += 1
            }
        }
        do {
            member.manifest = try Manifest.newest(
                in: UnsafeRawBufferPointer(start: memory, count: length))
        } catch {
            // Without segments there is nothing to lose: a first opening that was cut short.
            let begun = member.names.contains { StoreFiles.segmentNumber($0) != nil }
            if case .newerFormat = error {
                member.failure = error
            } else if begun {
                member.failure = error
            }
        }
    }

    private func refuseUnusable(
        _ members: [Member], anyManifest: Bool
    ) throws(StoreError) {
        for member in members {
            if let failure = member.failure {
                if case .newerFormat(let word) = failure {
                    throw StoreError(
                        .newerFormat, operation: "open", subject: member.path,
                        advice: "Written by a newer Hearth (feature word \(word)): use that one.")
                }
                if anyManifest && configuration.openMode != .strict { continue }
                if configuration.openMode == .fresh { continue }
                throw StoreError(
                    .damaged, operation: "open", subject: member.path + "/manifest",
                    advice: "No copy of the manifest verifies. Restore it from another member, or "
                        + "open with mode fresh to start empty.")
            }
            let segments = member.names.contains { StoreFiles.segmentNumber($0) != nil }
            let mayJoin = anyManifest && configuration.openMode != .strict
            if member.manifest == nil, segments, !mayJoin, configuration.openMode != .fresh {
                throw StoreError(
                    .damaged, operation: "open", subject: member.path,
                    advice: "Segments but no manifest: restore the manifest, or open with mode "
                        + "fresh to start empty.")
            }
            let strangers = member.names.filter { !Self.isOurs($0) }
            if member.manifest == nil, !segments, member.failure == nil, !strangers.isEmpty {
                throw StoreError(
                    .notAStore, operation: "open", subject: member.path,
                    advice: "The directory holds other files (\(strangers[0])): give Hearth one of "
                        + "its own.")
            }
        }
    }

    /// Names that a directory without a manifest may have in it and still be taken. What owners
    /// leave for tools and for themselves is not among them: it is only ever beside a manifest.
    private static func isOurs(_ name: String) -> Bool {
        name == StoreFiles.manifest || name == StoreFiles.lock || name.hasPrefix("checkpoint-")
            || name.hasPrefix("segment-") || name == "lost+found" || name.hasPrefix(".")
    }

    // MARK: Making and checking manifests

    private func create() -> Manifest {
        var manifest = Manifest()
        manifest.store = Identity128(
            hi: configuration.entropy.0, lo: configuration.entropy.1)
        manifest.secret = SecretKey(k0: configuration.entropy.2, k1: configuration.entropy.3)
        manifest.mode = configuration.mode.rawValue
        manifest.segmentBytes = UInt64(configuration.segmentBytes)
        manifest.maxBlockBytes = UInt64(configuration.maximumBlockBytes)
        manifest.capacityBytes = configuration.capacityBytes
        manifest.membershipEpoch = 1
        manifest.generationLimit = 1
        manifest.versionLimit = 1
        manifest.nextNamespaceInstance = 1
        return manifest
    }

    /// Starts empty under a new secret, which no old page verifies under; counters go on.
    private func startFresh(_ manifest: inout Manifest) {
        manifest.secret = SecretKey(k0: configuration.entropy.2, k1: configuration.entropy.3)
        manifest.namespaces = []
        manifest.segmentBytes = UInt64(configuration.segmentBytes)
        manifest.maxBlockBytes = UInt64(configuration.maximumBlockBytes)
        manifest.mode = configuration.mode.rawValue
    }

    private func checkAgainst(
        _ manifest: Manifest, _ members: [Member], created: Bool
    ) throws(StoreError) {
        guard !created else { return }
        for member in members {
            if let own = member.manifest, own.store != manifest.store {
                throw StoreError(
                    .otherStore, operation: "open", subject: member.path,
                    advice: "This directory belongs to another store: give each store its own.")
            }
        }
        if configuration.openMode == .strict { try refuseDamage(manifest, members) }
        if manifest.mode != configuration.mode.rawValue {
            throw StoreError(
                .configuration, operation: "open", subject: "mode",
                advice: "The store was created in \(manifest.mode == 0 ? "cache" : "store") mode; "
                    + "the mode cannot change.")
        }
        if UInt64(configuration.maximumBlockBytes) > manifest.maxBlockBytes {
            throw StoreError(
                .configuration, operation: "open", subject: "maximumBlockBytes",
                advice: "The store was created for blocks of at most \(manifest.maxBlockBytes) "
                    + "bytes; the limit cannot grow.")
        }
        let away = manifest.devices.filter { record in
            record.state != 2
                && !members.contains { $0.manifest?.thisDevice == record.index }
        }
        if !away.isEmpty && (!configuration.allowAbsent || configuration.openMode == .strict) {
            throw StoreError(
                .missing, operation: "open", subject: "device \(away[0].index)",
                advice: "A member of the store is absent: bring it back, or allow absent members.")
        }
    }

    private func refuseDamage(_ manifest: Manifest, _ members: [Member]) throws(StoreError) {
        for member in members {
            if member.damagedCopies > 0 {
                throw StoreError(
                    .damaged, operation: "open", subject: member.path + "/manifest",
                    advice:
                        "\(member.damagedCopies) of \(Manifest.copies) copies do not verify: open "
                        + "with mode quiet, which writes them anew.")
            }
            if let own = member.manifest, own.membershipEpoch < manifest.membershipEpoch {
                throw StoreError(
                    .damaged, operation: "open", subject: member.path,
                    advice:
                        "The store was opened without this member since: open with mode quiet to "
                        + "take it back as the store's mode allows.")
            }
        }
    }

    // MARK: Putting it together

    private mutating func assemble(
        _ found: Manifest, _ members: [Member], created: Bool
    ) throws(StoreError) -> OpenedStore {
        var manifest = found
        manifest.capacityBytes = configuration.capacityBytes
        var damage = OpenDamage()
        var devices = manifest.devices.map { record in
            var device = Device(index: Int(record.index), path: "", id: record.id)
            device.leave(record.state == 2 ? .struck : .absent)
            return device
        }
        var names: [[String]] = devices.map { _ in [] }
        for member in members {
            var index = devices.count
            var stale = false
            damage.damagedCopies += member.damagedCopies
            if let own = member.manifest, Int(own.thisDevice) < manifest.devices.count {
                index = Int(own.thisDevice)
                stale = own.membershipEpoch < manifest.membershipEpoch
                if stale { damage.staleDevices += 1 }
            } else if member.failure != nil, let only = solitaryAbsent(devices, members) {
                index = only
                damage.manifestCopies += 1
            } else if member.manifest == nil, let own = unclaimedPlace(member, devices, members) {
                // The first opening was cut short before this one had its manifest.
                index = own
            }
            // Of a member that the store was opened without, tombstones tell what was deleted
            // since. What was put anew and evicted again they do not: in cache mode it starts
            // empty.
            let cache = manifest.mode == StoreMode.cache.rawValue
            let struck =
                index < devices.count && devices[index].state == .struck || (stale && cache)
            if index == devices.count {
                guard devices.count < SegmentTable.maximumDevices else {
                    throw StoreError(
                        .configuration, operation: "open", subject: "directories",
                        advice: "A store has at most \(SegmentTable.maximumDevices) devices.")
                }
                devices.append(Device(index: index, path: member.path, id: newID(index)))
                names.append([])
                manifest.devices.append(
                    DeviceRecord(
                        id: devices[index].id, index: UInt8(index), state: 0, segmentCount: 0,
                        membershipEpoch: manifest.membershipEpoch))
            }
            var device = Device(index: index, path: member.path, id: devices[index].id)
            device.directory = member.directory
            device.manifestFile = try manifestFile(member)
            if struck {
                removeSegments(member)
                damage.emptiedDevices += 1
            }
            devices[index] = device
            names[index] = struck ? [] : member.names
        }
        recordMembership(&manifest, devices, &damage)
        let counts = try segmentCounts(manifest, devices, names)
        let segments = SegmentTable(counts: counts)
        segments.forEach { id in
            let state = devices[SegmentTable.device(id)].state
            if state == .absent || state == .struck { segments[id].state = .absent }
        }
        for index in devices.indices where devices[index].state.isPresent {
            devices[index].segmentCount = counts[index]
            try openSegments(devices[index], names[index], segments)
        }
        for index in devices.indices {
            manifest.devices[index].segmentCount = UInt32(counts[index])
        }
        return OpenedStore(
            driver: driver, clock: clock, configuration: configuration, manifest: manifest,
            devices: devices, segments: segments, namespaces: NamespaceTable(manifest.namespaces),
            readOnly: manifest.readOnlyFormat, created: created, damage: damage)
    }

    /// The place of an empty directory in the configuration, if a member of that number is known
    /// and no other directory claims it.
    private func unclaimedPlace(
        _ member: Member, _ devices: [Device], _ members: [Member]
    ) -> Int? {
        guard let place = configuration.directories.firstIndex(of: member.path),
            place < devices.count, devices[place].state == .absent,
            !members.contains(where: { $0.manifest.map { Int($0.thisDevice) } == place })
        else { return nil }
        return place
    }

    /// The one member that no manifest claims, when there is exactly one.
    private func solitaryAbsent(_ devices: [Device], _ members: [Member]) -> Int? {
        let claimed = members.compactMap { $0.manifest.map { Int($0.thisDevice) } }
        let free = devices.indices.filter { !claimed.contains($0) }
        return free.count == 1 ? free[0] : nil
    }

    private func newID(_ index: Int) -> Identity128 {
        let seed = SecretKey(k0: configuration.entropy.1, k1: configuration.entropy.3)
        return SipHash.hash128(seed, UInt64(index), UnsafeRawBufferPointer(start: nil, count: 0))
    }

    /// The membership moves on whenever somebody has left or come back.
    private func recordMembership(
        _ manifest: inout Manifest, _ devices: [Device], _ damage: inout OpenDamage
    ) {
        var changed = false
        for index in devices.indices {
            let state: UInt8 =
                devices[index].state == .absent ? 1 : devices[index].state == .struck ? 2 : 0
            if manifest.devices[index].state != state { changed = true }
            manifest.devices[index].state = state
            if state == 1 { damage.absentDevices += 1 }
        }
        if changed || damage.staleDevices > 0 { manifest.membershipEpoch += 1 }
        for index in devices.indices where manifest.devices[index].state == 0 {
            manifest.devices[index].membershipEpoch = manifest.membershipEpoch
        }
    }

    private mutating func manifestFile(_ member: Member) throws(StoreError) -> FileID {
        if member.manifest != nil && member.file != .none { return member.file }
        if member.file != .none {
            // Left by an opening that was cut short. Its name may never have become durable, and a
            // flush that failed once says nothing when it is tried again: it is made anew.
            driver.close(member.file)
            opened.removeAll { $0 == member.file }
            try? driver.remove(member.directory, StoreFiles.manifest)
        }
        do throws(IOError) {
            let file = try driver.open(member.directory, StoreFiles.manifest, .create)
            opened.append(file)
            let length = UInt64(Manifest.copies * Manifest.copyBytes)
            let piece = Piece(region: .process, offset: 0, length: length)
            let result = control(.allocate, file, piece)
            let synced = control(
                .sync, member.directory, Piece(region: .process, offset: 0, length: 0))
            if result < 0 || synced < 0 {
                throw IOError(
                    operation: "allocate", path: member.path + "/manifest",
                    errno: Int32(truncatingIfNeeded: -min(result, synced)))
            }
            return file
        } catch {
            throw Self.translate(
                error, "create", member.path + "/manifest", "Free space in the file system.")
        }
    }

    private func removeSegments(_ member: Member) {
        for name in member.names where StoreFiles.segmentNumber(name) != nil {
            try? driver.remove(member.directory, name)
        }
    }

    /// Segments of each device: the capacity, less metadata, in equal shares.
    private func segmentCounts(
        _ manifest: Manifest, _ devices: [Device], _ names: [[String]]
    ) throws(StoreError) -> [Int] {
        let metadata = Self.metadataBytes(manifest, configuration, devices: devices.count)
        // A member that is away keeps its share: it may come back.
        let members = devices.count { $0.state != .struck }
        let spendable =
            configuration.capacityBytes > metadata ? configuration.capacityBytes - metadata : 0
        let share = Int(spendable / manifest.segmentBytes) / max(1, members)
        var counts: [Int] = []
        for index in devices.indices {
            if !devices[index].state.isPresent {
                let struck = devices[index].state == .struck
                counts.append(struck ? 0 : min(share, Int(manifest.devices[index].segmentCount)))
                continue
            }
            let highest = names[index].compactMap(StoreFiles.segmentNumber).max() ?? -1
            let least = devices.count == 1 ? 8 : 6
            if share < least {
                throw StoreError(
                    .configuration, operation: "open", subject: "capacityBytes",
                    advice: "Too small: each device needs \(least) segments of "
                        + "\(manifest.segmentBytes) bytes and the store \(metadata) bytes of "
                        + "metadata; give at least "
                        + "\(metadata + UInt64(least * members) * manifest.segmentBytes).")
            }
            if highest >= share && configuration.openMode != .fresh {
                throw StoreError(
                    .configuration, operation: "open", subject: "capacityBytes",
                    advice: "The store already has \(highest + 1) segments on this device; open it "
                        + "with at least "
                        + "\(metadata + UInt64((highest + 1) * members) * manifest.segmentBytes) "
                        + "bytes.")
            }
            counts.append(min(share, SegmentTable.maximumLocal))
        }
        return counts
    }

    /// Bytes of manifests and checkpoints.
    static func metadataBytes(
        _ manifest: Manifest, _ configuration: LogStoreConfiguration, devices: Int
    ) -> UInt64 {
        UInt64(devices * Manifest.copies * Manifest.copyBytes)
            + 2
            * Checkpointer.fileBytes(
                entries: configuration.indexEntries, segments: SegmentTable.maximumLocal)
    }

    private mutating func openSegments(
        _ device: Device, _ names: [String], _ segments: SegmentTable
    ) throws(StoreError) {
        for name in names {
            guard let local = StoreFiles.segmentNumber(name) else { continue }
            let id = SegmentTable.id(device: device.index, local: local)
            guard segments.isValid(id) else {
                // Only after `fresh` with a smaller capacity: nothing in it can be read any more.
                try? driver.remove(device.directory, name)
                continue
            }
            do {
                let file = try driver.open(device.directory, name, .existing)
                opened.append(file)
                segments[id].file = file.raw
                segments[id].state = .sealed
            } catch {
                throw Self.translate(
                    error, "open", device.path + "/" + name, "Check the file's permissions.")
            }
        }
    }

    // MARK: Synchronous transfers

    private func transfer(
        _ operation: IOOperation, _ file: FileID, _ offset: Int,
        _ memory: UnsafeMutableRawPointer, _ length: Int
    ) -> Int64 {
        control(
            operation, file,
            Piece(
                region: .process, offset: UInt64(UInt(bitPattern: memory)), length: UInt64(length)),
            offset: UInt64(offset))
    }

    /// One request, waited for; -ETIMEDOUT after 30 seconds of the store's clock.
    private func control(
        _ operation: IOOperation, _ file: FileID, _ piece: Piece, offset: UInt64 = 0
    ) -> Int64 {
        let request = IORequest(
            tag: 1, operation: operation, file: file, fileOffset: offset, piece: piece)
        guard driver.prepare(request) else { return -Int64(EAGAIN) }
        let limit = clock.monotonic + 30_000_000_000
        return withUnsafeTemporaryAllocation(of: IOCompletion.self, capacity: 1) { buffer in
            driver.submit()
            while clock.monotonic < limit {
                if driver.reap(buffer) == 1 { return buffer[0].result }
                driver.wait(until: limit)
            }
            return -Int64(ETIMEDOUT)
        }
    }

    static func translate(
        _ error: IOError, _ operation: String, _ subject: String, _ advice: String
    ) -> StoreError {
        StoreError(error, operation, subject, advice)
    }
}
