// OpenStore: a store that another process has open, seen through the memory that its owner shares:
// the index, the residents and the ghosts, found by the descriptors that the owner's page names,
// mapped read-only and read without a lock. The owner does not notice, and takes no harm from a
// reader that dies.
//
// The names of the mappings and the process's start are looked at as well as the page, which is
// read once more when all is mapped: so a descriptor that got another meaning meanwhile is found
// out. What is told is true of one moment.

import BlockIO
import Glibc
import LogStore
import SegmentFormat
import Staging

package final class OpenStore {
    package let manifest: Manifest
    private let directory: String
    private let index: IndexReader
    private let residents: ResidentReader?
    private let ghosts: GhostReader
    private let mappings: [ForeignMapping]

    /// Looks into the process that has the store open.
    package init(_ page: OwnerPage, clock: any Clock) throws(StoreError) {
        directory = page.directory
        guard page.owner == .running else {
            throw StoreError(
                .input, operation: "explain", subject: page.directory,
                advice: "Its owner runs in another container: ask there.")
        }
        manifest = try Self.manifest(page)
        let owner = page.page
        let descriptors = owner.descriptors
        let index = try ForeignMapping(owner, descriptors.index, "hearth-index")
        let ghosts = try ForeignMapping(owner, descriptors.ghosts, "hearth-ghosts")
        var made = [index, ghosts]
        guard
            let indexReader = IndexReader(
                base: UnsafeRawPointer(index.base), length: index.length),
            let ghostReader = GhostReader(base: ghosts.base, length: ghosts.length)
        else { throw Self.unreadable(page.directory) }
        self.index = indexReader
        self.ghosts = ghostReader
        if descriptors.residents >= 0 {
            let table = try ForeignMapping(owner, descriptors.residents, "hearth-residents")
            made.append(table)
            // Of the slabs nothing is read: their place is never looked at.
            guard
                let reader = ResidentReader(
                    table: table.base, length: table.length, arena: UnsafeRawPointer(table.base),
                    arenaLength: Int.max)
            else { throw Self.unreadable(page.directory) }
            residents = reader
        } else {
            residents = nil
        }
        mappings = made
        let again = try OwnerPage.read(page.directory, clock: clock)
        guard again.owner == .running, again.page.process == owner.process,
            again.page.processStart == owner.processStart,
            again.page.descriptors == descriptors, again.page.sequence >= owner.sequence
        else {
            throw StoreError(
                .closed, operation: "explain", subject: page.directory,
                advice: "Its owner closed it just now: try again.")
        }
    }

    private static func unreadable(_ directory: String) -> StoreError {
        StoreError(
            .newerFormat, operation: "explain", subject: directory,
            advice: "The owner's memory is laid out in another way: use the hearth of the engine's "
                + "Hearth.")
    }

    /// The manifest tells the secret and the namespaces. Its owner may be writing one copy; the one
    /// before is whole.
    private static func manifest(_ page: OwnerPage) throws(StoreError) -> Manifest {
        let path = page.directory + "/" + StoreFiles.manifest
        let bytes: [UInt8]
        do {
            bytes = try SmallFile.read(path, room: Manifest.copies * Manifest.copyBytes)
        } catch {
            throw StoreError(error, "open", path, "Check the file's permissions.")
        }
        let found: Result<Manifest, FormatError> = bytes.withUnsafeBytes { bytes in
            do throws(FormatError) {
                return .success(try Manifest.newest(in: bytes))
            } catch {
                return .failure(error)
            }
        }
        guard case .success(let manifest) = found, manifest.store == page.page.store else {
            throw StoreError(
                .damaged, operation: "open", subject: path,
                advice: "No copy of the manifest verifies, or it is another store's.")
        }
        return manifest
    }

    /// The live namespaces.
    package var namespaces: [NamespaceRecord] {
        manifest.namespaces.filter { $0.state == NamespaceRecord.live }
            .sorted { $0.instance < $1.instance }
    }

    /// What is known of a key in one namespace, at unix seconds `now`.
    package func explain(
        _ key: [UInt8], in space: NamespaceRecord, now: UInt32
    ) -> KeyExplanation {
        let fingerprint = key.withUnsafeBytes {
            Fingerprint.of(manifest.secret, instance: space.instance, key: $0)
        }
        var made = KeyExplanation(key: key, space: space, now: now)
        made.staging = residents?.look(StagingKey(hi: fingerprint.hi, lo: fingerprint.lo))
            .map { .init($0) }
        switch index.lookup(fingerprint) {
        case .found(let entry):
            made.device = .init(entry)
            let device = SegmentTable.device(entry.place.segment)
            let file = StoreFiles.segment(SegmentTable.local(entry.place.segment))
            made.device?.file =
                device == Int(manifest.thisDevice)
                ? directory + "/" + file : file + " of member \(device)"
        case .absent: break
        case .unknown: made.isUnknown = true
        }
        made.departure = ghosts.find(fingerprint)
        return made
    }
}

/// A mapping of another process, here read-only; ends with its last reference.
private final class ForeignMapping {
    let base: UnsafeMutableRawPointer
    let length: Int

    init(_ owner: StatisticsPage, _ descriptor: Int32, _ name: String) throws(StoreError) {
        let path = "/proc/\(owner.process)/fd/\(descriptor)"
        func refusal(_ kind: StoreError.Kind, _ number: Int32, _ advice: String) -> StoreError {
            StoreError(kind, operation: "map", subject: path, errno: number, advice: advice)
        }
        var target = [CChar](repeating: 0, count: 256)
        let count = readlink(path, &target, target.count)
        guard count > 0 else {
            let number = errno
            let isForeign = number == EACCES || number == EPERM
            throw refusal(
                isForeign ? .permission : .closed, number,
                isForeign
                    ? "Only user \(owner.user), who runs the owner, and root may look into it."
                    : "The owner closed the store just now: try again.")
        }
        let link = String(
            decoding: target[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
        // Of huge pages some kernels do not tell the name; what lies there says what it is.
        guard link.hasPrefix("/memfd:" + name) || link.hasPrefix("/anon_hugepage") else {
            throw refusal(.closed, 0, "The owner closed the store just now: try again.")
        }
        let file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard file >= 0 else {
            throw refusal(.permission, errno, "The owner's memory cannot be opened from here.")
        }
        defer { _ = Glibc.close(file) }
        var found = stat()
        guard fstat(file, &found) == 0, found.st_size > 0,
            let address = mmap(nil, Int(found.st_size), PROT_READ, MAP_SHARED, file, 0),
            address != UnsafeMutableRawPointer(bitPattern: -1)
        else { throw refusal(.resource, errno, "The owner's memory cannot be mapped here.") }
        base = address
        length = Int(found.st_size)
    }

    deinit { munmap(base, length) }
}
