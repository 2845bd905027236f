// Opening and sealing segments: a stream takes a clean one, and when no group fits any more, writes
// footer and trailer to its end.

import BlockIO
import SegmentFormat

extension LogStore {
    private static let pageBytes = FormatConstants.pageBytes

    func openSegment(_ segment: UInt32, _ stream: Int) {
        let chunk = footerPool.take()
        precondition(chunk >= 0, "taking a segment checked for footer memory")
        streams[stream].segment = segment
        streams[stream].nextPage = max(1, segments[segment].writtenPages)
        streams[stream].footerChunk = chunk
        streams[stream].footer = DescriptorPageWriter(
            memory: footerPool.pointer(chunk),
            pages: WriteStream.footerPages(segmentPages, records: streams[stream].isRecords))
        segments[segment].state = .open
        segments[segment].stream = streams[stream].kind.rawValue
        if segments[segment].writtenPages == 0 {
            segments[segment].writtenPages = 1
            segments[segment].metaPages = 1
        }
    }

    /// Seals the stream's segment: its footer and trailer are written to its end.
    func closeSegment(_ stream: Int) {
        guard let segment = streams[stream].segment, var footer = streams[stream].footer else {
            return
        }
        let chunk = streams[stream].footerChunk
        let first = segmentPages - 1 - UInt32(footer.pageCount)
        let pages = footer.seal(
            kind: .footer, context: context(segment), firstPage: first, groupFirstPage: first,
            groupPages: UInt32(footer.pageCount), groupSequence: 0, valueBase: 0,
            stream: streams[stream].kind.rawValue)
        let state = segments.pointer(segment)
        let trailerPage = segmentPages - 1
        var trailer = SegmentTrailer()
        trailer.generation = state.pointee.generation
        trailer.recordCount = state.pointee.recordCount
        trailer.footerFirstPage = first
        trailer.footerPages = UInt32(pages)
        trailer.minVersion = state.pointee.minVersion
        trailer.maxVersion = state.pointee.maxVersion
        trailer.minValueVersion = state.pointee.minValueVersion
        trailer.metaPages = state.pointee.metaPages + UInt32(pages) + 1
        trailer.sealedWallSeconds = wallSeconds
        trailer.stream = streams[stream].kind.rawValue
        trailer.livePagesAtSeal = state.pointee.livePages
        let memory = footerPool.pointer(chunk) + pages * Self.pageBytes
        trailer.encode(
            into: UnsafeMutableRawBufferPointer(start: memory, count: Self.pageBytes),
            context: context(segment), page: trailerPage)
        state.pointee.lostPages = first - streams[stream].nextPage
        statistics.lostBytes += UInt64(Int(state.pointee.lostPages) * Self.pageBytes)
        statistics.sealedBytes += UInt64(Int(segmentPages) * Self.pageBytes)
        state.pointee.footerFirstPage = first
        state.pointee.footerPages = UInt32(pages)
        state.pointee.metaPages += UInt32(pages) + 1
        state.pointee.writtenPages = segmentPages
        state.pointee.state = .sealed
        statistics.metadataBytes += UInt64((pages + 1) * Self.pageBytes)
        streams[stream].segment = nil
        streams[stream].footer = nil
        streams[stream].footerChunk = -1
        state.pointee.groupsInFlight += 1  // the footer's own write
        issue(
            IORequest(
                tag: Self.tag(.footer, chunk, segment), operation: .write, file: file(segment),
                fileOffset: Self.offset(page: first),
                piece: footerPool.piece(chunk, length: (pages + 1) * Self.pageBytes)),
            on: SegmentTable.device(segment))
    }

    func footerWritten(_ segment: UInt32, chunk: Int32, _ completion: IOCompletion) {
        giveFooter(chunk)
        segments[segment].groupsInFlight -= 1
        spreading.lookAt = 0
        if completion.result < 0 {
            statistics.writeErrors += 1
            segments[segment].footerPages = 0
        } else {
            markDirty(segment)
        }
    }

    /// Gives up writing into the stream's segment, without a footer.
    func abandonSegment(_ stream: Int) {
        giveFooter(streams[stream].footerChunk)
        streams[stream].segment = nil
        streams[stream].footer = nil
        streams[stream].footerChunk = -1
    }

    /// Gives footer memory back, and what only a footer of records needs to the system.
    func giveFooter(_ chunk: Int32) {
        let kept = (WriteStream.footerPages(segmentPages, records: false) + 1) * Self.pageBytes
        footerPool.discard(chunk, from: kept)
        footerPool.give(chunk)
    }

    // MARK: Refusing

    /// A store in store mode that is full, or devices with nothing left to give.
    func mustRefuse(_ stream: Int) -> Bool {
        !canGainSegment(streams[stream])
    }

    func refuse(_ group: Int32) {
        let kind = streams[groups[Int(group)].stream].kind
        if let other = otherRecordStream(than: kind) {
            // No segment left for this copy: beside its twin is better than nowhere.
            statistics.recordsTogether += UInt64(groups[Int(group)].operations.count)
            endGroup(group) { operation in
                operations[operation].phase = .waitingForGroup
                operations[operation].besideTwin = true
                streams[other].queue.append(operation, operations)
            }
            return
        }
        endGroup(group) { operation in failWrite(operation, .noSpace, errno: 28) }
    }

    /// The twin of a record stream, if it has an open segment with room.
    private func otherRecordStream(than kind: StreamKind) -> Int? {
        guard kind == .recordsA || kind == .recordsB else { return nil }
        let twin: StreamKind = kind == .recordsA ? .recordsB : .recordsA
        return streams.indices.first {
            streams[$0].kind == twin && streams[$0].segment != nil
                && devices[streams[$0].device].takesWrites && room($0, descriptors: 4) >= 8
        }
    }
}
