// What a request does: data is taken from memory at submit, so that a crash can land it, and again
// at completion, as a device would; the two must not differ.

import BlockIO
import Glibc

extension SimulatedDriver {
    /// The device has the request: a write or allocation can land from here on, whatever follows.
    func start(_ slot: Int, _ request: IORequest, _ handle: DriverHandle) {
        let first = Int(request.fileOffset) / SimulatedPage.bytes
        let count = Int(clamping: request.piece.length) / SimulatedPage.bytes
        switch request.operation {
        case .read:
            guard scribblesReads, count > 0 else { return }
            transfer(request.piece, changes: true) { memory in
                memset(memory, 0xDB, Int(request.piece.length))
            }
        case .write:
            let extent = Extent(pages: count)
            transfer(request.piece, changes: false) { memory in
                extent.bytes.copyMemory(from: memory, byteCount: Int(request.piece.length))
            }
            slots[slot].extent = extent
            note(slot, handle, .write, first, count, extent)
        case .allocate: note(slot, handle, .allocate, first, count, nil)
        case .punchHole:
            slots[slot].extent = plan.holesAreNoise ? noise(handle, first, count) : nil
            note(slot, handle, .punch, first, count, slots[slot].extent)
        case .sync: slots[slot].syncSequence = machine.state.sequence
        }
    }

    private func note(
        _ slot: Int, _ handle: DriverHandle, _ kind: FileEffectKind, _ first: Int, _ count: Int,
        _ extent: Extent?
    ) {
        let unit = kind == .write ? transferPages : max(1, count)
        slots[slot].inFlight = machine.begin(
            InFlightEffect(
                device: handle.device, incarnation: handle.incarnation, file: handle.index,
                effect: FileEffect(
                    sequence: 0, kind: kind, firstPage: first, count: count, extent: extent,
                    start: 0), unit: unit))
    }

    /// What a hole holds that a device has made as it liked.
    private func noise(_ handle: DriverHandle, _ first: Int, _ count: Int) -> Extent {
        let extent = Extent(pages: count)
        var random = SplitMix64(seed: UInt64(first) &* 0x9E37_79B9 &+ machine.state.sequence)
        machine.state.devices[handle.device].files[handle.index].current.read(
            first, count: count, into: extent.bytes)
        for page in 0..<count {
            let memory = extent.bytes + page * SimulatedPage.bytes
            switch random.below(4) {
            case 0: memset(memory, 0, SimulatedPage.bytes)
            case 1, 2:
                for word in 0..<(SimulatedPage.bytes / 8) {
                    memory.storeBytes(of: random.next(), toByteOffset: 8 * word, as: UInt64.self)
                }
            default: break  // it still has what was there
            }
        }
        return extent
    }

    var transferPages: Int { limits.transferBytes / SimulatedPage.bytes }

    /// Does at its finish time what the request asked for. Nil: it goes on and finishes later.
    func finish(_ slot: Int) -> Int64? {
        let request = slots[slot].request
        let device = slots[slot].device
        if slots[slot].verdict == 0, takesMoreTime(slot, request) { return nil }
        if slots[slot].inFlight >= 0 {
            machine.end(inFlight: slots[slot].inFlight)
            slots[slot].inFlight = -1
        }
        if slots[slot].verdict != 0 { return -Int64(slots[slot].verdict) }
        guard let handle = self[request.file], device >= 0, isReachable(handle) else {
            return -Int64(EIO)
        }
        let first = Int(request.fileOffset) / SimulatedPage.bytes
        let pages = first..<(first + Int(clamping: request.piece.length) / SimulatedPage.bytes)
        switch request.operation {
        case .read: return finishRead(slot, request, handle, pages)
        case .write: return finishWrite(slot, request, handle, pages)
        case .sync: return finishSync(slot, handle)
        case .allocate:
            if let error = failure(slot) { return error }
            guard machine.hasRoom(device: device, file: handle.index, pages: pages) else {
                return -Int64(ENOSPC)
            }
            machine.allocate(device: device, file: handle.index, pages: pages)
            return 0
        case .punchHole:
            if let error = failure(slot) { return error }
            machine.punch(
                device: device, file: handle.index, pages: pages, noise: slots[slot].extent)
            return 0
        }
    }

    private func finishSync(_ slot: Int, _ handle: DriverHandle) -> Int64 {
        let sequence = slots[slot].syncSequence
        if strikes(slot, .syncError) {
            var random = SplitMix64(seed: slots[slot].faultSeed)
            if handle.isDirectory {
                machine.failSync(device: handle.device, directory: handle.index, random: &random)
            } else {
                machine.failSync(device: handle.device, file: handle.index, random: &random)
            }
            return -Int64(EIO)
        }
        if handle.isDirectory {
            machine.sync(device: handle.device, directory: handle.index, through: sequence)
        } else {
            machine.sync(device: handle.device, file: handle.index, through: sequence)
        }
        return 0
    }

    private func finishRead(
        _ slot: Int, _ request: IORequest, _ handle: DriverHandle, _ pages: Range<Int>
    ) -> Int64 {
        let device = handle.device
        let size = machine.state.devices[device].files[handle.index].size
        // Beyond the end nothing moves, and no progress is an error.
        if pages.upperBound * SimulatedPage.bytes > size { return -Int64(EIO) }
        if pages.isEmpty { return 0 }
        var first = pages.lowerBound
        var stale = false
        if slots[slot].faults != 0 {
            if let error = readFault(slot, handle, pages, from: &first, stale: &stale) {
                return error
            }
        }
        let source = first..<(first + pages.count)
        if machine.state.devices[device].files[handle.index].isBad(source) { return -Int64(EIO) }
        transfer(request.piece, changes: true) { memory in
            machine.state.devices[device].files[handle.index].current.read(
                first, count: pages.count, into: memory)
            if stale { machine.readStale(handle, pages, into: memory) }
        }
        return Int64(request.piece.length)
    }

    private func finishWrite(
        _ slot: Int, _ request: IORequest, _ handle: DriverHandle, _ pages: Range<Int>
    ) -> Int64 {
        let device = handle.device
        if pages.isEmpty { return 0 }
        guard let extent = settledExtent(slot, request) else { return -Int64(EIO) }
        if let error = failure(slot) {
            landPart(slot, handle, pages, extent, error)
            return error
        }
        let rest = (pages.lowerBound + slots[slot].progress)..<pages.upperBound
        guard machine.hasRoom(device: device, file: handle.index, pages: rest) else {
            return -Int64(ENOSPC)
        }
        land(slot, handle, rest, extent, from: slots[slot].progress)
        return Int64(request.piece.length)
    }

    /// The write's bytes as they are in memory now. Differing from those at submit is a violation.
    func settledExtent(_ slot: Int, _ request: IORequest) -> Extent? {
        guard var extent = slots[slot].extent else { return nil }
        let length = Int(request.piece.length)
        transfer(request.piece, changes: false) { memory in
            if memcmp(memory, extent.bytes, length) == 0 { return }
            let text =
                "write tag \(request.tag) file \(request.file.raw) offset \(request.fileOffset):"
                + " memory changed in flight"
            violations.append(text)
            extent = Extent(pages: extent.pages)
            extent.bytes.copyMemory(from: memory, byteCount: length)
        }
        slots[slot].extent = extent
        return extent
    }

    /// Runs the body on the piece's memory as a device sees it: device memory by its alias, or,
    /// when it is not simulated, through its copy functions.
    func transfer(
        _ piece: Piece, changes: Bool, _ body: (UnsafeMutableRawPointer) -> Void
    ) {
        let length = Int(piece.length)
        if let memory = regions.pointer(piece) { return body(memory) }
        guard length > 0, let copy = regions[piece.region]?.copy else { return }
        if let alias = FakeDeviceMemory.place(copy.context, piece.offset, length, copy: false) {
            return body(alias)
        }
        let bounce = UnsafeMutableRawPointer.allocate(byteCount: length, alignment: 4096)
        defer { bounce.deallocate() }
        if !changes { _ = copy.fromDevice(copy.context, piece.offset, bounce, length) }
        body(bounce)
        if changes { _ = copy.toDevice(copy.context, piece.offset, bounce, length) }
    }
}
