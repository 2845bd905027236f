// Scrubber: reads what lies on the devices and nobody may have asked for in a long time, at a set
// rate, and takes out what has rotted before it is needed: a sealed segment's header and trailer,
// its footer, every block in it that is alive, and the descriptor pages of its groups; then the
// next segment, round and round over all devices. One read at a time, behind everything else.
//
// Invariants: what fails is read once more before it counts; a block leaves the index only while
// the index has it where it was read; a segment that is read is not recycled, and one that has
// begun another life meanwhile is left.

import BlockIO
import SegmentFormat

package struct ScrubStatistics: Sendable, Equatable {
    /// Bytes read.
    package var bytes: UInt64 = 0
    /// Live blocks checked, and segments gone through.
    package var blocks: UInt64 = 0
    package var segments: UInt64 = 0
    /// Times that all of them were.
    package var passes: UInt64 = 0
    /// Blocks found rotten, and pages of headers, footers and descriptors.
    package var damagedBlocks: UInt64 = 0
    package var damagedPages: UInt64 = 0
    package init() {}
}

enum ScrubPhase: UInt8 {
    /// Between two segments.
    case resting
    case ends
    case footer
    case records
    case block
    case groups
}

struct Scrubber {
    /// Pages of descriptors read at once; also the two ends of a segment.
    static let pages = 8
    /// For images up to this size memory is kept.
    static let imageBytes = 1 << 20
    /// How long it waits for a device that is busy before it looks again, and how often it does so
    /// before it takes its turn all the same.
    static let pause: UInt64 = 2_000_000
    static let patience = 50
    /// Between two reads at least, whatever the rate: the device and the owner have a breath.
    static let breath: UInt64 = 100_000
    /// Between two looks at a store that has nothing to read.
    static let rest: UInt64 = 1_000_000_000

    var phase = ScrubPhase.resting
    /// The segment, and its life. Between two segments, the one that is next if it is sealed.
    var segment: UInt32 = 0
    var generation: UInt64 = 0
    /// Monotonic time before which nothing is read.
    var nextAt: UInt64 = 0
    var postponed = 0
    var isStopped = false
    /// Something has been found to read since the last turn over all segments began.
    var foundAny = false

    // The read under way
    var parts: Int32 = 0
    var errno: Int32 = 0
    var holds: UInt32 = 0
    /// What is read is read for the second time.
    var isRetry = false

    // Where in the segment
    var nextPage: UInt32 = 0
    var pagesRead = 0
    var page = 0
    var record = 0
    var scan: SegmentScan?
    /// The groups tell of the blocks, since the footer does not.
    var scanVisits = false
    var scanRecords: UInt32 = 0
    var scanRetried = false

    // The block that is read
    var fingerprint = Fingerprint(hi: 0, lo: 0)
    var entry = IndexEntry.none
    var keyLength = 0
    var blockBytes = 0
    /// Its first page, in the scan's order: what is behind has been looked at.
    var checkedPage: UInt32 = 0
    var large: UnsafeMutableRawPointer?

    /// Made when it is first needed: descriptor pages, the key, an image.
    var memory: UnsafeMutableRawPointer?
    static let keyOffset = pages * FormatConstants.pageBytes
    static let imageOffset = keyOffset + FormatConstants.pageBytes
    static let memoryBytes = imageOffset + imageBytes

    var isReading: Bool { parts > 0 }

    mutating func deallocate() {
        memory?.deallocate()
        large?.deallocate()
    }
}

extension LogStore {
    private static let pageBytes = FormatConstants.pageBytes

    // MARK: Each turn

    func advanceScrub() {
        guard configuration.scrubBytesPerSecond > 0, !scrub.isReading, !scrub.isStopped else {
            return
        }
        let now = clock.monotonic
        guard now >= scrub.nextAt else { return }
        if scrub.phase == .resting {
            guard chooseForScrub(now) else { return }
        }
        guard isScrubbable(scrub.segment), segments[scrub.segment].generation == scrub.generation
        else {
            leaveScrubbed()
            return
        }
        if isBusyInFront(SegmentTable.device(scrub.segment)), scrub.postponed < Scrubber.patience {
            scrub.postponed += 1
            scrub.nextAt = now + Scrubber.pause
            return
        }
        scrub.postponed = 0
        stepScrub()
    }

    /// Nothing is read or discarded for its own sake any more.
    package func stopBackground() {
        scrub.isStopped = true
        discard.isStopped = true
    }

    /// When the scrubber wants to be called next.
    var nextScrub: UInt64 {
        guard configuration.scrubBytesPerSecond > 0, !scrub.isStopped, !scrub.isReading else {
            return UInt64.max
        }
        return scrub.nextAt
    }

    /// What has no life, since no end of it told one at the opening, has nothing to be read.
    private func isScrubbable(_ id: UInt32) -> Bool {
        let device = SegmentTable.device(id)
        return device < devices.count && devices[device].state == .healthy
            && SegmentTable.local(id) < segments.counts[device] && segments[id].state == .sealed
            && segments[id].generation != 0 && segments[id].groupsInFlight == 0
            && segments[id].file >= 0
    }

    /// Whether anybody else has something to do on the device.
    func isBusyInFront(_ device: Int) -> Bool {
        isPaced(device) || !pacers[device].queue.isEmpty || !pacers[device].later.isEmpty
            || pacers[device].underWay > 0
    }

    /// Goes on to the next sealed segment, over the end to the first one. False: there is none.
    private func chooseForScrub(_ now: UInt64) -> Bool {
        var id = scrub.segment
        for _ in 0..<totalSegments + devices.count + 1 {
            if isScrubbable(id) {
                beginScrub(id)
                return true
            }
            id = segmentAfter(id)
        }
        scrub.nextAt = now + Scrubber.rest
        return false
    }

    /// The next one, of the next device behind the last; counts the passes.
    private func segmentAfter(_ id: UInt32) -> UInt32 {
        let device = SegmentTable.device(id)
        if device < devices.count, SegmentTable.local(id) + 1 < segments.counts[device] {
            return id + 1
        }
        if device + 1 < devices.count { return SegmentTable.id(device: device + 1, local: 0) }
        if scrub.foundAny { statistics.scrub.passes += 1 }
        scrub.foundAny = false
        return 0
    }

    private func beginScrub(_ id: UInt32) {
        scrub.segment = id
        scrub.generation = segments[id].generation
        scrub.foundAny = true
        scrub.isRetry = false
        scrub.scan = nil
        scrub.scanVisits = segments[id].footerPages == 0
        scrub.scanRetried = false
        scrub.phase = .ends
        if scrub.memory == nil {
            scrub.memory = .allocate(byteCount: Scrubber.memoryBytes, alignment: 4096)
        }
    }

    /// The segment has been gone through, or is not what it was.
    private func leaveScrubbed() {
        scrub.large?.deallocate()
        scrub.large = nil
        scrub.phase = .resting
        scrub.segment = segmentAfter(scrub.segment)
    }

    private func stepScrub() {
        guard let memory = scrub.memory else { return }
        switch scrub.phase {
        case .resting: break
        case .ends:
            readForScrub([(0, 1, memory), (segmentPages - 1, 1, memory + Self.pageBytes)])
        case .footer: readFooterForScrub(memory)
        case .records: visitFooter(memory)
        case .block: readBlockForScrub()
        case .groups: visitGroups(memory)
        }
    }

    // MARK: Reading

    private func readForScrub(
        _ stretches: [(page: UInt32, count: Int, to: UnsafeMutableRawPointer)]
    ) {
        let device = SegmentTable.device(scrub.segment)
        scrub.errno = 0
        var bytes = 0
        for stretch in stretches {
            segments[scrub.segment].readers += 1
            scrub.holds += 1
            bytes += stretch.count * Self.pageBytes
            // None ends before this returns.
            scrub.parts += issueLater(
                IORequest(
                    tag: Self.tag(.scrub, 0), operation: .read, file: file(scrub.segment),
                    fileOffset: Self.offset(page: stretch.page),
                    piece: Piece(
                        region: .process, offset: UInt64(UInt(bitPattern: stretch.to)),
                        length: UInt64(stretch.count * Self.pageBytes))), device)
        }
        statistics.scrub.bytes += UInt64(bytes)
        let now = clock.monotonic
        // What was not read in time is not made up for.
        let cost = UInt64(Double(bytes) / Double(configuration.scrubBytesPerSecond) * 1e9)
        scrub.nextAt = max(scrub.nextAt, now) + cost
    }

    func scrubRead(_ completion: IOCompletion) {
        let device = SegmentTable.device(scrub.segment)
        pacedEnded(device)
        if completion.result < 0 { scrub.errno = Int32(truncatingIfNeeded: -completion.result) }
        scrub.parts -= 1
        guard scrub.parts == 0, let memory = scrub.memory else { return }
        segments[scrub.segment].readers -= Int32(scrub.holds)
        scrub.holds = 0
        scrub.nextAt = max(scrub.nextAt, clock.monotonic + Scrubber.breath)
        if scrub.errno != 0 {
            statistics.readErrors += 1
            deviceFailed(device, errno: scrub.errno, segment: scrub.segment)
        }
        guard isScrubbable(scrub.segment), segments[scrub.segment].generation == scrub.generation
        else {
            leaveScrubbed()
            return
        }
        switch scrub.phase {
        case .resting, .records: break
        case .ends: endsRead(memory)
        case .footer: footerRead(memory)
        case .block: blockRead(memory)
        case .groups: scrub.scan?.arrived(errno: scrub.errno)
        }
    }

    /// Whether what failed is to be read once more: a read that went astray is no rot.
    private func failsTwice() -> Bool {
        scrub.isRetry.toggle()
        if scrub.isRetry { statistics.readRetries += 1 }
        return !scrub.isRetry
    }

    private func foundRot(pages: Int) {
        statistics.scrub.damagedPages += UInt64(pages)
        statistics.damagedPages += UInt64(pages)
        delegate?.foundRot(in: scrub.segment, blocks: 0)
    }

    // MARK: Header and trailer

    private func endsRead(_ memory: UnsafeMutableRawPointer) {
        let life = SegmentLife(
            first: UnsafeRawBufferPointer(start: memory, count: Self.pageBytes),
            last: UnsafeRawBufferPointer(start: memory + Self.pageBytes, count: Self.pageBytes),
            secret: manifest.secret, store: manifest.store, segment: scrub.segment,
            segmentPages: segmentPages)
        let isOurs = life.generation == scrub.generation
        let hasFooter = segments[scrub.segment].footerPages > 0
        var bad = 0
        let lacksHeader = segments[scrub.segment].lacksHeader
        if !lacksHeader, scrub.errno != 0 || life.header == nil || !isOurs { bad += 1 }
        if hasFooter, scrub.errno != 0 || life.trailer == nil || !isOurs { bad += 1 }
        if bad > 0 {
            guard failsTwice() else { return }
            foundRot(pages: bad)
        }
        scrub.isRetry = false
        scrub.nextPage = segments[scrub.segment].footerFirstPage
        if hasFooter { scrub.phase = .footer } else { beginGroups() }
    }

    // MARK: Footer

    private func readFooterForScrub(_ memory: UnsafeMutableRawPointer) {
        let state = segments.pointer(scrub.segment)
        let end = state.pointee.footerFirstPage + state.pointee.footerPages
        guard scrub.nextPage < end else {
            beginGroups()
            return
        }
        scrub.pagesRead = min(Int(end - scrub.nextPage), Scrubber.pages)
        scrub.page = 0
        scrub.record = 0
        readForScrub([(scrub.nextPage, scrub.pagesRead, memory)])
    }

    private func footerRead(_ memory: UnsafeMutableRawPointer) {
        var bad = scrub.errno != 0 ? scrub.pagesRead : 0
        if bad == 0 {
            for page in 0..<scrub.pagesRead where footerPage(page, memory) == nil { bad += 1 }
        }
        guard bad > 0 else {
            scrub.isRetry = false
            scrub.phase = .records
            return
        }
        guard failsTwice() else { return }
        // Its groups tell the same; whoever empties the segment goes by them from now on.
        foundRot(pages: bad)
        segments[scrub.segment].footerPages = 0
        scrub.scanVisits = true
        beginGroups()
    }

    private func footerPage(
        _ page: Int, _ memory: UnsafeMutableRawPointer
    ) -> DescriptorPageReader? {
        let bytes = UnsafeRawBufferPointer(
            start: memory + page * Self.pageBytes, count: Self.pageBytes)
        return try? DescriptorPageReader(
            page: bytes, context: context(scrub.segment),
            pageNumber: scrub.nextPage + UInt32(page))
    }

    /// Goes through the records that are in memory, up to the next live block.
    private func visitFooter(_ memory: UnsafeMutableRawPointer) {
        while scrub.page < scrub.pagesRead {
            if var reader = footerPage(scrub.page, memory) {
                var number = 0
                while let view = reader.next() {
                    if number >= scrub.record {
                        scrub.record = number + 1
                        if take(view, memory) {
                            scrub.phase = .block
                            readBlockForScrub()
                            return
                        }
                    }
                    number += 1
                }
            }
            scrub.page += 1
            scrub.record = 0
        }
        scrub.nextPage += UInt32(scrub.pagesRead)
        scrub.phase = .footer
        readFooterForScrub(memory)
    }

    // MARK: Groups

    private func beginGroups() {
        let state = segments.pointer(scrub.segment)
        let end = state.pointee.footerPages > 0 ? state.pointee.footerFirstPage : segmentPages - 1
        scrub.scan = SegmentScan(segment: scrub.segment, endPage: end)
        scrub.scanRecords = 0
        scrub.checkedPage = 0
        scrub.isRetry = false
        scrub.phase = .groups
    }

    private func visitGroups(_ memory: UnsafeMutableRawPointer) {
        guard var scan = scrub.scan else { return }
        scrub.scan = nil
        var found = false
        let finished = scan.advance(
            memory: memory, capacity: Scrubber.pages * Self.pageBytes,
            context: context(scrub.segment)
        ) { view, _ in
            if scrub.scanVisits, view.descriptor.page != scrub.checkedPage, take(view, memory) {
                scrub.checkedPage = view.descriptor.page
                found = true
                return false
            }
            scrub.scanRecords += 1
            return true
        }
        let wanted = scan.wanted
        let isSpoilt = scan.rottenPages + scan.damagedPages > 0
        let count = scan.rottenPages + scan.damagedPages
        scrub.scan = scan
        if found {
            scrub.phase = .block
            readBlockForScrub()
        } else if finished {
            groupsEnded(isSpoilt: isSpoilt, pages: count)
        } else if let wanted {
            readForScrub([(wanted.first, Int(wanted.count), memory)])
        }
    }

    /// Pages that a crash has torn stay where they are and are nobody's: rot is what takes records
    /// that the segment has.
    private func groupsEnded(isSpoilt: Bool, pages: Int) {
        if isSpoilt, scrub.scanRecords < segments[scrub.segment].recordCount {
            if !scrub.scanRetried {
                scrub.scanRetried = true
                statistics.readRetries += 1
                beginGroups()
                return
            }
            foundRot(pages: pages)
        }
        statistics.scrub.segments += 1
        leaveScrubbed()
    }

    // MARK: Blocks

    /// Whether a record's block is alive where the record says, and whole as far as is known. Notes
    /// what is needed to check it.
    private func take(_ view: RecordView, _ memory: UnsafeMutableRawPointer) -> Bool {
        let found = view.descriptor
        guard !found.flags.contains(.tombstone), !found.flags.contains(.supersede),
            let slot = namespaces.slot(instance: found.namespaceInstance),
            UInt64(found.page) + UInt64(found.storedPages) < UInt64(segmentPages),
            found.storedPages > 0
        else { return false }
        let fingerprint = fingerprint(instance: found.namespaceInstance, view.key)
        guard let entry = index.find(fingerprint), entry.place.segment == scrub.segment,
            entry.place.page == found.page, entry.namespaceSlot == slot, !entry.isDamaged
        else { return false }
        scrub.fingerprint = fingerprint
        scrub.entry = entry
        scrub.keyLength = view.key.count
        scrub.blockBytes = Int(found.storedPages) * Self.pageBytes
        scrub.isRetry = false
        if let key = view.key.baseAddress {
            (memory + Scrubber.keyOffset).copyMemory(from: key, byteCount: view.key.count)
        }
        return true
    }

    private func readBlockForScrub() {
        guard let image = imageMemory() else { return }
        readForScrub([(scrub.entry.place.page, scrub.blockBytes / Self.pageBytes, image)])
    }

    /// Where the block's image goes; what is larger than the memory kept has its own for a while.
    private func imageMemory() -> UnsafeMutableRawPointer? {
        if scrub.blockBytes <= Scrubber.imageBytes {
            return scrub.memory.map { $0 + Scrubber.imageOffset }
        }
        if scrub.large == nil {
            scrub.large = .allocate(byteCount: scrub.blockBytes, alignment: 4096)
        }
        return scrub.large
    }

    private func blockRead(_ memory: UnsafeMutableRawPointer) {
        guard let image = imageMemory() else { return }
        let key = UnsafeRawBufferPointer(
            start: memory + Scrubber.keyOffset, count: scrub.keyLength)
        // Moved, replaced or deleted meanwhile: it is somebody else's turn, or nobody's.
        if scrub.entry.isSameBlock(as: index.find(scrub.fingerprint)) {
            let damage = damage(image, key)
            if damage != nil {
                guard failsTwice() else { return }
            }
            statistics.scrub.blocks += 1
            if let damage { quarantineScrubbed(damage) }
        }
        scrub.isRetry = false
        scrub.large?.deallocate()
        scrub.large = nil
        scrub.phase = scrub.scan == nil ? .records : .groups
    }

    private func damage(
        _ image: UnsafeMutableRawPointer, _ key: UnsafeRawBufferPointer
    ) -> ImageDamage? {
        if scrub.errno != 0 { return .value }
        let identity = Checksum.identitySeed(
            namespace: namespaces.fingerprint(scrub.entry.namespaceSlot), key: key,
            versionLow: scrub.entry.versionLow)
        let bytes = UnsafeRawBufferPointer(start: image, count: scrub.blockBytes)
        return StoredImage(layout: layout(scrub.entry), bytes: bytes)
            .damage(identity: identity, checksum: scrub.entry.checksum)
    }

    private func quarantineScrubbed(_ damage: ImageDamage) {
        statistics.checkFailures += 1
        statistics.scrub.damagedBlocks += 1
        var isWhole = true
        if case .shards = damage { isWhole = false }
        quarantine(scrub.fingerprint, scrub.entry, wholly: isWhole)
        delegate?.foundRot(in: scrub.segment, blocks: 1)
    }
}
