// What layers of this package that sit on `Session` need of an open store beside it: what is
// resident, how regions are named, and what the owner thread has used. Nothing here is public.

import BlockIO
import Glibc
import Staging

extension Store {
    /// Whether the key's block is in the DRAM tier now. Any thread, without waiting.
    package func isResident(_ key: UnsafeRawBufferPointer, in namespace: Namespace) -> Bool {
        guard let residents = shared.residents else { return false }
        let id = shared.fingerprint(namespace.instance, key)
        return residents.contains(
            StagingKey(hi: id.hi, lo: id.lo), now: shared.engine.clock.wallSeconds)
    }

    /// The clock by which deadlines are told.
    package var monotonicNanoseconds: UInt64 { engine.clock.monotonic }

    /// Runs a closure on the owner thread, after what was pushed before; it must return soon.
    /// False: closed, it will not run.
    package func perform(_ body: @escaping @Sendable () -> Void) -> Bool {
        engine.perform { _ in body() }
    }

    /// Nanoseconds of processor time that the owner thread has used; 0 when closed.
    package func ownerProcessorNanoseconds() async -> UInt64 {
        let used: UInt64? = await shared.engine.ask { _, reply in
            var time = timespec()
            clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
            reply(UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec))
        }
        return used ?? 0
    }
}

extension MemoryRegion {
    /// A run of the region as the core names it.
    package func corePiece(offset: UInt64, length: UInt64) -> Piece {
        Piece(region: id, offset: offset, length: length)
    }
}
