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
        driver.setWriteHint(file(segment), streams[stream].writeHint)
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
        let stream = groups[Int(group)].stream
        let kind = streams[stream].kind
        if kind == .fresh, let other = otherFreshStream(than: stream, group) {
            if streams[other].device != streams[stream].device {
                (stripeDevice, stripeBytes) = (streams[other].device, 0)
            }
            endGroup(group) { operation in
                operations[operation].phase = .waitingForGroup
                if operations[operation].kind == .append { appending += 1 }
                streams[other].queue.append(operation, operations)
            }
            return
        }
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

    /// Where a group of fresh blocks goes that its own stream has no segment for: to that of its
    /// namespaces on another device that has one, or else to what one of others has left.
    private func otherFreshStream(than stream: Int, _ group: Int32) -> Int? {
        let descriptors = groups[Int(group)].writer.pageCount
        let needed = UInt32(descriptors + groups[Int(group)].valueBytes / Self.pageBytes)
        func hasRoom(_ other: Int) -> Bool {
            streams[other].segment != nil && streams[other].waiting < 0
                && room(other, descriptors: descriptors) >= needed
        }
        let (own, number) = (streams[stream].device, streams[stream].number)
        for device in devices.indices where device != own && devices[device].takesWrites {
            let other = streamIndex(.fresh, device: device, number: number)
            if hasRoom(other) || streams[other].waiting < 0 && canGainSegment(streams[other]) {
                return other
            }
        }
        return streams.indices.first {
            $0 != stream && streams[$0].kind == .fresh
                && devices[streams[$0].device].takesWrites && hasRoom($0)
        }
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
