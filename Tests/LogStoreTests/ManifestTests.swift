// What waits for the manifest: nothing is built on a namespace, a membership or a file's name
// before it is durable.

import BlockIO
import SimulatedDisk
import Staging
import Testing

@testable import LogStore

@Suite struct ManifestTests {
    /// Two callers open one new namespace: the second one waits with the first.
    @Test(arguments: [0, 1]) func aNamespaceIsThereWhenItIsDurable(turns: Int) throws {
        let world = try World(World.configuration(staging: 0))
        let tokens = [world.token(), world.token()]
        for (number, token) in tokens.enumerated() {
            world.store.openNamespace(
                token: token, fields: [("model", "new")], aligned: false, timeToLive: 0,
                capBytes: 0)
            if number == 0 { for _ in 0..<turns { world.store.pump() } }
        }
        #expect(world.sink.outcomes[tokens[1]] == nil, "not before the manifest")
        while world.sink.outcomes[tokens[1]] == nil {
            if !world.store.pump() { world.pause(1_000) }
        }
        #expect(tokens.allSatisfy { world.sink.outcomes[$0]?.status == .done })
        let instance = world.store.log.manifest.nextNamespaceInstance
        try world.crash(.none)
        #expect(world.store.log.manifest.nextNamespaceInstance == instance)
        #expect(world.store.log.manifest.namespaces.count == 1)
    }

    /// Tombstones are kept for a member that is away until it is struck, for good.
    @Test func aMemberIsStruckWhenThatIsDurable() throws {
        let world = try World(
            World.configuration(directories: ["/a", "/b"], mode: .store, staging: 0))
        let machine = world.machine
        world.close()
        machine.detach("/b")
        try world.open()
        let token = world.token()
        world.store.strike(token: token, device: 1)
        world.store.pump()
        #expect(world.sink.outcomes[token] == nil && world.store.log.anyMemberAway)
        world.settle()
        #expect(world.sink.outcomes[token]?.status == .done && !world.store.log.anyMemberAway)
        try world.crash(.none)
        #expect(!world.store.log.anyMemberAway)
    }

    /// No version is left below the limit, and the manifest cannot be written: nobody waits.
    @Test(arguments: [0, 4 << 20], [9000, 300_001])
    func putsAreRefusedWhereNoVersionsAreLeft(staging: Int, length: Int) throws {
        let world = try World(World.configuration(staging: staging, block: 1 << 20))
        let space = world.namespace("some")
        world.store.log.nextVersion = world.store.log.manifestState.limits.version
        world.store.log.readOnly = true
        for durability in [Durability.volatile, .written, .durable] {
            let answer = world.put(
                "key", space, payload("key", revision: 0, length: length), durability: durability)
            #expect(answer.status == .readOnly, "\(durability)")
        }
        #expect(world.store.log.statistics.statuses[.readOnly] == 3)
    }

    /// Writes and syncs of the manifest fail now and then: what was told as made is there after a
    /// crash, whatever of a failed write has landed, and the store opens.
    @Test func whatCountsOutlivesManifestsThatFail() throws {
        var told = 0
        for seed in 1...40 as ClosedRange<UInt64> {
            var faults = FaultPlan { $0 != StoreFiles.manifest }
            faults[.ioError] = [0.1, 0.3, 0.6][Int(seed % 3)]
            faults[.syncError] = [0, 0.3][Int(seed % 2)]
            let world = try World(World.configuration(staging: 0), seed: seed)
            world.store.shutdown()
            var made: [String] = []
            for life in 0..<6 {
                try world.reopen(faults, enabled: true)
                for number in 0..<8 {
                    let (token, name) = (world.token(), "\(life)-\(number)")
                    world.store.openNamespace(
                        token: token, fields: [("model", name)], aligned: false, timeToLive: 0,
                        capBytes: 0)
                    for _ in 0..<Int(seed) where !world.store.pump() { world.pause(20_000) }
                    if number % 3 != 2 { world.settle() }
                    if world.sink.outcomes[token]?.status == .done { made.append(name) }
                }
                world.machine.crash(keep: .random(seed: seed * 10 + UInt64(life)))
            }
            try world.reopen(.none, enabled: false)
            world.settle()
            let fields = world.store.log.manifest.namespaces.map { $0.fields[0].1 }
            #expect(Set(made).subtracting(fields).isEmpty, "seed \(seed)")
            told += made.count
        }
        #expect(told > 500)
    }

    /// One of an epoch's two copies is enough: a store whose manifest cannot be written here and
    /// there does not become read-only.
    @Test(arguments: 1...8 as ClosedRange<UInt64>)
    func oneCopyOfAnEpochIsEnough(seed: UInt64) throws {
        var faults = FaultPlan { $0 != StoreFiles.manifest }
        faults[.ioError] = 0.2
        let world = try World(World.configuration(staging: 0), seed: seed)
        world.store.shutdown()
        try world.reopen(faults, enabled: true)
        for number in 0..<12 { #expect(world.namespace("\(number)") == UInt16(number)) }
        #expect(world.driver.faultCount(.ioError) > 2 && !world.store.log.readOnly)
    }

    /// Every second sync of the directory fails: the segments made then are there after a crash.
    @Test func aSegmentHasItsNameBeforeItIsUsed() throws {
        for seed in 1...8 as ClosedRange<UInt64> {
            var faults = FaultPlan { $0 != "/store" }
            faults[.syncError] = 0.5
            let world = try World(World.configuration(staging: 0), seed: seed)
            let space = world.namespace()
            world.store.shutdown()
            world.driver = SimulatedDriver(
                machine: world.machine, regions: RegionTable(), clock: world.clock,
                faults: faults, seed: seed)
            world.store = try StagedStore.open(
                world.configuration, driver: world.driver, clock: world.clock)
            world.store.sink = world.sink
            world.settle()
            for number in 0..<300 {
                let status = world.put(
                    "key-\(number)", space, revision: 0, length: 60_000, durability: .durable)
                #expect(status == .stored)
            }
            #expect(world.store.log.devices[0].errors > 0)
            try world.crash(.none)
            for number in 0..<300 {
                let reason = world.missed("key-\(number)", space, revision: 0, length: 60_000)
                #expect(reason == nil, "key-\(number), seed \(seed)")
            }
            world.checkAccounts()
        }
    }
}
