// ClosedStore: a store that nobody has open, seen from outside: its members found and locked, their
// manifests read copy by copy, its segments' files. It writes nothing but the text in LOCK.
//
// Invariants: the locks of all members are held from open to close; a member's place in the store
// comes from its manifest, not from the order in which the directories were given.

import BlockIO
import Glibc
import LogStore
import SegmentFormat

package final class ClosedStore {
    /// One copy of a member's manifest, as it was found.
    package enum Copy: Equatable, Sendable {
        /// Never written.
        case blank
        case whole(epoch: UInt64)
        case damaged
        case unreadable(errno: Int32)
    }

    package struct Member {
        package var index: Int
        package var path: String
        package var directory: FileID
        package var names: [String]
        package var manifest: Manifest?
        package var copies: [Copy] = []
        /// The store was opened without it since.
        package var isStale = false
    }

    package let manifest: Manifest
    /// By number; nil for one that is not here.
    package let members: [Member?]
    package let io: OfflineIO
    /// What was found on the way, all of it about manifests and members.
    package let findings: [Finding]
    package let segmentPages: UInt32
    /// Ids of the segments that have a file, rising.
    package let segmentIDs: [UInt32]
    private var files: [UInt32: FileID] = [:]
    private var opened: [FileID]
    /// Live namespaces by instance.
    package let namespaces: [UInt64: NamespaceRecord]

    private init(_ opener: ClosedStoreOpener, _ manifest: Manifest, _ members: [Member?]) {
        self.manifest = manifest
        self.members = members
        io = opener.io
        opened = opener.opened
        segmentPages = UInt32(
            truncatingIfNeeded: manifest.segmentBytes / UInt64(FormatConstants.pageBytes))
        var found = opener.findings
        var ids: [UInt32] = []
        for case let member? in members {
            if member.isStale && manifest.mode == StoreMode.cache.rawValue { continue }
            let count = Int(manifest.devices[member.index].segmentCount)
            for name in member.names {
                // A name that merely reads as a number, such as "+0001", is nobody's.
                guard let local = StoreFiles.segmentNumber(name), local >= 0,
                    StoreFiles.segment(local) == name
                else { continue }
                if local < count {
                    ids.append(SegmentTable.id(device: member.index, local: local))
                } else {
                    found.append(
                        Finding(
                            .file, path: member.path + "/" + name, offset: 0, length: 0,
                            "beyond the member's \(count) segments: not part of the store",
                            severity: .note))
                }
            }
        }
        findings = found
        segmentIDs = ids.sorted()
        namespaces = Dictionary(
            manifest.namespaces.filter { $0.state == NamespaceRecord.live }
                .map { ($0.instance, $0) }, uniquingKeysWith: { one, _ in one })
    }

    /// Finds and locks the members in these directories, in whatever order they are given.
    package static func open(
        _ directories: [String], allowAbsent: Bool = false, driver: any BlockDriver,
        clock: any Clock, holder: String
    ) throws(StoreError) -> ClosedStore {
        var opener = ClosedStoreOpener(
            io: OfflineIO(driver: driver, clock: clock), holder: holder, allowAbsent: allowAbsent)
        do throws(StoreError) {
            let (manifest, members) = try opener.open(directories)
            return ClosedStore(opener, manifest, members)
        } catch {
            opener.closeAll()
            throw error
        }
    }

    /// Closes files and gives the locks back.
    package func close() {
        for file in files.values { io.driver.close(file) }
        for file in opened.reversed() { io.driver.close(file) }
        files = [:]
        opened = []
    }

    // MARK: Segments

    package func path(_ segment: UInt32) -> String {
        let member = members[SegmentTable.device(segment)]
        return (member?.path ?? "?") + "/" + StoreFiles.segment(SegmentTable.local(segment))
    }

    /// Opens a segment's file when it is first asked for.
    package func file(_ segment: UInt32) throws(StoreError) -> FileID {
        if let file = files[segment] { return file }
        let path = path(segment)
        guard let member = members[SegmentTable.device(segment)] else {
            throw StoreError(
                .missing, operation: "open", subject: path, advice: "Its member is not here.")
        }
        do {
            let file = try io.driver.open(
                member.directory, StoreFiles.segment(SegmentTable.local(segment)), .existing)
            files[segment] = file
            return file
        } catch {
            throw StoreError(error, "open", path, "Check the file's permissions.")
        }
    }

    /// Opens another file of a member; nil when there is none.
    package func openFile(_ member: Member, _ name: String) throws(StoreError) -> FileID? {
        guard member.names.contains(name) else { return nil }
        do {
            let file = try io.driver.open(member.directory, name, .existing)
            opened.append(file)
            return file
        } catch {
            throw StoreError(
                error, "open", member.path + "/" + name, "Check the file's permissions.")
        }
    }

    package func context(_ segment: UInt32, generation: UInt64) -> PageContext {
        PageContext(
            secret: manifest.secret, store: manifest.store, segment: segment,
            generation: generation)
    }

    package static func offset(page: UInt32) -> UInt64 {
        UInt64(page) * UInt64(FormatConstants.pageBytes)
    }

    /// The index's name of a key.
    package func fingerprint(instance: UInt64, _ key: UnsafeRawBufferPointer) -> Fingerprint {
        Fingerprint.of(manifest.secret, instance: instance, key: key)
    }
}

/// The way to a closed store; what it has opened it closes when it fails.
struct ClosedStoreOpener {
    let io: OfflineIO
    let holder: String
    let allowAbsent: Bool
    var opened: [FileID] = []
    var findings: [Finding] = []

    init(io: OfflineIO, holder: String, allowAbsent: Bool) {
        self.io = io
        self.holder = holder
        self.allowAbsent = allowAbsent
    }

    func closeAll() { for file in opened.reversed() { io.driver.close(file) } }

    mutating func open(
        _ directories: [String]
    ) throws(StoreError) -> (Manifest, [ClosedStore.Member?]) {
        guard !directories.isEmpty else {
            throw StoreError(
                .configuration, operation: "open", subject: "directories",
                advice: "Give the store's directory, or one for each of its members.")
        }
        var found: [ClosedStore.Member] = []
        let paths = directories.map { path in
            // A lock that is our own would be a puzzling answer to "a" and "a/".
            String(path.prefix { $0 == "/" }) + path.split(separator: "/").joined(separator: "/")
        }
        for (place, path) in directories.enumerated() {
            if paths[..<place].contains(paths[place]) {
                throw StoreError(
                    .configuration, operation: "open", subject: path,
                    advice: "The directory is given twice.")
            }
            found.append(try openMember(path))
        }
        let whole = found.compactMap(\.manifest)
        guard let newest = whole.max(by: { $0.epoch < $1.epoch }) else {
            throw StoreError(
                .damaged, operation: "open", subject: found[0].path + "/manifest",
                advice: "No copy of the manifest verifies, and without its secret nothing else can "
                    + "be read. Restore it, or open the store with mode fresh to start empty.")
        }
        return (newest, try place(found, newest))
    }

    private mutating func openMember(_ path: String) throws(StoreError) -> ClosedStore.Member {
        let directory: FileID
        do {
            directory = try io.driver.openDirectory(path, create: false)
        } catch {
            if error.errno == ENOTDIR {
                throw StoreError(
                    .notAStore, operation: "open", subject: path, errno: error.errno,
                    advice: "It is no directory: give the store's directory.")
            }
            throw StoreError(
                error, "open", path,
                error.errno == ENOENT
                    ? "There is no such directory." : "Check the directory's permissions.")
        }
        opened.append(directory)
        var member = ClosedStore.Member(index: -1, path: path, directory: directory, names: [])
        do {
            member.names = try io.driver.list(directory)
        } catch {
            throw StoreError(error, "list", path, "Check the directory's permissions.")
        }
        let begun = member.names.contains { StoreFiles.segmentNumber($0) != nil }
        guard member.names.contains(StoreFiles.manifest) || begun else {
            throw StoreError(
                .notAStore, operation: "open", subject: path,
                advice: "No Hearth store: it holds no manifest and no segments.")
        }
        do {
            try io.driver.lock(directory, holder: holder)
        } catch {
            throw StoreError(lock: error, directory: path)
        }
        try readManifest(&member)
        return member
    }

    private mutating func readManifest(_ member: inout ClosedStore.Member) throws(StoreError) {
        let path = member.path + "/" + StoreFiles.manifest
        guard member.names.contains(StoreFiles.manifest) else {
            findings.append(
                Finding(.manifest, path: path, offset: 0, length: 0, "the file is missing"))
            return
        }
        let file: FileID
        do {
            file = try io.driver.open(member.directory, StoreFiles.manifest, .existing)
        } catch {
            throw StoreError(error, "open", path, "Check the file's permissions.")
        }
        opened.append(file)
        let buffer = PageBuffer(bytes: Manifest.copyBytes)
        for number in 0..<Manifest.copies {
            let errno = io.read(
                file, offset: UInt64(number * Manifest.copyBytes), into: buffer.base,
                length: Manifest.copyBytes)
            if errno != 0 {
                member.copies.append(.unreadable(errno: errno))
                continue
            }
            if buffer.bytes.isZero {
                member.copies.append(.blank)
                continue
            }
            do throws(FormatError) {
                let made = try Manifest.decode(copy: buffer.bytes)
                member.copies.append(.whole(epoch: made.epoch))
                if made.epoch > member.manifest?.epoch ?? 0 || member.manifest == nil {
                    member.manifest = made
                }
            } catch {
                if case .newerFormat(let word) = error {
                    throw StoreError(
                        .newerFormat, operation: "open", subject: member.path,
                        advice: "Written by a newer Hearth (feature word \(word)): use that one.")
                }
                member.copies.append(.damaged)
            }
        }
    }

    /// Puts each member into its place, and tells what is wrong with their manifests.
    private mutating func place(
        _ found: [ClosedStore.Member], _ manifest: Manifest
    ) throws(StoreError) -> [ClosedStore.Member?] {
        var members = [ClosedStore.Member?](repeating: nil, count: manifest.devices.count)
        var unclaimed: [ClosedStore.Member] = []
        for var member in found {
            guard let own = member.manifest else {
                unclaimed.append(member)
                continue
            }
            guard own.store == manifest.store else {
                throw StoreError(
                    .otherStore, operation: "open", subject: member.path,
                    advice: "This directory belongs to another store than the others.")
            }
            let index = Int(own.thisDevice)
            guard index < members.count, members[index] == nil else {
                throw StoreError(
                    .configuration, operation: "open", subject: member.path,
                    advice: "It is member \(index) of the store, as is another directory given: a "
                        + "copy, or the same one by another path.")
            }
            member.index = index
            member.isStale = own.membershipEpoch < manifest.membershipEpoch
            judge(member, manifest)
            members[index] = member
        }
        let free = members.indices.filter {
            members[$0] == nil && manifest.devices[$0].state != DeviceRecord.struck
        }
        for var member in unclaimed {
            // Its number stood in its manifest: with one place free, it can only be that one.
            guard free.count == 1, unclaimed.count == 1 else {
                throw StoreError(
                    .damaged, operation: "open", subject: member.path + "/manifest",
                    advice: "No copy of the manifest verifies, so which member it is cannot be "
                        + "told. Leave it out with --allow-absent, or restore it.")
            }
            member.index = free[0]
            judge(member, manifest)
            members[free[0]] = member
        }
        for index in members.indices where members[index] == nil {
            try absent(index, manifest)
        }
        return members
    }

    private mutating func absent(_ index: Int, _ manifest: Manifest) throws(StoreError) {
        if manifest.devices[index].state == DeviceRecord.struck { return }
        let count = manifest.devices.count
        guard allowAbsent || manifest.devices[index].state == DeviceRecord.absent else {
            throw StoreError(
                .missing, operation: "open", subject: "member \(index) of \(count)",
                advice: "Give the directories of all members, or --allow-absent to go on without.")
        }
        findings.append(
            Finding(
                .member, path: "member \(index)", offset: 0, length: 0,
                "absent: nothing is said of its blocks", severity: .note))
    }

    private mutating func judge(_ member: ClosedStore.Member, _ manifest: Manifest) {
        let path = member.path + "/" + StoreFiles.manifest
        let epoch = member.manifest?.epoch ?? 0
        for (number, copy) in member.copies.enumerated() {
            var text: String?
            var severity = Finding.Severity.damage
            switch copy {
            case .damaged: text = "copy \(number) does not verify"
            case .unreadable(let errno): text = "copy \(number) cannot be read, errno \(errno)"
            case .blank:
                // Both places of an epoch are written together, each epoch in its turn.
                let twin = member.copies[Manifest.twin(of: number)]
                if twin != .blank || (epoch > 1 && manifest.devices.count == 1) {
                    text = "copy \(number) is blank"
                }
            case .whole(let own):
                if case .whole(let other) = member.copies[Manifest.twin(of: number)], own < other {
                    text = "copy \(number) is of epoch \(own), its twin of \(other)"
                    severity = .note
                }
            }
            guard let text else { continue }
            findings.append(
                Finding(
                    .manifest, path: path, offset: UInt64(number * Manifest.copyBytes),
                    length: UInt64(Manifest.copyBytes), text, severity: severity))
        }
        if member.isStale {
            findings.append(
                Finding(
                    .member, path: member.path, offset: 0, length: 0,
                    "the store was opened without this member since", severity: .note))
        }
    }
}
