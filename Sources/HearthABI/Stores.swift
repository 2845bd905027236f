// The calls about stores: open, close, durability, statistics.

import CHearth
import Hearth

/// `hearth_open` of hearth.h.
@c(hearth_open)
public func hearthOpen(
    _ endpoint: UnsafePointer<CChar>?,
    _ options: UnsafePointer<UnsafePointer<CChar>?>?, _ store: UnsafeMutablePointer<UInt64>?
) -> Int32 {
    status { () throws(Failure) in
        try mayWait("hearth_open")
        let result = try given(store, "store")
        result.pointee = 0
        var made = try OpenOptions(
            endpoint: try text(try given(endpoint, "endpoint"), "endpoint"))
        if let options {
            var number = 0
            while let option = options[number] {
                try made.take(try text(option, "options[\(number)]"))
                number += 1
            }
        }
        let configuration = try made.finished()
        let opened = try attempt { () throws(HearthError) in
            try Store.openAndWait(configuration)
        }
        let wrapped = OpenStore(opened)
        do throws(Failure) {
            result.pointee = try Registry.current.stores.add(wrapped)
        } catch {
            opened.closeAndWait()
            throw error
        }
    }
}

/// `hearth_close` of hearth.h.
@c(hearth_close)
public func hearthClose(_ store: UInt64) -> Int32 {
    status { () throws(Failure) in
        try mayWait("hearth_close")
        try Registry.current.stores.find(store).close(store)
    }
}

/// Runs a call that waits for the store.
private func waiting(
    _ handle: UInt64, _ name: StaticString, _ body: (Store) throws(HearthError) -> Void
) -> Int32 {
    status { () throws(Failure) in
        try mayWait(name)
        let found = try OpenStore.find(handle)
        try attempt { () throws(HearthError) in try body(found.store) }
    }
}

/// `hearth_wait_recovered` of hearth.h.
@c(hearth_wait_recovered)
public func hearthWaitRecovered(_ store: UInt64) -> Int32 {
    waiting(store, "hearth_wait_recovered") { (store) throws(HearthError) in
        try store.waitUntilRecoveredAndWait()
    }
}

/// `hearth_flush` of hearth.h.
@c(hearth_flush)
public func hearthFlush(_ store: UInt64, _ through: UInt64) -> Int32 {
    waiting(store, "hearth_flush") { (store) throws(HearthError) in
        try store.flushAndWait(through: through)
    }
}

/// `hearth_durable_version` of hearth.h.
@c(hearth_durable_version)
public func hearthDurableVersion(
    _ store: UInt64, _ version: UnsafeMutablePointer<UInt64>?
) -> Int32 {
    status { () throws(Failure) in
        try mayWait("hearth_durable_version")
        let result = try given(version, "version")
        let found = try OpenStore.find(store)
        result.pointee = try attempt { () throws(HearthError) in
            try found.store.durableVersionAndWait()
        }
    }
}

/// `hearth_checkpoint` of hearth.h.
@c(hearth_checkpoint)
public func hearthCheckpoint(_ store: UInt64) -> Int32 {
    waiting(store, "hearth_checkpoint") { (store) throws(HearthError) in
        try store.checkpointAndWait()
    }
}

/// `hearth_statistics` of hearth.h.
@c(hearth_statistics)
public func hearthStatistics(
    _ store: UInt64, _ format: UInt32, _ text: UnsafeMutablePointer<CChar>?, _ room: UInt64
) -> Int64 {
    call { () throws(Failure) in
        try mayWait("hearth_statistics")
        if text == nil && room > 0 { throw .argument("text is NULL, but room is \(room).") }
        guard format == HEARTH_JSON || format == HEARTH_PROMETHEUS else {
            throw .argument("format \(format): give HEARTH_JSON or HEARTH_PROMETHEUS.")
        }
        let found = try OpenStore.find(store)
        let statistics = try attempt { () throws(HearthError) in
            try found.store.statisticsAndWait()
        }
        var made = format == HEARTH_JSON ? statistics.json() : statistics.prometheus()
        return made.withUTF8 { bytes in
            let needed = bytes.count + 1
            guard UInt64(needed) <= room, let text else { return Int64(needed) }
            if let base = bytes.baseAddress {
                UnsafeMutableRawPointer(text).copyMemory(from: base, byteCount: bytes.count)
            }
            text[bytes.count] = 0
            return Int64(needed)
        }
    }
}
