// Handles, options and numbers of the C interface, from inside: what its programs in Tests/CABI
// cannot see.

import CHearth
import Hearth
import LogStore
import Staging
import Testing

@testable import HearthABI

private final class Thing: Sendable {}

@Suite struct HandleTests {
    private func code(_ body: () throws(Failure) -> Void) -> Int {
        do throws(Failure) {
            try body()
            return 0
        } catch {
            return Int(error.code)
        }
    }

    @Test func aHandleFindsItsObjectUntilItIsClosed() throws {
        let table = HandleTable<Thing>(.queue, epoch: 0)
        let things = (0..<100).map { _ in Thing() }
        let handles = try things.map { try table.add($0) }
        #expect(Set(handles).count == 100 && !handles.contains(0))
        for (thing, handle) in zip(things, handles) { #expect(try table.find(handle) === thing) }
        #expect(table.remove(handles[7]) === things[7])
        #expect(table.remove(handles[7]) == nil)
        #expect(code { () throws(Failure) in _ = try table.find(handles[7]) } == HEARTH_E_HANDLE)
        // Its place is used again, under another number.
        let again = try table.add(Thing())
        #expect(HandleParts(again).slot == HandleParts(handles[7]).slot && again != handles[7])
        #expect(code { () throws(Failure) in _ = try table.find(handles[7]) } == HEARTH_E_HANDLE)
    }

    @Test func aHandleOfBeforeTheForkSaysSo() throws {
        let parent = HandleTable<Thing>(.store, epoch: 0)
        let handle = try parent.add(Thing())
        let child = HandleTable<Thing>(.store, epoch: 1)
        #expect(code { () throws(Failure) in _ = try child.find(handle) } == HEARTH_E_FORKED)
        // Of another kind, or of a fork that has not happened, it is just wrong.
        let queues = HandleTable<Thing>(.queue, epoch: 1)
        #expect(code { () throws(Failure) in _ = try queues.find(handle) } == HEARTH_E_HANDLE)
        let later = try child.add(Thing())
        #expect(code { () throws(Failure) in _ = try parent.find(later) } == HEARTH_E_HANDLE)
    }

    /// A slot whose generations are used up is left: no old handle comes to mean something new.
    @Test func generationsRunOut() throws {
        let table = HandleTable<Thing>(.namespace, epoch: 0)
        let thing = Thing()
        let first = try table.add(thing)
        table.remove(first)
        var elsewhere = 0
        for _ in 2..<HandleParts.generationLimit {
            let handle = try table.add(thing)
            if HandleParts(handle).slot != 0 { elsewhere += 1 }
            table.remove(handle)
        }
        #expect(elsewhere == 0)
        let next = try table.add(thing)
        #expect(HandleParts(next).slot == 1)
        #expect(code { () throws(Failure) in _ = try table.find(first) } == HEARTH_E_HANDLE)
    }

    @Test func anyNumberIsRefused() {
        let table = HandleTable<Thing>(.store, epoch: 3)
        var random = SystemRandomNumberGenerator()
        for _ in 0..<10_000 {
            let handle = random.next()
            let code = code { () throws(Failure) in _ = try table.find(handle) }
            #expect(code == HEARTH_E_HANDLE || code == HEARTH_E_FORKED)
        }
    }
}

@Suite struct NumberTests {
    /// Statuses, reasons, kinds and modes are handed through as they are.
    @Test func theCoresNumbersAreTheHeaders() {
        let statuses: [(Status, hearth_status)] = [
            (.stored, HEARTH_STORED), (.alreadyPresent, HEARTH_ALREADY),
            (.conflict, HEARTH_CONFLICT), (.notAdmitted, HEARTH_NOT_ADMITTED),
            (.throttled, HEARTH_THROTTLED), (.tooLarge, HEARTH_TOO_LARGE),
            (.noSpace, HEARTH_NO_SPACE), (.readOnly, HEARTH_READ_ONLY), (.failed, HEARTH_FAILED),
            (.hit, HEARTH_HIT), (.miss, HEARTH_MISS), (.deleted, HEARTH_DELETED),
            (.notFound, HEARTH_NOT_FOUND), (.cancelled, HEARTH_CANCELLED),
            (.timedOut, HEARTH_TIMED_OUT), (.invalid, HEARTH_INVALID), (.done, HEARTH_DONE),
        ]
        #expect(statuses.count == Status.allCases.count)
        for (core, header) in statuses { #expect(UInt32(core.rawValue) == header.rawValue) }
        let reasons: [(MissReason, hearth_reason)] = [
            (.none, HEARTH_REASON_NONE), (.neverPut, HEARTH_REASON_NEVER_PUT),
            (.notAdmitted, HEARTH_REASON_NOT_ADMITTED), (.evicted, HEARTH_REASON_EVICTED),
            (.expired, HEARTH_REASON_EXPIRED), (.deleted, HEARTH_REASON_DELETED),
            (.quarantined, HEARTH_REASON_QUARANTINED),
            (.failedCheck, HEARTH_REASON_FAILED_CHECK), (.declined, HEARTH_REASON_DECLINED),
            (.otherNamespace, HEARTH_REASON_OTHER_NAMESPACE),
            (.deviceOut, HEARTH_REASON_DEVICE_OUT), (.recovering, HEARTH_REASON_RECOVERING),
            (.deadline, HEARTH_REASON_DEADLINE),
        ]
        #expect(reasons.count == MissReason.allCases.count)
        for (core, header) in reasons { #expect(UInt32(core.rawValue) == header.rawValue) }
        let kinds: [(StoreOperationKind, hearth_kind)] = [
            (.get, HEARTH_GET), (.put, HEARTH_PUT), (.delete, HEARTH_DELETE),
            (.touch, HEARTH_TOUCH), (.pin, HEARTH_PIN), (.unpin, HEARTH_UNPIN),
            (.contains, HEARTH_CONTAINS),
        ]
        for (core, header) in kinds { #expect(UInt32(core.rawValue) == header.rawValue) }
        let modes: [(GetMode, hearth_mode)] = [
            (.direct, HEARTH_DIRECT), (.cached, HEARTH_CACHED), (.lease, HEARTH_LEASE),
        ]
        for (core, header) in modes { #expect(UInt32(core.rawValue) == header.rawValue) }
        let classes: [(Durability, hearth_durability)] = [
            (.volatile, HEARTH_VOLATILE), (.written, HEARTH_WRITTEN), (.durable, HEARTH_DURABLE),
        ]
        for (core, header) in classes { #expect(UInt32(core.rawValue) == header.rawValue) }
        #expect(HitTier.staging.rawValue == 1 && HitTier.device.rawValue == 2)
        let hints: [(HintKind, hearth_hint_kind)] = [
            (.chain, HEARTH_HINT_CHAIN), (.pages, HEARTH_HINT_PAGES),
            (.progress, HEARTH_HINT_PROGRESS), (.session, HEARTH_HINT_SESSION),
            (.touched, HEARTH_HINT_TOUCHED), (.cancel, HEARTH_HINT_CANCEL),
            (.release, HEARTH_HINT_RELEASE), (.admitted, HEARTH_HINT_ADMITTED),
            (.evicted, HEARTH_HINT_EVICTED), (.ended, HEARTH_HINT_ENDED),
        ]
        #expect(hints.count == HintKind.allCases.count)
        for (core, header) in hints { #expect(core.rawValue == header.rawValue) }
    }

    /// As Swift imports them; the C side holds sizes and offsets at compile time.
    @Test func structuresHaveTheirSizes() {
        #expect(MemoryLayout<hearth_operation>.size == 128)
        #expect(MemoryLayout<hearth_completion>.size == 96)
        #expect(MemoryLayout<hearth_piece>.size == 24)
        #expect(MemoryLayout<hearth_hint_message>.size == 72)
        #expect(MemoryLayout<hearth_entry>.size == 32)
        #expect(MemoryLayout<hearth_span>.size == 8)
        #expect(MemoryLayout<hearth_operation>.offset(of: \.space) == 8)
        #expect(MemoryLayout<hearth_operation>.offset(of: \.key) == 24)
        #expect(MemoryLayout<hearth_operation>.offset(of: \.timeout_ns) == 80)
        #expect(MemoryLayout<hearth_operation>.offset(of: \.reserved) == 88)
        #expect(MemoryLayout<hearth_completion>.offset(of: \.version) == 16)
        #expect(MemoryLayout<hearth_completion>.offset(of: \.lease) == 72)
    }
}

@Suite struct OptionTests {
    private func made(_ options: String...) throws -> Configuration {
        var made = try OpenOptions(endpoint: "dir:/a,/b")
        for option in options { try made.take(option) }
        return try made.finished()
    }

    @Test func everyOptionIsTaken() throws {
        let made = try made(
            "capacity=2T", "mode=store", "open=strict", "max_block=1MiB", "segment=64m",
            "memory=3GiB", "staging=256M", "slab=128k", "staging_mode=exclusive",
            "index_entries=1M", "expected_block=8192", "table_cache=4M", "driver=threads",
            "queue_depth=32", "operations=512", "group=512K", "group_buffers=9",
            "clean_segments=3", "write_amplification=1.25", "heat_half_life=2",
            "overload=memory", "write_on=again", "write_budget=2T", "scrub=1M",
            "discard=100M",
            "statistics_period=0.5", "allow_absent=0", "holder=engine 7")
        #expect(made.scrubBytesPerSecond == 1 << 20)
        #expect(made.discardBytesPerSecond == 100 << 20)
        #expect(made.writeAmplification == 1.25 && made.heatHalfLife == 2)
        #expect(made.overload == .memory && made.writeMoment == .again)
        #expect(made.writeBudgetBytesPerDay == 2 << 40)
        #expect(made.statisticsPeriodSeconds == 0.5)
        #expect(made.directories == ["/a", "/b"])
        #expect(made.capacityBytes == 2 << 40 && made.mode == .store && made.openMode == .strict)
        #expect(made.maximumBlockBytes == 1 << 20 && made.minimumSegmentBytes == 64 << 20)
        #expect(made.memoryLimitBytes == 3 << 30 && made.stagingBytes == 256 << 20)
        #expect(made.slabBytes == 128 << 10 && made.stagingMode == .exclusive)
        #expect(made.indexEntries == 1 << 20 && made.expectedBlockBytes == 8192)
        #expect(made.tableCacheBytes == 4 << 20 && made.driver == .threads)
        #expect(made.queueDepth == 32 && made.operationsInFlight == 512)
        #expect(made.groupBytes == 512 << 10 && made.groupBuffers == 9)
        #expect(made.cleanSegments == 3 && !made.allowAbsentMembers)
        #expect(made.holder == "engine 7")
    }

    @Test func valueBytesSetTheCapacity() throws {
        let made = try made("value_bytes=10G", "expected_block=1M")
        #expect(
            made.capacityBytes
                == made.capacity(forValueBytes: 10 << 30, blockBytes: 1 << 20))
        #expect(made.capacityBytes > 10 << 30)
    }

    @Test func sizes() throws {
        #expect(try OpenOptions.size("x", "0") == 0)
        #expect(try OpenOptions.size("x", "17") == 17)
        #expect(try OpenOptions.size("x", "3kib") == 3072)
        #expect(try OpenOptions.size("x", "18446744073709551615") == UInt64.max)
        for wrong in ["", "K", "1.5G", "-1", "1 G", "16E", "1iB", "٣", "16384P"] {
            #expect(throws: Failure.self) { try OpenOptions.size("x", wrong) }
        }
    }
}
