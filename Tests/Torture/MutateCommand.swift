// mutate: what is on disk, changed. Each seed makes a store by random operations, stops it, and
// then, from that one state many times: one page of one file is changed (bits turned, noise, zeros,
// another page in its place), the store is opened, every key is read, and the store is used.
// Nothing may trap or hang, no byte may be wrong, no deleted key come back; damage may only cost
// misses.
//
// Every second page is one that holds structure (manifest, headers, descriptors, footers,
// checkpoints), whatever share of the files these are.

import LogStore
import SegmentFormat
import SimulatedDisk
import Staging
import Synchronization

enum MutateCommand {
    /// Mutations of one state.
    private static let each = 64

    private struct Sums {
        var mutations = 0
        var opened = 0
        var perKind = [Int](repeating: 0, count: PageChange.allCases.count)
        var perFile: [String: Int] = [:]
        var failures: [String] = []
    }

    static func run(_ arguments: Arguments) -> Int32 {
        arguments.only(["--mutations", "--first", "--seed", "--mutation", "--threads"])
        let single = arguments.string("--seed") != nil
        let first = arguments.number(single ? "--seed" : "--first", 1)
        let wanted = arguments.number("--mutations", 20_000)
        let only = arguments.string("--mutation").flatMap { Int($0) }
        let seeds = single ? 1 : (wanted + each - 1) / each
        let began = secondsNow()
        let sums = Mutex(Sums())
        let threads = arguments.number("--threads", 2)
        Workers.run(first..<(first + seeds), threads: threads) { worker, seed in
            CrashNote.set(worker, replay(seed, nil))
            let made = Self.try(UInt64(seed), only: only)
            return sums.withLock { sums in
                sums.mutations += made.mutations
                sums.opened += made.opened
                sums.failures += made.failures
                for kind in made.perKind.indices { sums.perKind[kind] += made.perKind[kind] }
                sums.perFile.merge(made.perFile, uniquingKeysWith: +)
                return made.failures.isEmpty || arguments.has("--keep-going")
            }
        }
        let result = sums.withLock { $0 }
        for kind in PageChange.allCases {
            say("  \(kind): \(result.perKind[kind.rawValue])")
        }
        for (file, count) in result.perFile.sorted(by: { $0.key < $1.key }) {
            say("  in \(file): \(count)")
        }
        say(
            "mutate: \(result.mutations) mutations of \(seeds) stores, \(result.opened) opened, in "
                + "\(decimal(secondsNow() - began)) s, \(result.failures.count) failed")
        return result.failures.isEmpty ? 0 : 1
    }

    private static func `try`(_ seed: UInt64, only: Int?) -> Sums {
        var made = Sums()
        guard let base = base(seed) else {
            made.failures.append("no base")
            report("the store of seed \(seed) fails unchanged\n  replay: \(replay(Int(seed), 0))")
            return made
        }
        for number in 0..<each {
            if let only, only != number { continue }
            var random = SplitMix64(seed: seed &* 1009 &+ UInt64(number))
            guard let fork = base.fork(), let machine = fork.machine,
                let place = PagePlace.draw(machine, fork.swarm.log.directories, &random)
            else { continue }
            let change = PageChange.allCases[random.below(PageChange.allCases.count)]
            change.apply(machine, place, &random)
            fork.damageBefore += 1
            made.mutations += 1
            made.perKind[change.rawValue] += 1
            made.perFile[place.kind, default: 0] += 1
            if look(fork) { made.opened += 1 }
            if let failure = fork.failure {
                made.failures.append(failure)
                report(
                    "\(change) at page \(place.page) of \(place.directory)/\(place.file): "
                        + "\(failure)\n  replay: \(replay(Int(seed), number))")
                break
            }
        }
        return made
    }

    /// A store after some work, closed or dead.
    private static func base(_ seed: UInt64) -> World? {
        var swarm = Swarm(seed: seed, faults: false)
        // Of two members, one page changed concerns one: both are there.
        swarm.weights[Action.detach.rawValue] = 0
        swarm.weights[Action.space.rawValue] = 0
        let world = World(swarm: swarm)
        world.fitCapacity()
        guard world.failure == nil, world.open() else { return nil }
        world.settleIn()
        world.work(150)
        guard world.failure == nil else { return nil }
        world.endLeases()
        world.drain()
        if seed % 2 == 0 {
            guard world.close() else { return nil }
        } else {
            world.crash(keep: .all)
        }
        return world.failure == nil ? world : nil
    }

    /// Whether it could be opened.
    private static func look(_ world: World) -> Bool {
        guard world.open() else { return false }
        world.settleIn()
        if world.failure == nil { world.readEverything() }
        if world.failure == nil { world.checkUsable() }
        if world.failure == nil { world.crash(keep: .none) }
        return true
    }

    private static func replay(_ seed: Int, _ mutation: Int?) -> String {
        "hearth-torture mutate --seed \(seed)" + (mutation.map { " --mutation \($0)" } ?? "")
    }
}

/// One page of one of the store's files.
struct PagePlace {
    var directory: String
    var file: String
    var page: Int
    /// The file's kind, for the count.
    var kind: String

    private static let bytes = FormatConstants.pageBytes

    /// A page that was written; every second time one that begins with one of the format's magics.
    static func draw(
        _ machine: SimulatedMachine, _ directories: [String], _ random: inout SplitMix64
    ) -> PagePlace? {
        let wantsStructure = random.below(2) == 0
        for _ in 0..<64 {
            let directory = directories[random.below(directories.count)]
            let names = machine.fileNames(directory).filter {
                $0 != "LOCK" && (machine.fileSize(directory, $0) ?? 0) >= bytes
            }
            guard !names.isEmpty else { continue }
            let name = names[random.below(names.count)]
            let pages = (machine.fileSize(directory, name) ?? 0) / bytes
            for _ in 0..<64 {
                let page = random.below(pages)
                guard
                    let held = machine.contents(
                        directory, name, offset: page * bytes, length: 4)
                else { break }
                let isStructure = held[0] == UInt8(ascii: "H")
                if wantsStructure ? isStructure : held != [0, 0, 0, 0] {
                    return PagePlace(
                        directory: directory, file: name, page: page,
                        kind: String(name.prefix { $0.isLetter })
                            + (isStructure ? ", structure" : ""))
                }
            }
        }
        return nil
    }
}

/// What happens to the page.
enum PageChange: Int, CaseIterable {
    case oneBit
    case fewBits
    case noise
    case zeros
    case sector
    case otherPage
    case unreadable

    private static let bytes = FormatConstants.pageBytes

    func apply(_ machine: SimulatedMachine, _ place: PagePlace, _ random: inout SplitMix64) {
        let offset = place.page * Self.bytes
        if self == .unreadable {
            machine.breakPages(place.directory, place.file, offset: offset, length: Self.bytes)
            return
        }
        if self == .oneBit || self == .fewBits {
            for _ in 0..<(self == .oneBit ? 1 : 2 + random.below(30)) {
                machine.flipBit(
                    place.directory, place.file, offset: offset + random.below(Self.bytes),
                    bit: random.below(8))
            }
            return
        }
        var made =
            machine.contents(place.directory, place.file, offset: offset, length: Self.bytes) ?? []
        switch self {
        case .noise:
            for at in made.indices { made[at] = UInt8(truncatingIfNeeded: random.next()) }
        case .zeros: made = [UInt8](repeating: 0, count: Self.bytes)
        case .sector:
            let start = random.below(Self.bytes / 512) * 512
            for at in start..<(start + 512) { made[at] = 0 }
        default:
            let pages = (machine.fileSize(place.directory, place.file) ?? 0) / Self.bytes
            let other = random.below(max(1, pages))
            made =
                machine.contents(
                    place.directory, place.file, offset: other * Self.bytes, length: Self.bytes)
                ?? made
        }
        machine.overwrite(place.directory, place.file, page: place.page, made)
    }
}
