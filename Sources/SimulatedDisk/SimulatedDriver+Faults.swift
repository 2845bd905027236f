// Faults: drawn at submit in a fixed order, from the faults' own stream, so that neither completion
// order nor latency changes which requests are struck; counted when they have an effect.

import BlockIO
import Glibc

extension SimulatedDriver {
    /// Settles which faults strike the request. At most one of them changes what it does.
    func draw(_ slot: Int, _ operation: IOOperation, exempt: Bool) {
        let active = activeFaults[Int(operation.rawValue)]
        if active.isEmpty || !faultsEnabled { return }
        var faults: UInt32 = 0
        var decided = false
        for (kind, threshold) in active where faultRandom.next() <= threshold {
            if kind.isTiming {
                faults |= kind.bit
            } else if !exempt, !decided {
                faults |= kind.bit
                decided = true
            }
        }
        slots[slot].faults = faults
        slots[slot].faultSeed = faultRandom.next()
        if faults != 0 { strikeDevice(slot) }
    }

    private func strikeDevice(_ slot: Int) {
        let device = slots[slot].device
        let now = clock.monotonic
        if strikes(slot, .slowDevice) {
            machine.state.devices[device].slowUntil = now &+ plan.slowNanoseconds
            machine.state.devices[device].slowFactor = plan.slowFactor
        }
        if has(slot, .hungDevice), !machine.state.devices[device].isHung(at: now) {
            _ = strikes(slot, .hungDevice)
            machine.state.devices[device].hungUntil = now &+ plan.hangNanoseconds
        }
    }

    @inline(__always)
    func has(_ slot: Int, _ kind: FaultKind) -> Bool {
        slots[slot].faults & kind.bit != 0 && !(singleHasStruck && plan.single & kind.bit != 0)
    }

    /// Whether the kind was drawn for the request; then it is counted, and spent.
    @inline(__always)
    func strikes(_ slot: Int, _ kind: FaultKind) -> Bool {
        if !has(slot, kind) { return false }
        slots[slot].faults &= ~kind.bit
        faultCounts[kind, default: 0] += 1
        if plan.single & kind.bit != 0 { singleHasStruck = true }
        return true
    }

    /// What is added to the finish time.
    func delay(_ slot: Int, _ service: UInt64) -> UInt64 {
        if slots[slot].faults == 0 { return 0 }
        var extra: UInt64 = 0
        if strikes(slot, .lateCompletion) { extra = service &* 99 }
        if strikes(slot, .reorder) { extra = extra &+ service &* (1 + slots[slot].faultSeed % 8) }
        return extra
    }

    /// EAGAIN and short transfers: the request goes on inside the driver and finishes later.
    func takesMoreTime(_ slot: Int, _ request: IORequest) -> Bool {
        if slots[slot].faults == 0 { return false }
        let device = slots[slot].device
        let now = clock.monotonic
        if strikes(slot, .again) {
            let extra = serviceTime(slot, request.operation, device, now: now)
            schedule(slot, at: now &+ max(1, extra))
            return true
        }
        let pages = Int(clamping: request.piece.length) / SimulatedPage.bytes
        let noRoom = FaultKind.noSpace.bit | FaultKind.ioError.bit | FaultKind.readError.bit
        guard has(slot, .shortIO), pages >= 2, slots[slot].faults & noRoom == 0,
            let handle = self[request.file], isReachable(handle)
        else { return false }
        var random = SplitMix64(seed: slots[slot].faultSeed ^ 0x5107)
        let part = 1 + random.below(pages - 1)
        let first = Int(request.fileOffset) / SimulatedPage.bytes
        if request.operation == .write {
            guard
                machine.hasRoom(device: device, file: handle.index, pages: first..<(first + part)),
                let extent = settledExtent(slot, request)
            else { return false }
            machine.write(
                device: device, file: handle.index, firstPage: first, extent: extent, from: 0,
                count: part, unit: transferPages)
            machine.state.inFlight[slots[slot].inFlight]?.effect.firstPage = first + part
            machine.state.inFlight[slots[slot].inFlight]?.effect.count = pages - part
            machine.state.inFlight[slots[slot].inFlight]?.effect.extent = extent
            machine.state.inFlight[slots[slot].inFlight]?.effect.start = part
            slots[slot].progress = part
        }
        _ = strikes(slot, .shortIO)
        statistics.shortResumed += 1
        let extra = serviceTime(slot, request.operation, device, now: now)
        schedule(slot, at: now &+ max(1, extra))
        return true
    }

    /// A request that fails outright.
    func failure(_ slot: Int) -> Int64? {
        if slots[slot].faults == 0 { return nil }
        if strikes(slot, .noSpace) { return -Int64(ENOSPC) }
        if strikes(slot, .ioError) { return -Int64(EIO) }
        return nil
    }

    /// A failed write may have landed in part all the same.
    func landPart(
        _ slot: Int, _ handle: DriverHandle, _ pages: Range<Int>, _ extent: Extent, _ error: Int64
    ) {
        var random = SplitMix64(seed: slots[slot].faultSeed)
        let part = random.below(pages.count + 1)
        let landed = pages.lowerBound..<(pages.lowerBound + part)
        guard error == -Int64(EIO), part > 0,
            machine.hasRoom(device: handle.device, file: handle.index, pages: landed)
        else { return }
        machine.write(
            device: handle.device, file: handle.index, firstPage: pages.lowerBound, extent: extent,
            from: 0, count: part, unit: transferPages)
    }

    // MARK: Writes

    /// Puts a write where it belongs, or does to it what was drawn.
    func land(
        _ slot: Int, _ handle: DriverHandle, _ pages: Range<Int>, _ extent: Extent, from start: Int
    ) {
        let (device, file) = (handle.device, handle.index)
        if slots[slot].faults == 0 {
            return machine.write(
                device: device, file: file, firstPage: pages.lowerBound, extent: extent,
                from: start, count: pages.count, unit: transferPages)
        }
        var random = SplitMix64(seed: slots[slot].faultSeed)
        if strikes(slot, .lostWrite) {
            // The space is taken, as on a drive that answered from its cache and forgot.
            machine.allocate(device: device, file: file, pages: pages)
            return
        }
        var target = (file: file, page: pages.lowerBound)
        var landing = extent
        var from = start
        if has(slot, .misdirectedWrite), let other = elsewhere(handle, pages, &random) {
            _ = strikes(slot, .misdirectedWrite)
            machine.allocate(device: device, file: file, pages: pages)
            target = other
        } else if strikes(slot, .bitFlip) {
            landing = extent.copy(from: start, count: pages.count)
            landing.flip(bit: random.below(pages.count * SimulatedPage.bytes * 8))
            from = 0
        } else if strikes(slot, .tornWrite) {
            let old = machine.state.devices[device].files[file].current
            landing = extent.torn(
                from: start, count: pages.count, over: old, at: pages.lowerBound, random: &random)
            from = 0
        }
        machine.write(
            device: device, file: target.file, firstPage: target.page, extent: landing, from: from,
            count: pages.count, unit: transferPages)
    }

    /// Another place of the same file, or of another open file of the device that is not exempt.
    private func elsewhere(
        _ handle: DriverHandle, _ pages: Range<Int>, _ random: inout SplitMix64
    ) -> (file: Int, page: Int)? {
        var files: [Int] = [handle.index]
        for case let other? in handles
        where !other.isDirectory && !other.exempt && other.device == handle.device
            && isReachable(other) && other.index != handle.index && !files.contains(other.index)
        {
            files.append(other.index)
        }
        let file = random.next() & 1 == 0 ? handle.index : files[random.below(files.count)]
        if file != handle.index, pages.count > plan.mostPagesAstray { return nil }
        let size = machine.state.devices[handle.device].files[file].size / SimulatedPage.bytes
        // Only over what is allocated: a misdirected write never grows a file.
        guard size >= pages.count else { return nil }
        let page = random.below(size - pages.count + 1)
        if file == handle.index, page == pages.lowerBound { return nil }
        let room = machine.state.devices[handle.device].files[file].allocated.missing(
            page..<(page + pages.count))
        return room == 0 ? (file, page) : nil
    }

    // MARK: Reads

    /// Does to the medium or to the read what was drawn; an errno ends it.
    func readFault(
        _ slot: Int, _ handle: DriverHandle, _ pages: Range<Int>, from first: inout Int,
        stale: inout Bool
    ) -> Int64? {
        var random = SplitMix64(seed: slots[slot].faultSeed)
        if strikes(slot, .readError) { return -Int64(EIO) }
        if strikes(slot, .latentSectorError) {
            let size =
                machine.state.devices[handle.device].files[handle.index].size / SimulatedPage.bytes
            let low = pages.lowerBound + random.below(pages.count)
            let cluster = low..<min(size, low + 1 + random.below(8))
            machine.state.devices[handle.device].files[handle.index].badPages.formUnion(cluster)
            return -Int64(EIO)
        }
        if strikes(slot, .bitRot) {
            machine.rot(
                device: handle.device, file: handle.index,
                page: pages.lowerBound + random.below(pages.count),
                bit: random.below(SimulatedPage.bytes * 8))
        }
        if has(slot, .misdirectedRead) {
            let size =
                machine.state.devices[handle.device].files[handle.index].size / SimulatedPage.bytes
            let page = random.below(size - pages.count + 1)
            if page != pages.lowerBound, strikes(slot, .misdirectedRead) { first = page }
        }
        if has(slot, .staleRead), machine.hasStale(handle, pages), strikes(slot, .staleRead) {
            stale = true
        }
        return nil
    }
}

extension SimulatedMachine {
    /// Whether a page of the range held something else before its last write.
    func hasStale(_ handle: DriverHandle, _ pages: Range<Int>) -> Bool {
        let previous = state.devices[handle.device].files[handle.index].previous
        return pages.contains { previous[$0].extent != nil }
    }

    /// Puts back what the pages held before their last write, where that is known.
    func readStale(
        _ handle: DriverHandle, _ pages: Range<Int>, into memory: UnsafeMutableRawPointer
    ) {
        let previous = state.devices[handle.device].files[handle.index].previous
        for page in pages {
            if let address = previous[page].address {
                (memory + (page - pages.lowerBound) * SimulatedPage.bytes).copyMemory(
                    from: address, byteCount: SimulatedPage.bytes)
            }
        }
    }
}
