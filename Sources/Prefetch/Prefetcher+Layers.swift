// Layers: pages of a model's layers, which are parts of blocks. What the engine says that it will
// pick is wanted for that layer's time. What it picked in one layer makes the same pages of the
// next ones likely, of which those are wanted that were picked there often enough lately.

import LogStore
import Staging

extension Prefetcher {
    /// Layers ahead at the most.
    private static let mostLayersAhead = 4
    /// Hints of less confidence would waste more than seven of eight parts; 0 is for not told.
    private static let leastConfidence: UInt32 = 1 << 13

    // MARK: What is told

    /// The name of the pages of one request's layer among requests.
    private func layerID(_ request: UInt64, _ layer: UInt32) -> UInt64 {
        (request &+ 1) &* 0xBF58_476D_1CE4_E5B9 ^ (UInt64(layer) &+ 1) &* 0x94D0_49BB_1331_11EB
    }

    func pages(_ hint: Hint, _ keys: UnsafeBufferPointer<UnsafeRawBufferPointer>) {
        guard configuration.predictors.contains(.pages), !keys.isEmpty,
            log.namespaces.isLive(hint.namespaceSlot)
        else { return }
        guard hint.confidence == 0 || hint.confidence >= Self.leastConfidence else {
            counts.unsure += UInt64(keys.count)
            return
        }
        let now = log.clock.monotonic
        let layers = layerClock.distance(hint.request, step: hint.step, layer: hint.layer)
        let due = hint.due == 0 ? now + UInt64(layers) * layerClock.layerTime : hint.due
        let request = request(layerID(hint.request, hint.layer), due: due)
        guard request >= 0 else {
            counts.overflowed += UInt64(keys.count)
            return
        }
        queue.retain(request)
        for key in keys {
            let fingerprint = log.fingerprint(hint.namespaceSlot, key)
            count(
                wantPart(
                    request, fingerprint, key, hint.namespaceSlot, first: hint.firstShard,
                    count: hint.shardCount, .pages))
        }
        queue.release(request)
    }

    /// The request is at a layer: what it was to pick in the one before, and has not, it will not.
    func progress(_ hint: Hint) {
        let now = log.clock.monotonic
        guard
            let left = layerClock.progress(
                hint.request, step: hint.step, layer: hint.layer, now: now)
        else { return }
        let request = queue.findRequest(layerID(hint.request, left))
        guard request >= 0 else { return }
        queue.retain(request)
        while queue.requests[Int(request)].head >= 0 {
            counts.cancelled += 1
            queue.remove(queue.requests[Int(request)].head)
        }
        while queue.requests[Int(request)].marks >= 0 {
            // It may be picked in a later step: it stays as recent as it is, but is not awaited.
            let slot = queue.requests[Int(request)].marks
            unused.displace(slot)
            unused.detach(slot, in: queue)
            arena.setAwaited(ResidentSlot(slot), until: 0)
        }
        queue.release(request)
    }

    /// Puts a run of shards into the queue, unless it is there, in staging, or not stored.
    func wantPart(
        _ request: Int32, _ fingerprint: Fingerprint, _ key: UnsafeRawBufferPointer,
        _ namespaceSlot: UInt16, first: UInt32, count: UInt32, _ predictor: PredictorKind
    ) -> Wanted {
        guard count > 0 else {
            return want(request, fingerprint, key, namespaceSlot: namespaceSlot, predictor)
        }
        guard let entry = log.lookup(fingerprint).entry, !entry.isDamaged,
            UInt64(first) + UInt64(count) <= UInt64(entry.shardCount)
        else { return .absent }
        if Int(count) == entry.shardCount {
            return want(request, fingerprint, key, namespaceSlot: namespaceSlot, predictor)
        }
        let own = fingerprint.part(Int(first), Int(count))
        if let found = arena.find(own.stagingKey) {
            if found.state.isVisible, predictor == .pages { arena.touch(found.slot) }
            return .resident
        }
        if arena.find(fingerprint.stagingKey) != nil { return .resident }
        if queue.find(own) >= 0 || queue.find(fingerprint) >= 0 { return .twice }
        let isTaken = append(
            request, own, key, namespaceSlot, predictor, .waiting,
            part: (UInt16(first), UInt16(count)))
        return isTaken ? .queued : .overflowed
    }

    // MARK: What is guessed

    /// A run of shards was asked for, or used by an engine that has it itself.
    package func picked(_ access: Access) {
        guard access.shardCount > 0, configuration.predictors.contains(.layer) else { return }
        let (first, count) = (Int(access.firstShard), Int(access.shardCount))
        if access.firstShard < layerBefore { pickStep &+= 1 }
        layerBefore = access.firstShard
        let own = access.fingerprint.part(first, count)
        pickTable.picked(own.hi, step: pickStep)
        if isLeftToGuesses(access, own) { pickTable.missed() }
        guard let entry = log.lookup(access.fingerprint).entry, !entry.isDamaged,
            arena.find(access.fingerprint.stagingKey) == nil
        else { return }
        for ahead in 1...layersAhead {
            let next = first + ahead * count
            guard next + count <= entry.shardCount else { return }
            let own = access.fingerprint.part(next, count)
            guard pickTable.isWorth(own.hi, step: pickStep, ahead: ahead),
                arena.find(own.stagingKey) == nil, queue.find(own) < 0
            else { continue }
            guard let request = layerRequest(next, ahead) else {
                counts.overflowed += 1
                return
            }
            let isTaken = append(
                request, own, access.key, access.namespaceSlot, .layer, .waiting,
                part: (UInt16(next), UInt16(count)))
            if isTaken { pickTable.brought() } else { counts.overflowed += 1 }
        }
    }

    /// Whether a part was brought by a guess, or could have been: what hints bring is none of what
    /// guesses are made for, so that where hints are good few guesses are made beside them.
    private func isLeftToGuesses(_ access: Access, _ own: Fingerprint) -> Bool {
        switch access.kind {
        case .device, .joined:
            let index = queue.find(own)
            return index < 0 || queue.blocks[Int(index)].predictor == .layer
        case .resident:
            let slot = access.resident
            return unused.isMarked(slot) && unused.marks[Int(slot)].predictor == .layer
        case .touch, .miss, .put: return false
        }
    }

    /// As many as bringing a part takes, in layers.
    private var layersAhead: Int {
        let layer = layerClock.layerTime
        guard layer > 0, partTime > 0 else { return 1 }
        return min(Self.mostLayersAhead, max(1, Int((partTime + layer - 1) / layer)))
    }

    /// The queue's request that stands for guesses about a layer.
    private func layerRequest(_ shard: Int, _ ahead: Int) -> Int32? {
        let due = log.clock.monotonic + UInt64(ahead) * layerClock.layerTime
        let place = shard % Self.layerRequestCount
        let present = layerRequests[place]
        if present >= 0 {
            if queue.requests[Int(present)].head < 0 { queue.setDue(present, due) }
            return present
        }
        let made = request(0, due: due)
        guard made >= 0 else { return nil }
        queue.retain(made)
        layerRequests[place] = made
        return made
    }

    /// A part has come, so long after it was wanted.
    func partCame(after nanoseconds: UInt64) {
        partTime = partTime == 0 ? nanoseconds : partTime - partTime / 16 + nanoseconds / 16
    }
}
