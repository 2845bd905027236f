// SegmentInfo: what a closed store's segment is, by its first and last page, and what is wrong with
// these two. Reading its records is `RecordReader`.

import BlockIO
import Glibc
import LogStore
import SegmentFormat

package struct SegmentInfo: Sendable {
    package enum State: String, Sendable, CaseIterable {
        /// Within capacity, but not made yet.
        case uncreated
        /// A life was begun, and nothing written in it.
        case clean
        /// Written to, and not sealed.
        case open
        case sealed
        /// No header can be read: what it holds is lost, the place is not.
        case unusable
        /// Of a member that is not here.
        case absent
    }

    package var id: UInt32
    package var state: State
    package var generation: UInt64 = 0
    package var life: SegmentLife?
    /// The stream that wrote it, where known.
    package var stream: StreamKind?
    /// Of its two headers one was never written, and there is no trailer.
    package var isHalfMade = false

    // Filled in by whoever reads the records
    package var records = 0
    /// Records without a value.
    package var killers = 0
    package var liveBlocks = 0
    /// Pages of blocks that are alive, as the store counts them.
    package var livePages = 0
    package var liveBytes: UInt64 = 0
    package var metaPages = 1
    /// First page behind the last group; all of a sealed segment.
    package var writtenPages = 0
    package var minVersion = UInt64.max
    package var maxVersion: UInt64 = 0
    /// Whether the records came from the footer.
    package var usedFooter = false

    package init(id: UInt32, state: State) {
        self.id = id
        self.state = state
    }

    /// Unix seconds; 0 where unknown.
    package var beganAt: UInt32 {
        life?.header?.createdWallSeconds ?? life?.copy?.createdWallSeconds ?? 0
    }
    package var sealedAt: UInt32 { life?.trailer?.sealedWallSeconds ?? 0 }
}

extension ClosedStore {
    /// Reads first and last page of a segment; what is wrong with them goes to `findings`.
    package func identify(
        _ segment: UInt32, _ buffer: PageBuffer, findings: inout [Finding]
    ) throws(StoreError) -> SegmentInfo {
        let file = try file(segment)
        let pageBytes = FormatConstants.pageBytes
        let lastOffset = Self.offset(page: segmentPages - 1)
        let path = path(segment)
        var errors: [Int32] = []
        for (place, offset) in [UInt64(0), lastOffset].enumerated() {
            let target = buffer.base + place * pageBytes
            let errno = io.read(file, offset: offset, into: target, length: pageBytes)
            if errno != 0 {
                memset(target, 0, pageBytes)
            }
            errors.append(errno)
        }
        let (first, last) = (buffer.page(0), buffer.page(1))
        let life = SegmentLife(
            first: first, last: last, secret: manifest.secret, store: manifest.store,
            segment: segment, segmentPages: segmentPages)
        var info = SegmentInfo(id: segment, state: .unusable)
        info.generation = life.generation
        info.life = life
        func found(_ structure: Finding.Structure, _ offset: UInt64, _ text: String) -> Finding {
            Finding(
                structure, path: path, offset: offset, length: UInt64(pageBytes), text,
                segment: segment, generation: life.generation)
        }
        if errors[0] != 0 {
            findings.append(found(.header, 0, "cannot be read, errno \(errors[0])"))
        }
        if errors[1] != 0 {
            findings.append(found(.trailer, lastOffset, "cannot be read, errno \(errors[1])"))
        }
        guard life.generation != 0 else {
            if errors == [0, 0], first.isZero, last.isZero {
                // Its making was cut short by a crash: nothing was ever written to it.
                info.state = .clean
                info.metaPages = 0
                return info
            }
            if errors[0] == 0 {
                findings.append(
                    found(.header, 0, "does not verify, and neither does its copy or a trailer"))
            }
            return info
        }
        if life.header == nil, errors[0] == 0 {
            findings.append(found(.header, 0, "does not verify; its copy or the trailer does"))
        }
        if errors == [0, 0], life.trailer == nil {
            info.isHalfMade =
                life.header == nil ? first.isZero : life.copy == nil && last.isZero
        }
        if errors[1] == 0 { judgeLastPage(life, last, segment, found, &findings) }
        judgeHeader(life, segment, found, &findings)
        info.state = life.trailer == nil ? .open : .sealed
        info.stream = life.trailer.flatMap { StreamKind(rawValue: $0.stream) }
        return info
    }

    private func judgeLastPage(
        _ life: SegmentLife, _ last: UnsafeRawBufferPointer, _ segment: UInt32,
        _ found: (Finding.Structure, UInt64, String) -> Finding, _ findings: inout [Finding]
    ) {
        let offset = Self.offset(page: segmentPages - 1)
        if let trailer = life.trailer {
            if life.footer == nil, trailer.recordCount > 0 {
                findings.append(found(.trailer, offset, "tells a footer that cannot be"))
            }
            return
        }
        if let copy = life.copy {
            if let header = life.header, header.generation != copy.generation {
                var finding = found(
                    .header, offset, "the copy is of generation \(copy.generation)")
                // A life begun: one of the two was written, the other not yet.
                if copy.generation < header.generation
                    || !hasGroups(segment, generation: copy.generation)
                {
                    finding.severity = .note
                }
                findings.append(finding)
            }
            return
        }
        // The trailer of an earlier life is what a crash leaves between the two header writes.
        if let claimed = SegmentTrailer.peekGeneration(last), claimed < life.generation,
            (try? SegmentTrailer.decode(
                last, context: context(segment, generation: claimed), page: segmentPages - 1))
                != nil
        {
            var finding = found(
                .trailer, offset, "is of an earlier life, generation \(claimed)")
            finding.severity = .note
            findings.append(finding)
            return
        }
        findings.append(found(.trailer, offset, "neither a trailer nor the header's copy verifies"))
    }

    /// Whether a segment has a group of this life where its first one lies.
    private func hasGroups(_ segment: UInt32, generation: UInt64) -> Bool {
        let buffer = PageBuffer(bytes: FormatConstants.pageBytes)
        guard let file = try? file(segment),
            io.read(
                file, offset: Self.offset(page: 1), into: buffer.base, length: buffer.count) == 0
        else { return true }
        let reader = try? DescriptorPageReader(
            page: buffer.bytes, context: context(segment, generation: generation), pageNumber: 1)
        return reader != nil
    }

    private func judgeHeader(
        _ life: SegmentLife, _ segment: UInt32,
        _ found: (Finding.Structure, UInt64, String) -> Finding, _ findings: inout [Finding]
    ) {
        if let header = life.header ?? life.copy {
            let device = manifest.devices[SegmentTable.device(segment)].id
            if header.device != device {
                findings.append(found(.header, 0, "names another device"))
            }
            if header.segmentBytes != manifest.segmentBytes {
                findings.append(found(.header, 0, "tells \(header.segmentBytes) bytes a segment"))
            }
        }
        if life.generation >= manifest.generationLimit {
            findings.append(
                found(.header, 0, "its generation was not given out by this manifest"))
        }
    }
}
