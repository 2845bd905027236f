// CrashScenarios: short scripts, each around one thing that the store does to its devices. `setup`
// runs undisturbed; a crash is tried at every write and flush boundary of `script`.

import LogStore
import SimulatedDisk
import Staging

struct CrashScenario: Sendable {
    var name: String
    var devices = 1
    var mode = StoreMode.cache
    var spaces = 1
    var keys = 10
    var extraSegments = 0
    /// False: the script opens the store itself.
    var opened = true
    var setup: @Sendable (World) -> Void = { _ in }
    var script: @Sendable (World) -> Void

    /// A world of this scenario before its first open.
    func world(seed: UInt64) -> World {
        var swarm = Swarm(seed: seed, faults: false)
        swarm.devices = devices
        swarm.mode = mode
        swarm.maximumBlock = 16 << 10
        swarm.extraSegments = extraSegments
        swarm.stagingBytes = 0
        swarm.inclusive = false
        swarm.keysPerSpace = keys
        swarm.spaces = Array(repeating: (aligned: false, timeToLive: 0), count: spaces)
        swarm.concurrency = 24
        swarm.latency = .nvme
        swarm.depth = 32
        swarm.transferBytes = 64 << 10
        var log = swarm.log
        log.directories = devices == 2 ? ["/a/store", "/b/store"] : ["/a/store"]
        log.mode = mode
        log.maximumBlockBytes = 16 << 10
        log.minimumSegmentBytes = 1 << 20
        log.indexEntries = 256
        log.groupBytes = 64 << 10
        log.groupBuffers = 6
        log.bypassBytes = 64 << 10
        log.groupsInFlight = 2
        log.operations = 64
        log.cleanSegments = 1
        log.checkpointMinimumBytes = 1 << 40
        log.writeAmplification = 4
        swarm.log = log
        let world = World(swarm: swarm)
        world.fitCapacity()
        return world
    }

    /// Puts until about one segment more has been written.
    private static func fillSegment(
        _ world: World, from first: Int, segments: Int = 1, eighths: Int = 0
    ) {
        for round in 0..<(eighths > 0 ? 9 * eighths : 70 * segments) {
            if world.failure != nil || world.simulated?.dead == true { return }
            world.scriptPut(
                first + round % 6, length: 16 << 10, durability: .written, replace: true)
            if round % 8 == 7 { world.drain() }
        }
        world.drain()
    }

    private static func few(_ world: World) {
        for key in 0..<4 { world.scriptPut(key, length: 3000 + 1000 * key) }
        world.drain()
    }

    static let all: [CrashScenario] = [
        CrashScenario(name: "first open", opened: false) { world in
            if world.open() { world.settleIn() }
        },
        CrashScenario(name: "first open, two devices", devices: 2, opened: false) { world in
            if world.open() { world.settleIn() }
        },
        CrashScenario(name: "first put") { world in
            world.scriptPut(0, length: 5000)
            world.drain()
        },
        CrashScenario(name: "group write") { world in
            for key in 0..<8 {
                world.scriptPut(
                    key, length: 700 * (key + 1), shards: key % 3 == 0 ? 3 : 1,
                    durability: key % 2 == 0 ? .durable : .written)
            }
            world.drain()
        },
        CrashScenario(name: "replace", setup: { few($0) }) { world in
            world.scriptPut(0, length: 9000, replace: true)
            world.scriptPut(1, length: 100, durability: .written, replace: true)
            world.drain()
            world.scriptPut(0, length: 400, replace: true)
            world.drain()
        },
        CrashScenario(name: "delete", setup: { few($0) }) { world in
            world.scriptDelete(0)
            world.scriptDelete(2)
            world.drain()
            world.scriptPut(0, length: 2222)
            world.drain()
            world.scriptDelete(0)
            world.drain()
        },
        CrashScenario(name: "seal", setup: { few($0) }) { world in
            fillSegment(world, from: 4)
            world.scriptFlush()
        },
        CrashScenario(name: "checkpoint", setup: { few($0) }) { world in
            world.scriptCheckpoint()
            world.scriptPut(1, length: 4444, replace: true)
            world.scriptDelete(3)
            world.drain()
            world.scriptCheckpoint()
        },
        CrashScenario(
            name: "reclaim and recycle",
            setup: { world in
                few(world)
                world.scriptDelete(2)
                world.drain()
                fillSegment(world, from: 4, segments: 3)
            }
        ) { world in
            fillSegment(world, from: 4, segments: 2)
        },
        CrashScenario(
            name: "reclaim of pinned blocks",
            setup: { world in
                few(world)
                world.scriptPin(0)
                world.scriptPin(1)
                world.drain()
                fillSegment(world, from: 4, segments: 3)
            }
        ) { world in
            fillSegment(world, from: 4, segments: 2)
        },
        CrashScenario(
            name: "checkpoints of moved blocks",
            setup: { world in
                few(world)
                for key in 0..<4 { world.scriptPin(key) }
                world.drain()
                fillSegment(world, from: 4, segments: 3)
            }
        ) { world in
            for _ in 0..<10 {
                if world.failure != nil || world.simulated?.dead == true { return }
                fillSegment(world, from: 4, eighths: 1)
                world.checkpoint()
            }
            world.drain()
        },
        CrashScenario(
            name: "reclaim of hot blocks",
            setup: { world in
                few(world)
                for key in 0..<4 { world.scriptTouch(key) }
                world.drain()
                fillSegment(world, from: 4, segments: 3)
            }
        ) { world in
            for _ in 0..<2 {
                for key in 0..<3 { world.scriptTouch(key) }
                world.scriptDelete(3)
                fillSegment(world, from: 4)
            }
        },
        CrashScenario(
            name: "compaction", mode: .store, keys: 240,
            setup: { world in
                for key in 0..<200 {
                    world.scriptPut(key, length: 12 << 10, durability: .written)
                    if key % 8 == 7 { world.drain() }
                }
                for key in 0..<200 where key % 3 != 0 { world.scriptDelete(key) }
                world.drain()
            }
        ) { world in
            for key in 0..<60 {
                world.scriptPut(
                    key * 3, length: 10 << 10, durability: key % 4 == 0 ? .durable : .written,
                    replace: true)
                if key % 8 == 7 { world.drain() }
            }
            world.drain()
        },
        CrashScenario(name: "full store mode", mode: .store, keys: 90, setup: { few($0) }) {
            world in
            for key in 0..<60 {
                world.scriptPut(10 + key, length: 16 << 10, durability: .written)
                if key % 8 == 7 { world.drain() }
            }
            world.drain()
            for key in 0..<20 { world.scriptDelete(10 + key) }
            world.drain()
        },
        CrashScenario(name: "namespaces", spaces: 2) { world in
            world.scriptPut(0, length: 3000, space: 0)
            world.scriptPut(0, length: 4000, space: 1)
            world.drain()
            world.scriptPurge(1)
            world.scriptPut(0, length: 4500, space: 1)
            world.drain()
        },
        CrashScenario(name: "close", setup: { few($0) }) { world in
            world.scriptPut(5, length: 7000, durability: .written)
            world.drain()
            if world.close(), world.failure == nil, world.open() { world.settleIn() }
        },
        CrashScenario(name: "two devices", devices: 2, setup: { few($0) }) { world in
            world.scriptPut(0, length: 9000, replace: true)
            world.scriptDelete(1)
            world.scriptPut(6, length: 12_000)
            world.drain()
            world.scriptCheckpoint()
        },
    ]
}
