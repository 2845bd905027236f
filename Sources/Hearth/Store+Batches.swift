// The batch calls: put, get, delete and hints, and what is answered from memory on the caller's
// thread. Results are in the order of the items.

import BlockIO
import LogStore
import Staging

extension Store {
    // MARK: Put and delete

    /// Puts blocks; a present one is left as it is unless `replace` says otherwise. Returns when
    /// each has the durability asked for, or was refused.
    public func put(
        _ items: [PutItem], in namespace: Namespace, options: PutOptions = PutOptions()
    ) async -> [PutResult] {
        if namespace.isPurged { return items.map { _ in PutResult(status: .invalid) } }
        if shared.recorder != nil { recordPuts(items, namespace) }
        let batch = Batch(
            count: items.count,
            keyBytes: items.reduce(0) {
                $0 + $1.key.bytes.count + ($1.parent?.bytes.count ?? 0)
            },
            pieces: items.reduce(0) { $0 + $1.value.pieces.count },
            shardLengths: items.reduce(0) { $0 + ($1.shardLengths?.count ?? 0) })
        let deadline = self.deadline(options.deadline)
        for item in items {
            var operation = batch.operation(.put, namespace, item.key)
            if let parent = item.parent { operation.parent = batch.copy(parent) }
            (operation.pieces, operation.pieceCount) = batch.copy(item.value)
            operation.length = UInt32(clamping: item.value.byteCount)
            if let shards = item.shardLengths {
                // No shards at all is not the same as not saying: the core refuses a count of 0.
                operation.shardLengths = batch.copy(shards)
                operation.shardCount = shards.count
            }
            switch options.durability {
            case .volatile: operation.durability = .volatile
            case .written: operation.durability = .written
            case .durable: operation.durability = .durable
            }
            operation.replace = options.replace
            operation.timeToLive = options.timeToLiveSeconds
            operation.deadline = deadline
            batch.append(operation)
        }
        await batch.run(engine, namespace)
        return withExtendedLifetime(items) { batch.answers.map(PutResult.init) }
    }

    /// Puts one block.
    public func put(
        _ item: PutItem, in namespace: Namespace, options: PutOptions = PutOptions()
    ) async -> PutResult {
        await put([item], in: namespace, options: options)[0]
    }

    /// Deletes blocks for good: they stay deleted over crash and damage.
    public func delete(
        _ keys: [Key], in namespace: Namespace, deadline: Duration? = nil
    ) async -> [DeleteResult] {
        await simple(.delete, keys, namespace, deadline: self.deadline(deadline))
            .map(DeleteResult.init)
    }

    // MARK: Get

    /// Gets blocks, or parts of them, into the callers' memory. Every byte of a hit was checked.
    /// In `cached` mode, blocks in the DRAM tier are copied on the calling thread.
    public func get(
        _ items: [GetItem], in namespace: Namespace, options: GetOptions = GetOptions()
    ) async -> [GetResult] {
        if namespace.isPurged { return items.map { _ in GetResult(status: .invalid) } }
        if shared.recorder != nil {
            recordGets(count: items.count, namespace) { (items[$0].key, items[$0].selection) }
        }
        var results = [GetResult](repeating: GetResult(status: .miss), count: items.count)
        var rest = Array(items.indices)
        if options.mode == .cached && shared.inclusive && shared.hasArena {
            rest = serveResidents(items, namespace, &results)
        }
        guard !rest.isEmpty else { return results }
        let batch = Batch(
            count: rest.count, keyBytes: rest.reduce(0) { $0 + items[$1].key.bytes.count },
            pieces: rest.reduce(0) { $0 + items[$1].destination.pieces.count })
        let deadline = self.deadline(options.deadline)
        // An empty selection has no place in the core's words, where 0 means all.
        var invalid: Set<Int> = []
        for number in rest {
            let item = items[number]
            var operation = batch.operation(.get, namespace, item.key)
            (operation.pieces, operation.pieceCount) = batch.copy(item.destination)
            operation.mode = options.mode == .cached ? .cached : .direct
            operation.deadline = deadline
            if operation.select(item.selection) {
                batch.append(operation)
            } else {
                invalid.insert(number)
                results[number] = GetResult(status: .invalid)
            }
        }
        await batch.run(engine, namespace)
        for (answer, number) in zip(batch.answers, rest.filter { !invalid.contains($0) }) {
            results[number] = GetResult(answer)
        }
        return withExtendedLifetime(items) { results }
    }

    /// Gets one block, or a part of it.
    public func get(
        _ item: GetItem, in namespace: Namespace, options: GetOptions = GetOptions()
    ) async -> GetResult {
        await get([item], in: namespace, options: options)[0]
    }

    /// The bytes of a block of at most `limit` bytes, copied; nil when it is not there. The
    /// convenient way; `get` with memory of one's own is the fast one.
    public func value(
        of key: Key, in namespace: Namespace, upTo limit: Int? = nil
    ) async -> [UInt8]? {
        let buffer = Buffer(count: limit ?? configuration.maximumBlockBytes)
        let result = await get(
            GetItem(key: key, into: Memory(buffer)), in: namespace,
            options: GetOptions(mode: .cached))
        return result.isHit ? [UInt8](buffer.bytes[..<result.delivered]) : nil
    }

    /// Serves what it can from residents; returns what is left.
    private func serveResidents(
        _ items: [GetItem], _ namespace: Namespace, _ results: inout [GetResult]
    ) -> [Int] {
        let start = engine.clock.monotonic
        var left: [Int] = []
        var bytes = 0
        for (number, item) in items.enumerated() {
            guard Self.isValid(item.key) else {
                left.append(number)
                continue
            }
            let fingerprint = shared.fingerprint(namespace.instance, item.key)
            guard let result = shared.copyResident(fingerprint, item) else {
                left.append(number)
                continue
            }
            results[number] = result
            bytes += result.delivered
            shared.touches.push(StagingKey(hi: fingerprint.hi, lo: fingerprint.lo))
        }
        let hits = items.count - left.count
        if hits > 0 {
            shared.noteHits(hits, bytes: bytes, nanoseconds: engine.clock.monotonic - start)
        }
        return left
    }

    static func isValid(_ key: Key) -> Bool {
        !key.bytes.isEmpty && key.bytes.count <= Key.maximumBytes
    }

    // MARK: Memory only, on this thread

    /// Whether each key is there, from memory alone and without waiting. While the index is being
    /// rebuilt a block that is there may not be found yet.
    public func contains(_ keys: [Key], in namespace: Namespace) -> [Bool] {
        var found = [Bool](repeating: false, count: keys.count)
        if namespace.isPurged || keys.isEmpty { return found }
        found.withUnsafeMutableBufferPointer { into in
            var start = 0
            while start < keys.count, let base = into.baseAddress {
                let end = min(keys.count, start + 1024)
                shared.contains(namespace.instance, keys[start..<end], into: base + start)
                start = end
            }
        }
        return found
    }

    /// How many keys from the first on are there without a gap, from memory alone.
    public func longestPrefix(_ keys: [Key], in namespace: Namespace) -> Int {
        if namespace.isPurged { return 0 }
        var start = 0
        return withUnsafeTemporaryAllocation(of: Bool.self, capacity: 64) { room in
            guard let base = room.baseAddress else { return 0 }
            while start < keys.count {
                let end = min(keys.count, start + 64)
                shared.contains(namespace.instance, keys[start..<end], into: base)
                for number in start..<end where !base[number - start] { return number }
                start = end
            }
            return keys.count
        }
    }

    // MARK: Hints and pins

    /// Tells that these blocks were used elsewhere, head of the chain first.
    public func touch(_ keys: [Key], in namespace: Namespace) async {
        _ = await simple(.touch, keys, namespace, deadline: 0)
    }

    /// Protects stored blocks from eviction for so long (not over a restart). True for each that
    /// is pinned; false for one that is not there, or where pins would hold over a quarter of the
    /// capacity.
    public func pin(
        _ keys: [Key], in namespace: Namespace, for duration: Duration
    ) async -> [Bool] {
        await simple(.pin, keys, namespace, deadline: deadline(duration))
            .map { $0.status == .done }
    }

    /// Protects stored blocks from eviction until then.
    public func pin(
        _ keys: [Key], in namespace: Namespace, until instant: ContinuousClock.Instant
    ) async -> [Bool] {
        await pin(keys, in: namespace, for: max(.zero, instant - .now))
    }

    /// Ends pins before their time.
    public func unpin(_ keys: [Key], in namespace: Namespace) async {
        _ = await simple(.unpin, keys, namespace, deadline: 0)
    }

    private func simple(
        _ kind: StoreOperationKind, _ keys: [Key], _ namespace: Namespace, deadline: UInt64
    ) async -> [StoreAnswer] {
        if namespace.isPurged {
            return keys.map { _ in StoreAnswer(token: 0, status: .invalid) }
        }
        let batch = Batch(
            count: keys.count, keyBytes: keys.reduce(0) { $0 + $1.bytes.count })
        for key in keys {
            var operation = batch.operation(kind, namespace, key)
            operation.deadline = deadline
            batch.append(operation)
        }
        await batch.run(engine, namespace)
        return batch.answers
    }

    /// Monotonic nanoseconds after so long; 0 for no deadline.
    func deadline(_ duration: Duration?) -> UInt64 {
        guard let duration else { return 0 }
        let (seconds, attoseconds) = duration.components
        let clamped = min(max(seconds, 0), 1 << 32)
        let part = seconds < 0 ? 0 : attoseconds / 1_000_000_000
        return engine.clock.monotonic + UInt64(clamped) * 1_000_000_000 + UInt64(max(part, 0))
    }
}

extension StoreOperation {
    /// Puts a selection into the core's words; false for one that has none.
    mutating func select(_ selection: Selection) -> Bool {
        switch selection {
        case .whole: return true
        case .shards(let range):
            guard !range.isEmpty, range.lowerBound >= 0 else { return false }
            firstShard = range.lowerBound
            shardCount = range.count
        case .bytes(let range):
            guard !range.isEmpty else { return false }
            byteOffset = range.lowerBound
            byteCount = UInt64(range.count)
        }
        return true
    }
}
