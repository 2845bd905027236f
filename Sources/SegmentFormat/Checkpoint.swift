// Checkpoint: the index dumped to a file. Header page, end page (written last, at its own fixed
// place), table of segments, then chunks of 1 MiB with entries of 40 bytes. Header and table are
// checked together; each chunk checks itself.

package struct CheckpointSegment: Equatable, Sendable {
    package var segment: UInt32 = 0
    package var state: UInt8 = 0
    package var generation: UInt64 = 0
    package var writtenPages: UInt32 = 0
    package var livePages: UInt32 = 0
    package var minVersion: UInt64 = 0
    package var maxVersion: UInt64 = 0
    package var minValueVersion: UInt64 = 0
    package var metaPages: UInt32 = 0
    package init() {}
    static let bytes = 56
}

package struct CheckpointHeader: Equatable, Sendable {
    package var store = Identity128(hi: 0, lo: 0)
    package var sequence: UInt64 = 0
    package var entryBytes: UInt32 = 40
    package var beganVersion: UInt64 = 0
    package var beganWall: UInt32 = 0
    package var segmentCount: UInt32 = 0
    /// The segment that the scrubber had come to, plus one; 0 for none. A word that older builds
    /// leave zero and do not look at.
    package var scrubbed: UInt32 = 0

    package init() {}

    /// Byte offset of the end page.
    package static let endOffset = FormatConstants.pageBytes
    private static let tableOffset = 2 * FormatConstants.pageBytes
    private static let headerCheck = 8
    private static let tableCheck = 16

    /// Byte offset of the first chunk.
    package static func dataOffset(segments: Int) -> UInt64 {
        UInt64(tableOffset + BlockLayout.pageUp(segments * CheckpointSegment.bytes))
    }

    private static func seed(_ secret: SecretKey, _ store: Identity128) -> UInt64 {
        PageSeed.make(
            secret, kind: FormatConstants.checkpointMagic, store: store, segment: 0,
            generation: 0, page: 0)
    }

    /// Writes header and table; the end page's place is left as it is (zeros).
    package func encode(
        into memory: UnsafeMutableRawBufferPointer, segments: [CheckpointSegment],
        secret: SecretKey
    ) {
        var at = Self.tableOffset
        for segment in segments {
            memory.put(segment.segment, at)
            memory.put(segment.state, at + 4)
            memory.put(segment.generation, at + 8)
            memory.put(segment.writtenPages, at + 16)
            memory.put(segment.livePages, at + 20)
            memory.put(segment.minVersion, at + 24)
            memory.put(segment.maxVersion, at + 32)
            memory.put(segment.minValueVersion, at + 40)
            memory.put(segment.metaPages, at + 48)
            at += CheckpointSegment.bytes
        }
        let page = UnsafeMutableRawBufferPointer(
            rebasing: memory[0..<FormatConstants.pageBytes])
        page.zero()
        page.put(FormatConstants.checkpointMagic, 0)
        page.put(FormatConstants.version, 4)
        let table = UnsafeRawBufferPointer(memory)[Self.tableOffset...]
        let seed = Self.seed(secret, store)
        page.put(
            Checksum.crc64(seed, UnsafeRawBufferPointer(rebasing: table)), Self.tableCheck)
        page.put(store, 24)
        page.put(sequence, 40)
        page.put(beganVersion, 48)
        page.put(beganWall, 56)
        page.put(segmentCount, 60)
        page.put(entryBytes, 64)
        page.put(FormatConstants.incompatible, 72)
        page.put(scrubbed, 80)
        page.seal(seed, at: Self.headerCheck)
    }

    /// Decodes the header page.
    package static func decode(
        _ page: UnsafeRawBufferPointer, secret: SecretKey, store: Identity128
    ) throws(FormatError) -> CheckpointHeader {
        guard page.count == FormatConstants.pageBytes,
            page.u32(0) == FormatConstants.checkpointMagic
        else { throw .notHearth }
        guard page.verifies(seed(secret, store), at: headerCheck) else { throw .damaged }
        let unknown = page.u64(72) & ~FormatConstants.incompatible
        if unknown != 0 { throw .newerFormat(word: unknown) }
        var made = CheckpointHeader()
        made.store = page.identity(24)
        made.sequence = page.u64(40)
        made.beganVersion = page.u64(48)
        made.beganWall = page.u32(56)
        made.segmentCount = page.u32(60)
        made.entryBytes = page.u32(64)
        made.scrubbed = page.u32(80)
        guard made.store == store, made.entryBytes == 40, made.segmentCount <= 1 << 20 else {
            throw .wrongPlace
        }
        guard made.sequence < FormatConstants.counterLimit,
            made.beganVersion < FormatConstants.counterLimit
        else { throw .damaged }
        return made
    }

    /// Decodes the table of segments out of the file's first `dataOffset` bytes.
    package static func decodeSegments(
        _ memory: UnsafeRawBufferPointer, secret: SecretKey, store: Identity128
    ) throws(FormatError) -> [CheckpointSegment] {
        guard memory.count >= tableOffset else { throw .damaged }
        let page = UnsafeRawBufferPointer(rebasing: memory[0..<FormatConstants.pageBytes])
        let header = try decode(page, secret: secret, store: store)
        guard memory.count == Int(dataOffset(segments: Int(header.segmentCount))) else {
            throw .damaged
        }
        let table = UnsafeRawBufferPointer(rebasing: memory[tableOffset...])
        guard Checksum.crc64(seed(secret, store), table) == page.u64(tableCheck) else {
            throw .damaged
        }
        var made: [CheckpointSegment] = []
        made.reserveCapacity(Int(header.segmentCount))
        for number in 0..<Int(header.segmentCount) {
            let at = tableOffset + number * CheckpointSegment.bytes
            var segment = CheckpointSegment()
            segment.segment = memory.u32(at)
            segment.state = memory.u8(at + 4)
            segment.generation = memory.u64(at + 8)
            segment.writtenPages = memory.u32(at + 16)
            segment.livePages = memory.u32(at + 20)
            segment.minVersion = memory.u64(at + 24)
            segment.maxVersion = memory.u64(at + 32)
            segment.minValueVersion = memory.u64(at + 40)
            segment.metaPages = memory.u32(at + 48)
            // All ones stands for "no record".
            guard segment.generation < FormatConstants.counterLimit,
                segment.maxVersion < FormatConstants.counterLimit,
                segment.minVersion < FormatConstants.counterLimit
                    || segment.minVersion == UInt64.max
            else { throw .damaged }
            made.append(segment)
        }
        return made
    }
}

/// A self-checked run of index entries, copied in and out as they are.
package enum CheckpointChunk {
    package static let chunkBytes = 1 << 20
    package static let payloadOffset = 64
    package static let entriesPerChunk = (chunkBytes - payloadOffset) / 40
    private static let checkOffset = 8

    private static func seed(
        _ secret: SecretKey, _ store: Identity128, _ sequence: UInt64, _ index: UInt32
    ) -> UInt64 {
        PageSeed.make(
            secret, kind: FormatConstants.chunkMagic, store: store, segment: 0,
            generation: sequence, page: index)
    }

    /// Seals a chunk whose payload is in place.
    package static func seal(
        _ memory: UnsafeMutableRawBufferPointer, secret: SecretKey, store: Identity128,
        sequence: UInt64, index: UInt32, entries: UInt32
    ) {
        memory.put(FormatConstants.chunkMagic, 0)
        memory.put(FormatConstants.version, 4)
        memory.put(UInt16(0), 6)
        memory.put(sequence, 16)
        memory.put(index, 24)
        memory.put(entries, 28)
        UnsafeMutableRawBufferPointer(rebasing: memory[32..<payloadOffset]).zero()
        let used = payloadOffset + Int(entries) * 40
        UnsafeMutableRawBufferPointer(rebasing: memory[used...]).zero()
        memory.seal(seed(secret, store, sequence, index), at: checkOffset)
    }

    /// The number of entries of a chunk that verifies.
    package static func open(
        _ memory: UnsafeRawBufferPointer, secret: SecretKey, store: Identity128, sequence: UInt64,
        index: UInt32
    ) throws(FormatError) -> UInt32 {
        guard memory.count == chunkBytes, memory.u32(0) == FormatConstants.chunkMagic else {
            throw .notHearth
        }
        guard memory.verifies(seed(secret, store, sequence, index), at: checkOffset) else {
            throw .damaged
        }
        let entries = memory.u32(28)
        guard memory.u64(16) == sequence, memory.u32(24) == index,
            Int(entries) <= entriesPerChunk
        else { throw .wrongPlace }
        return entries
    }
}

/// Makes a dump count: written after everything else of it is durable.
package struct CheckpointEnd: Equatable, Sendable {
    package var sequence: UInt64 = 0
    package var chunkCount: UInt32 = 0
    package var entryCount: UInt64 = 0

    package init() {}

    private static let checkOffset = 8

    private static func seed(_ secret: SecretKey, _ store: Identity128) -> UInt64 {
        PageSeed.make(
            secret, kind: FormatConstants.endMagic, store: store, segment: 0, generation: 0,
            page: 1)
    }

    package func encode(
        into page: UnsafeMutableRawBufferPointer, secret: SecretKey, store: Identity128
    ) {
        page.zero()
        page.put(FormatConstants.endMagic, 0)
        page.put(FormatConstants.version, 4)
        page.put(sequence, 16)
        page.put(entryCount, 24)
        page.put(chunkCount, 32)
        page.seal(Self.seed(secret, store), at: Self.checkOffset)
    }

    package static func decode(
        _ page: UnsafeRawBufferPointer, secret: SecretKey, store: Identity128
    ) throws(FormatError) -> CheckpointEnd {
        guard page.count == FormatConstants.pageBytes,
            page.u32(0) == FormatConstants.endMagic
        else { throw .notHearth }
        guard page.verifies(seed(secret, store), at: checkOffset) else { throw .damaged }
        var made = CheckpointEnd()
        made.sequence = page.u64(16)
        made.entryCount = page.u64(24)
        made.chunkCount = page.u32(32)
        guard made.sequence < FormatConstants.counterLimit else { throw .damaged }
        return made
    }
}
