// Repairer: puts a closed store right that verifying found damaged: what is damaged is taken out,
// what tells of blocks is made anew, and everything else stays as it was.
//
// Nearly all of it is done by the store itself. It is opened, as after a crash; tombstones that
// have lost a copy are written anew; damaged blocks are deleted like any other, so that neither
// they nor an older version comes back; the live blocks of segments with a damaged header, footer
// or descriptor page are written anew, as compaction does, and the segments begin a new life; the
// manifest's next epochs and two checkpoints overwrite damaged copies of these. So it may be cut
// short at any moment: each step leaves a store that opens, and the next run goes on from what it
// finds. Outside of the store only pages are written that hold nothing which could be read or used.
//
// A store in which nothing is damaged is not opened for writing at all.

import BlockIO
import LogStore
import SegmentFormat

package struct RepairOptions: Sendable {
    package var verify = VerifyOptions()
    package var allowAbsent = false
    package var holder = "hearth verify --repair"
    package var entropy: (UInt64, UInt64, UInt64, UInt64)
    /// Bytes of blocks under way at once.
    package var bytesInFlight = 32 << 20
    package init(entropy: (UInt64, UInt64, UInt64, UInt64)) { self.entropy = entropy }
}

package final class Repairer {
    /// A round can uncover what the one before could not get at, such as a page that only turns up
    /// once its segment is empty.
    private static let mostRounds = 3
    private static let pageBytes = FormatConstants.pageBytes
    private let directories: [String]
    private let driver: any BlockDriver
    private let clock: any Clock
    private let options: RepairOptions
    private let progress: Verifier.Progress
    private var report = RepairReport()
    /// The lost blocks that are in the report.
    private var told: Set<LostBlock> = []

    /// A store as it was found, with everything that is needed to open it for the work.
    private struct Look {
        var report: VerifyReport
        /// Nil where nothing is damaged.
        var plan: RepairPlan?
        var manifest: Manifest
        var paths: [String]
        var blocks: Int
    }

    private init(
        _ directories: [String], _ driver: any BlockDriver, _ clock: any Clock,
        _ options: RepairOptions, _ progress: @escaping Verifier.Progress
    ) {
        self.directories = directories
        self.driver = driver
        self.clock = clock
        self.options = options
        self.progress = progress
    }

    /// Verifies the store, repairs what is damaged, and verifies it again. `progress` is told bytes
    /// while it verifies and blocks while it moves them. Throws `damaged` where a member cannot be
    /// told by its manifest, and what opening and writing throw.
    package static func run(
        _ directories: [String], driver: any BlockDriver, clock: any Clock,
        options: RepairOptions, progress: @escaping Verifier.Progress = { _, _ in }
    ) throws(StoreError) -> RepairReport {
        let repairer = Repairer(directories, driver, clock, options, progress)
        try repairer.run()
        return repairer.report
    }

    private func run() throws(StoreError) {
        var found = try look()
        report.before = found.report
        while let plan = found.plan, report.rounds < Self.mostRounds, !report.isFull {
            report.rounds += 1
            try work(plan, found)
            found = try look()
        }
        report.after = found.report
    }

    // MARK: While the store is closed

    private func look() throws(StoreError) -> Look {
        let closed = try ClosedStore.open(
            directories, allowAbsent: options.allowAbsent, driver: driver, clock: clock,
            holder: options.holder)
        defer { closed.close() }
        let (found, catalog) = try Verifier.examine(closed, options.verify, progress: progress)
        report.store = Figures.identity(closed.manifest.store)
        var look = Look(
            report: found, plan: nil, manifest: closed.manifest,
            paths: closed.members.compactMap { $0?.path }, blocks: catalog.blocks.count)
        guard !found.isClean else { return look }
        try refuseStrangers(closed)
        var damage = found.damage
        if report.rounds > 0 { damage = blankUnwritten(damage, catalog) }
        let plan = try RepairPlan(damage, catalog)
        if plan.isCheckpointUntrue {
            for dump in catalog.dumps { try blank(dump, closed) }
        } else if report.rounds > 0 {
            // Two checkpoints have been written since: this one is of a member that has none now.
            let paths = Set(damage.filter { $0.structure == .checkpoint }.map(\.path))
            for dump in catalog.dumps where paths.contains(dump.path) { try blank(dump, closed) }
        }
        look.plan = plan
        return look
    }

    /// Opening would take a member without a manifest for a new one where it is not the only one
    /// that is not accounted for.
    private func refuseStrangers(_ closed: ClosedStore) throws(StoreError) {
        guard closed.members.contains(where: { $0 == nil }) else { return }
        for case let member? in closed.members where member.manifest == nil {
            throw StoreError(
                .damaged, operation: "repair", subject: member.path + "/manifest",
                advice: "No copy of the manifest verifies, and other members are away, so it is "
                    + "not sure which one this is. Give the directories of all members, or restore "
                    + "the manifest. Nothing was changed.")
        }
    }

    /// Takes a dump out of use: without header and end page it is none.
    private func blank(_ dump: Dump, _ closed: ClosedStore) throws(StoreError) {
        let errno = closed.io.blank(
            dump.file, offset: 0, length: CheckpointHeader.endOffset + Self.pageBytes)
        guard errno == 0 else {
            throw StoreError(
                .input, operation: "repair", subject: dump.path, errno: errno,
                advice: "The checkpoint cannot be written: check the file and its device.")
        }
    }

    /// Pages behind everything that was written in a segment, and that cannot be read: zeros are
    /// written over them. What is left is returned.
    private func blankUnwritten(_ damage: [Finding], _ catalog: Catalog) -> [Finding] {
        let segments = Dictionary(uniqueKeysWithValues: catalog.segments.map { ($0.id, $0) })
        let last = ClosedStore.offset(page: catalog.store.segmentPages - 1)
        let io = catalog.store.io
        let buffer = PageBuffer(bytes: Self.pageBytes)
        return damage.filter { finding in
            guard finding.structure == .descriptor,
                let info = finding.segment.flatMap({ segments[$0] }), info.generation != 0,
                info.life?.trailer == nil,
                finding.offset >= UInt64(max(1, info.writtenPages) * Self.pageBytes),
                finding.length == UInt64(Self.pageBytes), finding.offset < last,
                let file = try? catalog.store.file(info.id),
                io.read(file, offset: finding.offset, into: buffer.base, length: buffer.count) != 0
            else { return true }
            return io.blank(file, offset: finding.offset, length: Self.pageBytes) != 0
        }
    }

    // MARK: In the open store

    private func work(_ plan: RepairPlan, _ found: Look) throws(StoreError) {
        let store = try PumpedStore(
            found.manifest, found.paths, blocks: found.blocks, driver: driver, clock: clock,
            holder: options.holder, entropy: options.entropy, rewriting: true,
            leaving: plan.condemned)
        do throws(StoreError) {
            try heal(plan, store)
        } catch {
            try? store.close()
            throw error
        }
        try store.close()
    }

    /// The order matters: nothing is recycled before what it holds is safe elsewhere.
    private func heal(_ plan: RepairPlan, _ store: PumpedStore) throws(StoreError) {
        try guardAgain(plan, store)
        note(plan.gone)
        try remove(
            plan.damaged.compactMap { block -> Removal? in
                block.lost.key.map { (block.fingerprint, block.slot, $0, block.lost) }
            }, store)
        store.log.leaveSegments()
        try move(plan, store)
        _ = store.recycle()
        report.segments += plan.condemned.count - store.log.segmentsToLeave.count
        if plan.rewritesManifest {
            // Each epoch is written to two of the four copies.
            for _ in 0..<2 { try store.demand("manifest") { $0.raiseVersions(token: $1, past: 0) } }
        }
        // The other one is made when the store is closed.
        if plan.rewritesCheckpoints { try store.demand("checkpoint") { $0.checkpoint(token: $1) } }
    }

    private func guardAgain(_ plan: RepairPlan, _ store: PumpedStore) throws(StoreError) {
        let outcomes = store.askAll(plan.guards) { log, token, each in
            each.killer.key.withUnsafeBytes { key in
                log.guardAgain(
                    token: token, fingerprint: each.fingerprint,
                    namespaceSlot: each.killer.namespaceSlot, key: key,
                    version: each.killer.version, supersede: each.killer.isSupersede)
            }
        }
        for outcome in outcomes where outcome.status != .notFound {
            guard outcome.status == .stored else { throw Self.failure(outcome) }
            report.guarded += 1
        }
    }

    private typealias Removal = (
        fingerprint: Fingerprint, slot: UInt16, key: [UInt8], lost: LostBlock
    )

    /// Deletes blocks for good.
    private func remove(_ blocks: [Removal], _ store: PumpedStore) throws(StoreError) {
        let outcomes = store.askAll(blocks) { log, token, block in
            block.key.withUnsafeBytes { key in
                log.delete(
                    token: token, fingerprint: block.fingerprint, namespaceSlot: block.slot,
                    key: key)
            }
        }
        for (block, outcome) in zip(blocks, outcomes) {
            guard outcome.status == .deleted || outcome.status == .notFound else {
                throw Self.failure(outcome)
            }
            note([block.lost])
        }
    }

    private func note(_ blocks: [LostBlock]) {
        for block in blocks where told.insert(block).inserted { report.lost.append(block) }
    }

    private static func failure(_ outcome: Outcome) -> StoreError {
        StoreError(
            outcome.errno == 28 || outcome.status == .noSpace ? .noSpace : .input,
            operation: "repair", subject: "the store", errno: outcome.errno,
            advice:
                "A tombstone could not be written (\(outcome.status)). What was repaired before "
                + "stays; run it again.")
    }

    // MARK: Moving

    /// Writes the live blocks of condemned segments anew, those without a record too where their
    /// keys were found; the others leave the store.
    private func move(_ plan: RepairPlan, _ store: PumpedStore) throws(StoreError) {
        var order = plan.order
        let damaged = Set(plan.damaged.map(\.fingerprint))
        for orphan in plan.orphans {
            guard let key = orphan.key, let pages = pages(of: orphan, key, store) else { continue }
            order.add(orphan.fingerprint, orphan.block, pages: pages, key: key)
        }
        let numbers = order.sorted(by: .none).filter {
            !damaged.contains(order.blocks[$0].fingerprint)
        }
        var window = RewriteWindow(bytes: options.bytesInFlight)
        let all = UInt64(numbers.count)
        let ended = window.carry(all: numbers, order, store) { progress(UInt64($0), all) }
        report.moved += ended.moved
        report.movedBytes += ended.bytes
        report.isFull = ended.isFull
        guard !ended.isFull else { return }
        try dropOrphans(plan, store)
    }

    /// What is left of the orphans: those whose keys nothing tells, and those that are not whole.
    private func dropOrphans(_ plan: RepairPlan, _ store: PumpedStore) throws(StoreError) {
        var removals: [Removal] = []
        for orphan in plan.orphans {
            let entry = store.log.index.find(orphan.fingerprint)
            if let entry, !plan.condemned.contains(entry.place.segment) { continue }
            let device = SegmentTable.device(orphan.block.segment)
            guard store.log.devices[device].takesWrites else {
                throw StoreError(
                    .input, operation: "repair", subject: orphan.lost.path,
                    advice: "Its device takes no more requests: what was repaired before stays.")
            }
            if let key = orphan.key {
                removals.append((orphan.fingerprint, orphan.block.slot, key, orphan.lost))
            } else {
                store.log.forget(orphan.fingerprint)
                note([orphan.lost])
            }
        }
        try remove(removals, store)
    }

    /// Pages of an orphan's stored image; of aligned shards only their table tells. Nil if it is
    /// not in the index, or its table is not whole.
    private func pages(of orphan: Orphan, _ key: [UInt8], _ store: PumpedStore) -> UInt32? {
        guard let entry = store.log.index.find(orphan.fingerprint),
            entry.place == Place(segment: orphan.block.segment, page: orphan.block.page)
        else { return nil }
        if store.log.imageBytes(orphan.fingerprint, entry) == nil {
            key.withUnsafeBytes { key in
                let token = store.token()
                while !store.log.loadTable(
                    token: token, fingerprint: orphan.fingerprint,
                    namespaceSlot: entry.namespaceSlot, key: key, entry: entry)
                { store.pump() }
                _ = store.outcome(of: token)
            }
        }
        return store.log.imageBytes(orphan.fingerprint, entry).map {
            UInt32($0 / Self.pageBytes)
        }
    }
}
