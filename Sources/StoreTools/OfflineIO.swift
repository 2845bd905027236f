// OfflineIO: a driver's requests, begun and waited for one by one, for tools that work on a closed
// store. Each request that was begun is ended exactly once; its memory is the driver's until then.

import BlockIO
import Glibc

package final class OfflineIO {
    package let driver: any BlockDriver
    package let clock: any Clock
    private var results: [UInt64: Int64] = [:]
    private var lastTag: UInt64 = 0
    private let completions: UnsafeMutableBufferPointer<IOCompletion>
    /// Bytes read so far.
    package private(set) var bytesRead: UInt64 = 0

    package init(driver: any BlockDriver, clock: any Clock) {
        self.driver = driver
        self.clock = clock
        completions = .allocate(capacity: 64)
    }

    deinit { completions.deallocate() }

    private func collect() {
        let count = driver.reap(completions)
        for completion in completions[..<count] { results[completion.tag] = completion.result }
    }

    private func sleep() { driver.wait(until: clock.monotonic + 1_000_000_000) }

    /// Begins a request; `end` gives its result.
    package func begin(
        _ operation: IOOperation, _ file: FileID, offset: UInt64,
        _ memory: UnsafeMutableRawPointer? = nil, length: Int
    ) -> UInt64 {
        lastTag += 1
        let request = IORequest(
            tag: lastTag, operation: operation, file: file, fileOffset: offset,
            piece: Piece(
                region: .process, offset: UInt64(UInt(bitPattern: memory)),
                length: UInt64(length)))
        while !driver.prepare(request) {
            collect()
            if driver.prepare(request) { break }
            sleep()
        }
        driver.submit()
        if operation == .read { bytesRead += UInt64(length) }
        return lastTag
    }

    /// Waits for a request: 0, or its errno.
    package func end(_ tag: UInt64) -> Int32 {
        while true {
            collect()
            if let result = results.removeValue(forKey: tag) {
                return result < 0 ? Int32(truncatingIfNeeded: -result) : 0
            }
            sleep()
        }
    }

    package func read(
        _ file: FileID, offset: UInt64, into memory: UnsafeMutableRawPointer, length: Int
    ) -> Int32 {
        end(begin(.read, file, offset: offset, memory, length: length))
    }
}

extension OfflineIO {
    /// Writes zeros over whole pages and flushes the file: 0, or an errno. What cannot be read can
    /// mostly be written, and can be read from then on.
    package func blank(_ file: FileID, offset: UInt64, length: Int) -> Int32 {
        let zeros = PageBuffer(bytes: length)
        let errno = end(begin(.write, file, offset: offset, zeros.base, length: length))
        return errno != 0 ? errno : end(begin(.sync, file, offset: 0, length: 0))
    }
}

/// Page-aligned memory with an owner.
package final class PageBuffer: @unchecked Sendable {
    // Unchecked: handed from thread to thread with the job that it belongs to, never shared.
    package let base: UnsafeMutableRawPointer
    package let count: Int

    package init(bytes: Int) {
        count = max(bytes, 4096)
        base = .allocate(byteCount: count, alignment: 4096)
        memset(base, 0, count)
    }

    deinit { base.deallocate() }

    package var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: base, count: count) }

    package func slice(_ offset: Int, _ length: Int) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: bytes[offset..<(offset + length)])
    }

    package func page(_ number: Int) -> UnsafeRawBufferPointer { slice(number * 4096, 4096) }
}
