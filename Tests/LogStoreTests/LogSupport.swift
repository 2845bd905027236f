// LogSupport: calls that only the log takes, past staging: blocks that bring their version, blocks
// that are written anew.

import BlockIO
import Glibc
import SegmentFormat
import Testing

@testable import LogStore
@testable import SimulatedDisk

/// Takes the log's outcomes in staging's place.
private final class LogAnswers: LogStoreDelegate {
    var outcomes: [UInt64: Outcome] = [:]
    func finished(_ outcome: Outcome) { outcomes[outcome.token] = outcome }
    func evicted(_ fingerprint: Fingerprint) {}
    func holds(namespaceSlot: UInt16) -> Bool { false }
}

/// A block of one shard with a version of its own.
struct VersionedBlock {
    var key: String
    var version: UInt64
    var length: Int
    var revision = 0
}

extension World {
    /// Calls the log with tokens from 1 to `count` and waits for all outcomes, in their order.
    func askLog(_ count: Int, _ body: (LogStore, UInt64) -> Void) -> [Outcome] {
        let answers = LogAnswers()
        let log = store.log
        log.delegate = answers
        defer { log.delegate = store }
        for token in 1...UInt64(count) { body(log, token) }
        var turns = 0
        while answers.outcomes.count < count, turns < 100_000 {
            turns += 1
            if !log.pump() { driver.wait(until: clock.monotonic + 1_000_000) }
        }
        return (1...UInt64(count)).map {
            answers.outcomes[$0] ?? Outcome(token: $0, status: .failed)
        }
    }

    /// The stored image of a block as it lies on disk; the caller frees it.
    func image(_ key: String, _ space: UInt16) throws -> UnsafeMutableRawBufferPointer {
        let entry = try #require(self.entry(key, space))
        let place = try self.place(key, space)
        let bytes = Int(store.log.accountedPages(entry)) * pageBytes
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes, alignment: 4096)
        memory.copyBytes(
            from: try #require(
                machine.contents(
                    place.directory, place.name, offset: place.page * pageBytes, length: bytes)))
        return memory
    }

    /// Writes a block anew, as reclaim would: the index has the copy, its source stays on disk.
    func rewrite(_ key: String, _ space: UInt16) throws {
        let entry = try #require(self.entry(key, space))
        let memory = try image(key, space)
        defer { memory.deallocate() }
        let piece = UnsafeMutablePointer<Piece>.allocate(capacity: 1)
        defer { piece.deallocate() }
        piece.initialize(
            to: Piece(
                region: .process, offset: UInt64(UInt(bitPattern: memory.baseAddress)),
                length: UInt64(memory.count)))
        let keyBytes = Array(key.utf8)
        let outcomes = keyBytes.withUnsafeBytes { keyBuffer in
            askLog(1) { log, token in
                #expect(
                    log.rewrite(
                        RewriteRequest(
                            token: token, fingerprint: fingerprint(key, space), entry: entry,
                            key: keyBuffer,
                            parent: UnsafeRawBufferPointer(start: nil, count: 0), pieces: piece,
                            pieceCount: 1, storedPages: UInt32(memory.count / pageBytes))))
            }
        }
        settle()
        #expect(outcomes[0].status == .stored)
        #expect(self.entry(key, space)?.place != entry.place)
    }

    /// Imports blocks with the versions that they bring, all of them at once.
    func importBlocks(_ blocks: [VersionedBlock], _ space: UInt16) -> [Outcome] {
        let highest = blocks.map(\.version).max() ?? 0
        let raised = askLog(1) { $0.raiseVersions(token: $1, past: highest) }
        #expect(raised[0].status == .done)
        var sources: [UnsafeMutableRawBufferPointer] = []
        let pieces = UnsafeMutablePointer<Piece>.allocate(capacity: blocks.count)
        defer {
            for source in sources { source.deallocate() }
            pieces.deallocate()
        }
        return askLog(blocks.count) { log, token in
            let number = Int(token) - 1
            let block = blocks[number]
            let bytes = (block.length + pageBytes - 1) / pageBytes * pageBytes
            let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes, alignment: 4096)
            if let base = memory.baseAddress { memset(base, 0, bytes) }
            memory.copyBytes(
                from: payload(block.key, revision: block.revision, length: block.length))
            sources.append(memory)
            pieces[number] = Piece(
                region: .process, offset: UInt64(UInt(bitPattern: memory.baseAddress)),
                length: UInt64(bytes))
            Array(block.key.utf8).withUnsafeBytes { key in
                var request = AppendRequest(
                    token: token, fingerprint: fingerprint(block.key, space),
                    namespaceSlot: space, key: key,
                    parent: UnsafeRawBufferPointer(start: nil, count: 0), pieces: pieces + number,
                    pieceCount: 1, length: UInt32(block.length))
                let identity = Checksum.identitySeed(
                    namespace: log.namespaces.fingerprint(space), key: key,
                    versionLow: UInt32(truncatingIfNeeded: block.version))
                request.sourceIsImage = true
                request.version = block.version
                request.checksum = Checksum.crc32c(
                    Checksum.valueSeed(
                        identity: identity, shard: 0, length: UInt32(block.length)),
                    UnsafeRawBufferPointer(rebasing: memory[..<block.length]))
                #expect(log.append(request))
            }
        }
    }

    /// Segments of records that are written to now.
    var recordSegments: [UInt32] {
        var found: [UInt32] = []
        store.log.segments.forEach { id in
            guard store.log.segments[id].state == .open else { return }
            if store.log.recordKind(id) != nil { found.append(id) }
        }
        return found
    }

    /// Seals what a stream writes to, as if it were full.
    func seal(_ kind: StreamKind) {
        let log = store.log
        for stream in log.streams.indices where log.streams[stream].kind == kind {
            log.closeSegment(stream)
        }
        settle()
    }
}
