// The calls about namespaces, and what is answered from memory on the calling thread.

import CHearth
import Hearth
import LogStore

/// `hearth_namespace_open` of hearth.h.
@c(hearth_namespace_open)
public func hearthNamespaceOpen(
    _ store: UInt64, _ fields: UnsafePointer<hearth_field>?, _ count: UInt32, _ layout: UInt32,
    _ timeToLive: UInt32, _ capBytes: UInt64, _ space: UnsafeMutablePointer<UInt64>?
) -> Int32 {
    status { () throws(Failure) in
        try mayWait("hearth_namespace_open")
        let result = try given(space, "space")
        result.pointee = 0
        let found = try OpenStore.find(store)
        guard layout == HEARTH_PACKED || layout == HEARTH_ALIGNED else {
            throw .argument("layout \(layout): give HEARTH_PACKED or HEARTH_ALIGNED.")
        }
        guard (1...256).contains(count) else {
            throw .argument("count \(count): a namespace has 1 to 256 fields.")
        }
        let given = try given(fields, "fields")
        var read: [(String, String)] = []
        for index in 0..<Int(count) {
            guard let name = given[index].name, let value = given[index].value else {
                throw .argument("fields[\(index)]: its name or value is NULL.")
            }
            read.append(
                (
                    try text(name, "fields[\(index)].name"),
                    try text(value, "fields[\(index)].value")
                ))
        }
        var description = NamespaceDescription(
            read, layout: layout == HEARTH_ALIGNED ? .aligned : .packed)
        description.timeToLiveSeconds = timeToLive
        description.capBytes = capBytes
        let wanted = description
        let opened = try attempt { () throws(HearthError) in
            try found.store.namespaceAndWait(wanted)
        }
        result.pointee = try found.add(OpenNamespace(found, opened))
    }
}

/// `hearth_namespace_close` of hearth.h.
@c(hearth_namespace_close)
public func hearthNamespaceClose(_ space: UInt64) -> Int32 {
    status { () throws(Failure) in
        try OpenNamespace.find(space).store.remove(namespace: space)
    }
}

/// `hearth_namespace_purge` of hearth.h.
@c(hearth_namespace_purge)
public func hearthNamespacePurge(_ space: UInt64) -> Int32 {
    status { () throws(Failure) in
        try mayWait("hearth_namespace_purge")
        let found = try OpenNamespace.find(space)
        try attempt { () throws(HearthError) in try found.store.store.purgeAndWait(found.space) }
        found.store.remove(namespace: space)
    }
}

extension OpenNamespace {
    /// Whether one key is there. Engines ask for one key at a time, and then a list, its checks and
    /// its room would cost more than the answer.
    func contains(
        _ data: UnsafeRawPointer?, _ bytes: UInt64, _ key: hearth_span
    ) throws(Failure) -> Bool {
        let data = try BatchData(data, bytes)
        try KeyList.check(key, in: data, 0)
        return store.session.contains(data.bytes(key), in: space)
    }
}

/// Keys as the store reads them, a part at a time.
struct KeyList {
    let data: BatchData
    let keys: UnsafePointer<hearth_span>?
    let count: Int

    init(
        _ data: UnsafeRawPointer?, _ bytes: UInt64, _ keys: UnsafePointer<hearth_span>?,
        _ count: UInt32
    ) throws(Failure) {
        self.data = try BatchData(data, bytes)
        self.count = Int(count)
        self.keys = keys
        if count > 0 {
            let keys = try given(keys, "keys")
            for index in 0..<Int(count) { try Self.check(keys[index], in: self.data, index) }
        }
    }

    static func check(_ key: hearth_span, in data: BatchData, _ index: Int) throws(Failure) {
        try data.check(key, "keys[\(index)]")
        guard (1...512).contains(key.length) else {
            throw .argument("keys[\(index)]: \(key.length) bytes: a key has 1 to 512.")
        }
    }

    func bytes(_ number: Int) -> UnsafeRawBufferPointer {
        guard let keys else { return UnsafeRawBufferPointer(start: nil, count: 0) }
        return data.bytes(keys[number])
    }

    /// Asks in parts; `body` gets what each part found, and whether to go on is its answer.
    func ask(
        _ space: OpenNamespace, _ body: (UnsafePointer<Bool>, Int) -> Bool
    ) {
        guard let keys else { return }
        let most = 64  // room that is still on the stack
        withUnsafeTemporaryAllocation(of: UnsafeRawBufferPointer.self, capacity: most) { list in
            withUnsafeTemporaryAllocation(of: Bool.self, capacity: most) { found in
                guard let base = found.baseAddress else { return }
                var start = 0
                while start < count {
                    let part = min(most, count - start)
                    for index in 0..<part {
                        list.initializeElement(at: index, to: data.bytes(keys[start + index]))
                    }
                    space.store.session.contains(
                        UnsafeBufferPointer(rebasing: list[..<part]), in: space.space, into: base)
                    if !body(base, part) { return }
                    start += part
                }
            }
        }
    }
}

/// `hearth_contains` of hearth.h.
@c(hearth_contains)
public func hearthContains(
    _ space: UInt64, _ data: UnsafeRawPointer?, _ dataBytes: UInt64,
    _ keys: UnsafePointer<hearth_span>?, _ count: UInt32, _ found: UnsafeMutablePointer<UInt8>?
) -> Int64 {
    call { () throws(Failure) in
        let namespace = try OpenNamespace.find(space)
        if count == 1, let keys, let found {
            let isThere = try namespace.contains(data, dataBytes, keys.pointee)
            found.pointee = isThere ? 1 : 0
            return isThere ? 1 : 0
        }
        let list = try KeyList(data, dataBytes, keys, count)
        if count == 0 { return 0 }
        let into = try given(found, "found")
        var number = 0
        var present: Int64 = 0
        list.ask(namespace) { answers, part in
            for index in 0..<part {
                into[number] = answers[index] ? 1 : 0
                present += answers[index] ? 1 : 0
                number += 1
            }
            return true
        }
        return present
    }
}

/// `hearth_prefix` of hearth.h.
@c(hearth_prefix)
public func hearthPrefix(
    _ space: UInt64, _ data: UnsafeRawPointer?, _ dataBytes: UInt64,
    _ keys: UnsafePointer<hearth_span>?, _ count: UInt32
) -> Int64 {
    call { () throws(Failure) in
        let namespace = try OpenNamespace.find(space)
        let list = try KeyList(data, dataBytes, keys, count)
        var present: Int64 = 0
        list.ask(namespace) { answers, part in
            for index in 0..<part {
                if !answers[index] { return false }
                present += 1
            }
            return true
        }
        return present
    }
}

/// `hearth_list` of hearth.h.
@c(hearth_list)
public func hearthList(
    _ space: UInt64, _ cursor: UnsafeMutablePointer<UInt64>?,
    _ entries: UnsafeMutablePointer<hearth_entry>?, _ room: UInt32,
    _ data: UnsafeMutableRawPointer?, _ dataRoom: UInt64
) -> Int64 {
    call { () throws(Failure) in
        try mayWait("hearth_list")
        let namespace = try OpenNamespace.find(space)
        let cursor = try given(cursor, "cursor")
        let into = try given(entries, "entries")
        guard let data else { throw .argument("data is NULL.") }
        guard room > 0 else { throw .argument("room is 0: give room for an entry at least.") }
        guard dataRoom >= 512 else {
            throw .argument("data_room \(dataRoom): a key may have 512 bytes: give as many.")
        }
        guard let place = ListPlace(cursor: cursor.pointee) else {
            throw .argument("*cursor is not one that hearth_list gave: begin with 0.")
        }
        let part = try attempt { () throws(HearthError) in
            // A span's offset has 32 bits.
            try namespace.store.store.listAndWait(
                namespace.space, from: place, room: min(Int(room), 1 << 20),
                keyRoom: Int(min(dataRoom, 1 << 30)))
        }
        part.keys.withUnsafeBytes { keys in
            if let base = keys.baseAddress { data.copyMemory(from: base, byteCount: keys.count) }
        }
        for (index, block) in part.blocks.enumerated() {
            var entry = hearth_entry()
            entry.key = hearth_span(
                offset: UInt32(block.keyOffset), length: UInt32(block.keyLength))
            entry.length = UInt64(block.length)
            entry.version = block.version
            entry.shard_count = UInt32(block.shardCount)
            into.advanced(by: index).initialize(to: entry)
        }
        cursor.pointee = part.place.cursor
        return Int64(part.blocks.count)
    }
}
