// Crashes: what had been flushed survives, of the rest any subset, each write whole or torn.
// Changes of directories are among the rest, and so are requests in flight.

/// Which unflushed changes land. They are counted in the order of completion, over all devices,
/// those in flight last.
package enum CrashKeep: Sendable {
    case none
    case all
    /// Each with the same chance, which is drawn too; writes are torn now and then.
    case random(seed: UInt64)
    /// Bit i for change i; changes from 64 on are lost.
    case subset(UInt64)
    /// The first n.
    case prefix(Int)
}

private enum Candidate {
    case entry(device: Int, directory: Int, EntryEffect)
    case file(device: Int, file: Int, FileEffect)

    var sequence: UInt64 {
        switch self {
        case .entry(_, _, let effect): effect.sequence
        case .file(_, _, let effect): effect.sequence
        }
    }
}

extension SimulatedMachine {
    /// How many changes a crash now may keep or lose: the bits of `CrashKeep.subset`.
    package var unflushedCount: Int {
        var count = 0
        for device in state.devices {
            for file in device.files { count += file.effects.count }
            for directory in device.directories { count += directory.effects.count }
        }
        for case let request? in state.inFlight where isLive(request) {
            count += (request.effect.count + request.unit - 1) / request.unit
        }
        return count
    }

    /// Stops the machine. With `tearSeed` half of the kept writes are torn, at 512 B or 4 KiB;
    /// `.random` tears by its own seed. Drivers of before are dead, locks free.
    package func crash(keep: CrashKeep, tearSeed: UInt64? = nil) {
        var random = SimulatedRandom(seed: 0, purpose: .crash)
        var tear = 0.0
        var keeps = 0.5
        if case .random(let seed) = keep {
            random = SimulatedRandom(seed: seed, purpose: .crash)
            keeps = [0.1, 0.5, 0.5, 0.9, 1.0][random.below(5)]
            tear = [0.0, 0.2, 0.8][random.below(3)]
        } else if let tearSeed {
            random = SimulatedRandom(seed: tearSeed, purpose: .crash)
            tear = 0.5
        }
        for (index, candidate) in candidates().enumerated() {
            let kept =
                switch keep {
                case .none: false
                case .all: true
                case .random: random.chance(keeps)
                case .subset(let mask): index < 64 && mask >> UInt64(index) & 1 == 1
                case .prefix(let count): index < count
                }
            if !kept { continue }
            switch candidate {
            case .entry(let device, let directory, let effect):
                state.devices[device].directories[directory].makeDurable(effect)
            case .file(let device, let file, var effect):
                if effect.kind == .write, tear > 0, random.chance(tear) {
                    let durable = state.devices[device].files[file].durable
                    effect = Self.torn(effect, over: durable, random: &random)
                }
                state.devices[device].files[file].makeDurable(effect)
            }
        }
        for index in state.devices.indices {
            state.devices[index].settle()
            (state.devices[index].hungUntil, state.devices[index].slowUntil) = (0, 0)
        }
        state.inFlight.removeAll(keepingCapacity: true)
        state.freeInFlight.removeAll(keepingCapacity: true)
        generation += 1
    }

    /// A request that can still reach its file.
    private func isLive(_ request: InFlightEffect) -> Bool {
        state.devices[request.device].attached
            && state.devices[request.device].incarnation == request.incarnation
    }

    private func candidates() -> [Candidate] {
        var all: [Candidate] = []
        for device in state.devices.indices {
            for directory in state.devices[device].directories.indices {
                for effect in state.devices[device].directories[directory].effects {
                    all.append(.entry(device: device, directory: directory, effect))
                }
            }
            for file in state.devices[device].files.indices {
                for effect in state.devices[device].files[file].effects {
                    all.append(.file(device: device, file: file, effect))
                }
            }
        }
        all.sort { $0.sequence < $1.sequence }
        for case let request? in state.inFlight where isLive(request) {
            var done = 0
            while done < request.effect.count {
                var effect = request.effect
                effect.count = min(request.unit, request.effect.count - done)
                effect.firstPage += done
                effect.start += done
                all.append(.file(device: request.device, file: request.file, effect))
                done += effect.count
            }
        }
        return all
    }

    /// A write of which only some sectors, or some pages, or a beginning landed over `old`.
    static func torn<Random: RandomNumberGenerator>(
        _ effect: FileEffect, over old: PageTable, random: inout Random
    ) -> FileEffect {
        guard let extent = effect.extent else { return effect }
        var torn = effect
        torn.extent = extent.torn(
            from: effect.start, count: effect.count, over: old, at: effect.firstPage,
            random: &random)
        torn.start = 0
        return torn
    }
}

extension Extent {
    /// A mix of this extent's pages and those that `old` has at `page`, at 512 B or 4 KiB: either a
    /// prefix of the new, or any subset. At least one unit stays old.
    func torn<Random: RandomNumberGenerator>(
        from start: Int, count: Int, over old: PageTable, at page: Int, random: inout Random
    ) -> Extent {
        let mixed = Extent(pages: count)
        old.read(page, count: count, into: mixed.bytes)
        let fine = count == 1 || random.next() & 1 == 0
        let unit = fine ? SimulatedPage.sectorBytes : SimulatedPage.bytes
        let units = count * SimulatedPage.bytes / unit
        let source = bytes + start * SimulatedPage.bytes
        if random.next() & 1 == 0 {
            let length = Int(random.next() % UInt64(units))
            mixed.bytes.copyMemory(from: source, byteCount: length * unit)
            return mixed
        }
        let stays = Int(random.next() % UInt64(units))
        var bits: UInt64 = 0
        for index in 0..<units {
            if index & 63 == 0 { bits = random.next() }
            let lands = bits >> UInt64(index & 63) & 1 == 1 && index != stays
            if lands {
                (mixed.bytes + index * unit).copyMemory(
                    from: source + index * unit, byteCount: unit)
            }
        }
        return mixed
    }
}
