// Requests: prepare, submit, schedule, reap, cancel. When something finishes is settled at submit;
// what it does is done at reap (SimulatedDriver+Transfer).

import BlockIO
import Glibc

extension SimulatedDriver {
    package func prepare(_ request: IORequest) -> Bool {
        guard let slot = freeSlots.popLast() else { return false }
        if request.operation == .read || request.operation == .write {
            precondition(regions.contains(request.piece), "a piece outside its region")
        }
        slots[slot].phase = .prepared
        slots[slot].request = request
        prepared.append(slot)
        if let handle = self[request.file] {
            handles[Int(request.file.raw)]?.inFlight += 1
            slots[slot].device = handle.device
        } else {
            slots[slot].device = -1
        }
        return true
    }

    package func submit() {
        if prepared.isEmpty { return }
        for index in prepared.indices { issue(prepared[index]) }
        prepared.removeAll(keepingCapacity: true)
    }

    package func reap(_ into: UnsafeMutableBufferPointer<IOCompletion>) -> Int {
        var count = 0
        let now = clock.monotonic
        while count < into.count, let next = nextEventTime(now: now), next <= now,
            let event = events.first
        {
            events.pop()
            guard let result = finish(event.slot) else { continue }
            into[count] = complete(event.slot, result, now: now)
            count += 1
        }
        return count
    }

    package func cancel(tag: UInt64) {
        trace(tag ^ 0xCA9CE1)
        if isGone { return }
        submit()
        let now = clock.monotonic
        for slot in 0..<limits.depth
        where slots[slot].phase == .submitted && slots[slot].request.tag == tag {
            // What a device has started it finishes; only what waits in a queue is given up.
            if slots[slot].startTime <= now || slots[slot].verdict != 0 { continue }
            statistics.cancelled += 1
            giveUp(slot, ECANCELED, at: now)
        }
    }

    // MARK: Scheduling

    /// The time of the first event that is not stale and not of a hung device.
    func nextEventTime(now: UInt64) -> UInt64? {
        if isGone { return nil }
        if !held.isEmpty { releaseHeld(now: now) }
        while let event = events.first {
            let slot = event.slot
            if slots[slot].event != event.order {
                events.pop()
                continue
            }
            let device = slots[slot].device
            if device < 0 || slots[slot].verdict != 0 { return event.time }
            let hungUntil = machine.state.devices[device].hungUntil
            if hungUntil <= max(event.time, now) { return event.time }
            events.pop()
            if hungUntil == UInt64.max {
                held.append(event)
            } else {
                schedule(slot, at: hungUntil)
            }
        }
        return nil
    }

    private func releaseHeld(now: UInt64) {
        let waiting = held
        held.removeAll(keepingCapacity: true)
        for event in waiting where slots[event.slot].event == event.order {
            if machine.state.devices[slots[event.slot].device].hungUntil == UInt64.max {
                held.append(event)
            } else {
                schedule(event.slot, at: max(event.time, now))
            }
        }
    }

    func schedule(_ slot: Int, at time: UInt64) {
        eventCount += 1
        slots[slot].event = eventCount
        events.push(DriverEvent(time: time, order: eventCount, slot: slot))
    }

    private func giveUp(_ slot: Int, _ error: Int32, at time: UInt64) {
        slots[slot].verdict = error
        schedule(slot, at: time)
    }

    /// Hands one prepared request to its device.
    private func issue(_ slot: Int) {
        let now = clock.monotonic
        let request = slots[slot].request
        slots[slot].phase = .submitted
        slots[slot].submitTime = now
        slots[slot].startTime = now
        slots[slot].progress = 0
        slots[slot].verdict = 0
        slots[slot].faults = 0
        slots[slot].inFlight = -1
        if isGone { return }
        statistics.submitted += 1
        traceRequest(request, now: now)
        let isTransfer = request.operation == .read || request.operation == .write
        if isTransfer {
            if registered.contains(request.piece.region.raw) {
                statistics.registeredBufferOps += 1
            } else {
                statistics.unregisteredOps += 1
            }
            if request.piece.length > UInt64(limits.transferBytes) { statistics.splitRequests += 1 }
        }
        guard let handle = self[request.file] else { return giveUp(slot, EBADF, at: now) }
        let refusal = check(request, handle)
        if refusal != 0 {
            countBoundary(request.operation)
            return giveUp(slot, refusal, at: now)
        }
        draw(slot, request.operation, exempt: handle.exempt)
        let finish = book(slot, request, now: now)
        if request.deadline != 0, slots[slot].startTime > request.deadline {
            countBoundary(request.operation)
            return giveUp(slot, ETIME, at: max(now, request.deadline))
        }
        start(slot, request, handle)
        schedule(slot, at: finish)
        countBoundary(request.operation)
    }

    private func traceRequest(_ request: IORequest, now: UInt64) {
        trace(request.tag)
        trace(
            UInt64(request.operation.rawValue) << 32 | UInt64(UInt32(bitPattern: request.file.raw)))
        trace(request.fileOffset)
        trace(request.piece.length)
        trace(now)
    }

    private func countBoundary(_ operation: IOOperation) {
        if operation == .read { return }
        boundaryCount += 1
        if boundaryCount == crashAfterBoundary { dead = true }
    }

    /// What a kernel refuses before the device sees it; 0 for nothing.
    private func check(_ request: IORequest, _ handle: DriverHandle) -> Int32 {
        if request.operation == .sync { return 0 }
        if handle.isDirectory { return request.operation == .read ? EISDIR : EBADF }
        let mask = UInt64(SimulatedPage.bytes - 1)
        if request.fileOffset & mask != 0 || request.piece.length & mask != 0 { return EINVAL }
        let limit = UInt64(SimulatedPage.maximumFileBytes)
        if request.fileOffset > limit || request.piece.length > limit - request.fileOffset {
            return EFBIG
        }
        if request.operation == .allocate || request.operation == .punchHole {
            return request.piece.length == 0 ? EINVAL : 0
        }
        // Mappings start on a page, so that the offset says the same of device memory.
        let address =
            regions.pointer(request.piece).map { UInt64(UInt(bitPattern: $0)) }
            ?? request.piece.offset
        return address & UInt64(SimulatedPage.sectorBytes - 1) != 0 ? EINVAL : 0
    }

    /// Books a channel and the bus; returns the finish time.
    private func book(_ slot: Int, _ request: IORequest, now: UInt64) -> UInt64 {
        let device = slots[slot].device
        while queues.count <= device {
            queues.append(
                DeviceQueue(channels: ContiguousArray(repeating: 0, count: latency.channels)))
        }
        var best = 0
        for channel in 0..<latency.channels {
            if queues[device].channels[channel] < queues[device].channels[best] { best = channel }
            if queues[device].channels[best] <= now { break }
        }
        let begin = max(now, queues[device].channels[best])
        slots[slot].startTime = begin
        let service = serviceTime(slot, request.operation, device, now: now)
        let end = cross(request, device, from: begin &+ service, now: now)
        // Given up before it starts: it takes nobody's place.
        if request.deadline == 0 || begin <= request.deadline {
            queues[device].channels[best] = end
        }
        return end &+ delay(slot, service)
    }

    /// When the request's bytes, of which the first is ready at `time`, are across.
    private func cross(
        _ request: IORequest, _ device: Int, from time: UInt64, now: UInt64
    ) -> UInt64 {
        let isWrite = request.operation == .write
        guard isWrite || request.operation == .read else { return time }
        let isApart = isWrite && latency.writeBytesPerSecond > 0
        let rate = isApart ? latency.writeBytesPerSecond : latency.bytesPerSecond
        guard rate > 0 else { return time }
        let bytes = request.piece.length.multipliedFullWidth(by: 1_000_000_000)
        let transfer = rate.dividingFullWidth(bytes).quotient &* slowness(device, now: now)
        if isApart {
            queues[device].writeBusFree = max(time, queues[device].writeBusFree) &+ transfer
            return queues[device].writeBusFree
        }
        queues[device].busFree = max(time, queues[device].busFree) &+ transfer
        return queues[device].busFree
    }

    func slowness(_ device: Int, now: UInt64) -> UInt64 {
        let own = machine.state.devices[device].latencyMultiplier
        if machine.state.devices[device].slowUntil <= now { return own }
        return own &* machine.state.devices[device].slowFactor
    }

    func serviceTime(_ slot: Int, _ operation: IOOperation, _ device: Int, now: UInt64) -> UInt64 {
        let drawn =
            switch operation {
            case .read: latency.read.draw(&latencyRandom)
            case .write: latency.write.draw(&latencyRandom)
            case .sync: latency.sync.draw(&latencyRandom)
            case .allocate, .punchHole: latency.metadata.draw(&latencyRandom)
            }
        return drawn &* slowness(device, now: now)
    }

    /// Frees the slot and says how the request ended.
    private func complete(_ slot: Int, _ result: Int64, now: UInt64) -> IOCompletion {
        let request = slots[slot].request
        statistics.completed += 1
        if result < 0 { statistics.failed += 1 }
        trace(request.tag)
        trace(UInt64(bitPattern: result))
        trace(now)
        let completion = IOCompletion(
            tag: request.tag, result: result, deviceNanoseconds: now &- slots[slot].submitTime)
        if slots[slot].device >= 0 { handles[Int(request.file.raw)]?.inFlight -= 1 }
        slots[slot].phase = .free
        slots[slot].event = 0
        slots[slot].extent = nil
        freeSlots.append(slot)
        return completion
    }
}
