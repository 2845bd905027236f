// ExportReader: an export read part by part, each checked before anything of it is believed. What
// is wrong with a stream is told with the byte at which it was found.

import LogStore
import SegmentFormat

/// Why a stream was not taken.
package struct StreamError: Error, Equatable, Sendable, CustomStringConvertible {
    package enum Kind: String, Sendable {
        case notAnExport
        case newerFormat
        case damaged
        case cutShort
    }

    package var kind: Kind
    /// Bytes before the part in which it was found.
    package var offset: UInt64
    package var text: String

    package var description: String { "at byte \(offset): \(text)" }
}

package final class ExportReader {
    /// What can go wrong: the stream itself, or reading it.
    package enum Failure: Error {
        case stream(StreamError)
        case store(StoreError)
    }

    package let header: ExportHeader
    private let source: any ByteSource
    private var end = ExportEnd()
    /// Bytes read so far.
    package private(set) var offset: UInt64 = 0
    private var part: UInt64 = 0
    private let front = PageBuffer(bytes: ExportStream.maxHeaderBytes)
    /// The end has come: how many records there were, and how many the export left out.
    package private(set) var ended: ExportEnd?

    package init(_ source: any ByteSource) throws(Failure) {
        self.source = source
        header = try Self.readHeader(source, front)
        offset = UInt64(header.encode().count)
    }

    private static func fill(
        _ source: any ByteSource, _ buffer: PageBuffer, _ from: Int, _ count: Int
    ) throws(Failure) -> Int {
        do throws(StoreError) {
            return try source.read(
                into: UnsafeMutableRawBufferPointer(start: buffer.base + from, count: count))
        } catch {
            throw .store(error)
        }
    }

    private static func readHeader(
        _ source: any ByteSource, _ buffer: PageBuffer
    ) throws(Failure) -> ExportHeader {
        func failure(_ kind: StreamError.Kind, _ text: String) -> Failure {
            .stream(StreamError(kind: kind, offset: 0, text: text))
        }
        let tagBytes = ExportStream.tagBytes
        guard try fill(source, buffer, 0, tagBytes) == tagBytes,
            let tag = ExportStream.tag(buffer.slice(0, tagBytes)),
            tag.magic == ExportStream.headerMagic
        else { throw failure(.notAnExport, "it does not begin as a Hearth export does") }
        guard try fill(source, buffer, tagBytes, tag.size - tagBytes) == tag.size - tagBytes else {
            throw failure(.cutShort, "it ends within its header")
        }
        do throws(FormatError) {
            return try ExportHeader.decode(buffer.slice(0, tag.size))
        } catch {
            if case .newerFormat(let word) = error {
                throw failure(
                    .newerFormat, "written by a newer Hearth (feature word \(word)): use that one")
            }
            throw failure(.damaged, "the header does not verify")
        }
    }

    private func failure(_ kind: StreamError.Kind, _ text: String) -> Failure {
        .stream(StreamError(kind: kind, offset: part, text: text))
    }

    private func read(_ buffer: PageBuffer, _ from: Int, _ count: Int) throws(Failure) {
        let came = try Self.fill(source, buffer, from, count)
        offset += UInt64(came)
        if came < count { throw failure(.cutShort, "it ends within a part") }
    }

    /// The next record, its value in `value`; nil at the end, which has then been checked.
    package func next(
        into value: (_ bytes: Int) -> PageBuffer
    ) throws(Failure) -> (record: ExportRecord, value: PageBuffer)? {
        part = offset
        let tagBytes = ExportStream.tagBytes
        let came = try Self.fill(source, front, 0, tagBytes)
        offset += UInt64(came)
        if came == 0 { throw failure(.cutShort, "it ends without its end record") }
        guard came == tagBytes else { throw failure(.cutShort, "it ends within a part") }
        guard let tag = ExportStream.tag(front.slice(0, tagBytes)),
            tag.magic != ExportStream.headerMagic
        else { throw failure(.damaged, "no record begins here") }
        try read(front, tagBytes, tag.size - tagBytes)
        if tag.magic == ExportStream.endMagic {
            try takeEnd(tag.size)
            return nil
        }
        let bytes = front.slice(0, tag.size)
        let record: ExportRecord
        do throws(FormatError) {
            record = try ExportRecord.decodeFront(bytes, sequence: end.records)
        } catch {
            throw failure(
                .damaged,
                error == .wrongPlace
                    ? "record \(end.records) is missing or out of its order"
                    : "the front of record \(end.records) does not verify")
        }
        let length = Int(record.descriptor.length)
        let buffer = value(length + 4)
        try read(buffer, 0, length + 4)
        let sum = ExportRecord.sum(front: bytes, value: buffer.slice(0, length))
        let stored = buffer.slice(length, 4).enumerated().reduce(UInt32(0)) {
            $0 | UInt32($1.element) << (8 * UInt32($1.offset))
        }
        guard sum == stored else {
            throw failure(.damaged, "record \(end.records) does not verify")
        }
        let version = record.descriptor.version
        guard version >= header.lowestVersion, version <= header.highestVersion else {
            throw failure(.damaged, "record \(end.records) has a version beyond the header's")
        }
        end.add(sum, length: record.descriptor.length)
        return (record, buffer)
    }

    private func takeEnd(_ size: Int) throws(Failure) {
        let made: ExportEnd
        do throws(FormatError) {
            made = try ExportEnd.decode(front.slice(0, size))
        } catch {
            throw failure(.damaged, "the end record does not verify")
        }
        var expected = end
        expected.leftOut = made.leftOut
        guard made == expected else {
            throw failure(
                .damaged,
                "the end tells \(made.records) records, \(end.records) came")
        }
        guard try Self.fill(source, front, 0, 1) == 0 else {
            throw failure(.damaged, "there is more behind its end")
        }
        ended = made
    }
}
