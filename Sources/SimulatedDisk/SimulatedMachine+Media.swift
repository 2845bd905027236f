// What devices do with requests: writes and allocations become effects, a sync makes them durable.
// Called by drivers, with places already checked.

import Glibc

extension SimulatedMachine {
    // MARK: In flight

    /// Notes a change that the device has been given, so that a crash can make it land.
    func begin(_ effect: InFlightEffect) -> Int {
        if let index = state.freeInFlight.popLast() {
            state.inFlight[index] = effect
            return index
        }
        state.inFlight.append(effect)
        return state.inFlight.count - 1
    }

    func end(inFlight index: Int) {
        state.inFlight[index] = nil
        state.freeInFlight.append(index)
    }

    // MARK: Changing files

    /// Whether the device has room for pages of the range that the file does not have yet.
    func hasRoom(device: Int, file: Int, pages: Range<Int>) -> Bool {
        let missing = state.devices[device].files[file].allocated.missing(pages)
        return missing == 0
            || missing <= state.devices[device].capacityPages - state.devices[device].usedPages
    }

    /// Puts pages of an extent into a file. Each `unit` pages are one effect.
    func write(
        device: Int, file: Int, firstPage: Int, extent: Extent, from start: Int, count: Int,
        unit: Int
    ) {
        let pages = firstPage..<(firstPage + count)
        let keepsPrevious = state.keepsPrevious
        state.devices[device].usedPages += state.devices[device].files[file].write(
            pages, extent, from: start, keepsPrevious: keepsPrevious)
        var done = 0
        while done < count {
            let run = min(unit, count - done)
            note(
                device, file,
                FileEffect(
                    sequence: 0, kind: .write, firstPage: firstPage + done, count: run,
                    extent: extent, start: start + done))
            done += run
        }
    }

    func allocate(device: Int, file: Int, pages: Range<Int>) {
        let added = state.devices[device].files[file].allocated.insert(pages)
        state.devices[device].usedPages += added
        let end = pages.upperBound * SimulatedPage.bytes
        if end > state.devices[device].files[file].size {
            state.devices[device].files[file].size = end
        } else if added == 0 {
            return
        }
        note(
            device, file,
            FileEffect(
                sequence: 0, kind: .allocate, firstPage: pages.lowerBound, count: pages.count,
                extent: nil, start: 0))
    }

    /// `noise`: what the hole holds from now on, nil for zeros.
    func punch(device: Int, file: Int, pages: Range<Int>, noise: Extent? = nil) {
        let end = state.devices[device].files[file].size / SimulatedPage.bytes
        let pages = pages.clamped(to: 0..<end)
        if pages.isEmpty { return }
        let gone = state.devices[device].files[file].allocated.remove(pages)
        state.devices[device].usedPages -= gone
        state.devices[device].files[file].current.put(
            pages.lowerBound, noise, from: 0, count: pages.count)
        state.devices[device].files[file].badPages.heal(pages)
        note(
            device, file,
            FileEffect(
                sequence: 0, kind: .punch, firstPage: pages.lowerBound, count: pages.count,
                extent: noise, start: 0))
    }

    private func note(_ device: Int, _ file: Int, _ effect: FileEffect) {
        state.sequence += 1
        var effect = effect
        effect.sequence = state.sequence
        let limit = state.maximumUnflushed
        state.devices[device].files[file].append(effect, limit: limit)
    }

    // MARK: Sync

    /// Makes durable what had completed by `sequence`.
    func sync(device: Int, file: Int, through sequence: UInt64) {
        state.devices[device].files[file].sync(through: sequence)
    }

    func sync(device: Int, directory: Int, through sequence: UInt64) {
        var removed: [Int] = []
        let effects = state.devices[device].directories[directory].effects
        let count = effects.prefix { $0.sequence <= sequence }.count
        for effect in effects.prefix(count) {
            let old = state.devices[device].directories[directory].durable[effect.name]
            if let old { removed.append(old) }
            state.devices[device].directories[directory].makeDurable(effect)
        }
        state.devices[device].directories[directory].effects.removeFirst(count)
        for file in removed { state.devices[device].releaseIfUnlinked(file) }
    }

    /// A sync that fails, by what was measured of file systems: each change is durable all the
    /// same, or can be seen until a crash and is then gone although later syncs succeed, or is
    /// reverted at once.
    func failSync(device: Int, file: Int, random: inout SplitMix64) {
        let effects = state.devices[device].files[file].effects
        state.devices[device].files[file].effects.removeAll()
        for effect in effects {
            switch random.below(3) {
            case 0: state.devices[device].files[file].makeDurable(effect)
            case 1: break
            default:
                if effect.kind == .write {
                    state.devices[device].files[file].revert(effect)
                }
            }
        }
    }

    func failSync(device: Int, directory: Int, random: inout SplitMix64) {
        let effects = state.devices[device].directories[directory].effects
        state.devices[device].directories[directory].effects.removeAll()
        for effect in effects where random.below(2) == 0 {
            state.devices[device].directories[directory].makeDurable(effect)
        }
    }

    // MARK: Rot

    /// Turns one bit of a page over wherever that version of the page is: seen, durable, unflushed.
    func rot(device: Int, file: Int, page: Int, bit: Int) {
        replace(device: device, file: file, page: page) { $0.flip(bit: bit) }
    }

    /// Changes a page wherever that version of it is.
    func replace(device: Int, file: Int, page: Int, _ change: (Extent) -> Void) {
        let reference = state.devices[device].files[file].current[page]
        let fresh = Extent(pages: 1)
        if let address = reference.address {
            fresh.bytes.copyMemory(from: address, byteCount: SimulatedPage.bytes)
        } else {
            memset(fresh.bytes, 0, SimulatedPage.bytes)
        }
        change(fresh)
        state.devices[device].files[file].replace(page: page, reference, by: fresh)
    }
}

extension Extent {
    /// Only before the extent is in a table.
    func flip(bit: Int) {
        let place = bytes + bit / 8
        place.storeBytes(of: place.load(as: UInt8.self) ^ (1 << UInt8(bit & 7)), as: UInt8.self)
    }
}

extension Set<Int> {
    /// Takes out the pages of a range that was rewritten.
    mutating func heal(_ pages: Range<Int>) {
        if isEmpty { return }
        if count < pages.count {
            self = filter { !pages.contains($0) }
        } else {
            for page in pages { remove(page) }
        }
    }
}

extension SimulatedFile {
    /// Changes what can be seen; returns how many pages were newly allocated.
    mutating func write(
        _ pages: Range<Int>, _ extent: Extent, from start: Int, keepsPrevious: Bool
    ) -> Int {
        if keepsPrevious {
            for page in pages { previous.put(page, current[page]) }
        }
        current.put(pages.lowerBound, extent, from: start, count: pages.count)
        badPages.heal(pages)
        size = max(size, pages.upperBound * SimulatedPage.bytes)
        let added = allocated.insert(pages)
        return charged ? added : 0
    }

    mutating func append(_ effect: FileEffect, limit: Int) {
        effects.append(effect)
        // Drained in one go, so that the cost per effect stays constant.
        if effects.count >= 2 * limit {
            for old in effects.prefix(limit) { makeDurable(old) }
            effects.removeFirst(limit)
        }
    }

    mutating func sync(through sequence: UInt64) {
        if effects.isEmpty { return }
        var count = 0
        while count < effects.count, effects[count].sequence <= sequence {
            makeDurable(effects[count])
            count += 1
        }
        if count == effects.count {
            effects.removeAll(keepingCapacity: true)
        } else {
            effects.removeFirst(count)
        }
    }

    /// Shows again what is durable where the write went.
    mutating func revert(_ effect: FileEffect) {
        for page in effect.pages { current.put(page, durable[page]) }
    }

    mutating func replace(page: Int, _ old: PageReference, by fresh: Extent) {
        current.put(page, fresh, from: 0, count: 1)
        if durable[page] == old { durable.put(page, fresh, from: 0, count: 1) }
        guard let shared = old.extent else { return }
        for index in effects.indices where effects[index].extent === shared {
            let inEffect = page - effects[index].firstPage
            let matches = effects[index].pages.contains(page)
            guard matches, effects[index].start + inEffect == old.index else { continue }
            let copied = shared.copy(from: effects[index].start, count: effects[index].count)
            (copied.bytes + inEffect * SimulatedPage.bytes).copyMemory(
                from: fresh.bytes, byteCount: SimulatedPage.bytes)
            effects[index].extent = copied
            effects[index].start = 0
        }
    }

    func isBad(_ pages: Range<Int>) -> Bool {
        if badPages.isEmpty { return false }
        return pages.contains { badPages.contains($0) }
    }
}
