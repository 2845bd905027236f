// Swarm: what one seed's run is like. Each seed draws its own configuration, mix of operations and
// plan of faults, with some operations left out altogether, so that runs differ in kind and not
// only in order (swarm testing).

import BlockIO
import Heat
import LogStore
import Prefetch
import SegmentFormat
import SimulatedDisk
import Staging
import Tiering

enum Action: Int, CaseIterable {
    case put
    case replace
    case get
    case batch
    case contains
    case delete
    case touch
    case pin
    case unpin
    case flush
    case checkpoint
    case purge
    case cancel
    case endLease
    case pumpSome
    case drain
    case closeReopen
    case crashReopen
    case detach
    case attach
    case space
    case wallJump
    case hint
}

struct Swarm {
    var seed: UInt64
    var faulty = false
    /// Stops injecting damage after the first, so that what must survive one can be checked.
    var singleDamage = false
    var devices = 1
    var mode = StoreMode.cache
    var maximumBlock = 16 << 10
    var extraSegments = 1
    var stagingBytes = 0
    var slabBytes = 16 << 10
    var inclusive = false
    var keysPerSpace = 32
    var spaces: [(aligned: Bool, timeToLive: UInt32)] = []
    var concurrency = 8
    var weights = [Int](repeating: 0, count: Action.allCases.count)
    var log: LogStoreConfiguration
    var latency = LatencyModel.nvme
    var depth = 64
    var transferBytes = 1 << 20
    var plan = FaultPlan.none
    var kinds: [FaultKind] = []
    var deadlineChance = 0.0
    var manyShards = 0.3
    var sizes = 0

    static let damaging: [FaultKind] = [
        .bitFlip, .bitRot, .latentSectorError, .tornWrite, .lostWrite, .misdirectedWrite,
        .misdirectedRead, .staleRead, .readError,
    ]
    static let errors: [FaultKind] = [.noSpace, .ioError, .syncError]
    static let timing: [FaultKind] = [
        .shortIO, .again, .reorder, .lateCompletion, .slowDevice, .hungDevice,
    ]

    init(seed: UInt64, faults: Bool) {
        self.seed = seed
        var random = SimulatedRandom(seed: seed ^ 0x5EED, purpose: .operations)
        log = LogStoreConfiguration(
            directories: [], capacityBytes: 0, indexEntries: 64,
            entropy: (random.next() | 1, random.next(), random.next(), random.next()))
        drawShape(&random)
        drawLog(&random)
        drawWeights(&random)
        if faults { drawFaults(&random) }
    }

    private mutating func drawShape(_ random: inout SimulatedRandom) {
        devices = random.chance(0.3) ? 2 : 1
        mode = random.chance(0.2) ? .store : .cache
        maximumBlock = [4096, 16 << 10, 16 << 10, 30_000, 64 << 10][random.below(5)]
        extraSegments = random.below(3)
        stagingBytes = [0, 128 << 10, 512 << 10, 2 << 20][random.below(4)]
        slabBytes = [4096, 16 << 10, 64 << 10][random.below(3)]
        inclusive = random.chance(0.5)
        keysPerSpace = [3, 12, 48, 160][random.below(4)]
        concurrency = [1, 4, 12, 32][random.below(4)]
        let count = 1 + random.below(3)
        for _ in 0..<count {
            let ttl: UInt32 = random.chance(0.15) ? UInt32(1 + random.below(3000)) : 0
            spaces.append((aligned: random.chance(0.35), timeToLive: ttl))
        }
        manyShards = [0.0, 0.3, 0.7][random.below(3)]
        sizes = random.below(4)
        deadlineChance = random.chance(0.4) ? 0.2 : 0
        latency = random.chance(0.7) ? .nvme : .constant(50_000, channels: 8)
        depth = [4, 32, 128][random.below(3)]
        transferBytes = [64 << 10, 1 << 20][random.below(2)]
    }

    private mutating func drawLog(_ random: inout SimulatedRandom) {
        log.directories = devices == 2 ? ["/a/store", "/b/store"] : ["/a/store"]
        log.mode = mode
        log.maximumBlockBytes = maximumBlock
        log.minimumSegmentBytes = 1 << 20
        log.indexEntries = [64, 256, 2048][random.below(3)]
        log.groupBytes = [64 << 10, 128 << 10, 512 << 10][random.below(3)]
        log.groupBuffers = [4, 6, 8][random.below(3)]
        log.bypassBytes = [16 << 10, 32 << 10, log.groupBytes][random.below(3)]
        log.groupsInFlight = 1 + random.below(4)
        log.operations = [24, 64, 256][random.below(3)]
        log.cleanSegments = 1 + random.below(2)
        log.tableCacheBytes = [64 << 10, 1 << 20][random.below(2)]
        log.checkpointMinimumBytes = [64 << 10, 512 << 10, 4 << 20][random.below(3)]
        log.checkpointShare = [0, 1, 100][random.below(3)]
        log.writeAmplification = [1, 1.15, 2, 4][random.below(4)]
        log.heatHalfLife = [0.05, 0.5, 5][random.below(3)]
        log.ghosts = [16, 4096][random.below(2)]
        // Not drawn, so that the seeds from before mean the same.
        log.pacedWrites = [2, 0, 1][Int(seed % 3)]
        log.scrubBytesPerSecond = [0, 20_000_000, 2_000_000_000][Int(seed / 19 % 3)]
        log.discardBytesPerSecond = [0, 20_000_000, 20_000_000_000][Int(seed / 23 % 3)]
        log.freshStreams = [4, 1, 2][Int(seed / 29 % 3)]
        // Where nothing is evicted, open segments of several streams would be most of so few.
        log.segmentsPerStream = mode == .cache ? 2 : 4
        log.holder = "torture"
    }

    private mutating func drawWeights(_ random: inout SimulatedRandom) {
        let base: [Action: Int] = [
            .batch: 8, .put: 300, .replace: 80, .get: 300, .contains: 40, .delete: 60, .touch: 10,
            .pin: 8,
            .unpin: 4, .flush: 12, .checkpoint: 4, .purge: 1, .cancel: 10, .endLease: 30,
            .pumpSome: 60, .drain: 15, .closeReopen: 2, .crashReopen: 4, .wallJump: 2, .space: 1,
            .detach: devices == 2 ? 3 : 0, .attach: devices == 2 ? 6 : 0,
        ]
        for action in Action.allCases where action != .hint {
            let weight = base[action] ?? 0
            // Scaled by 0, 1/3, 1 or 3; puts and gets never left out.
            let scale = random.below(6)
            var scaled = [0, weight / 3, weight, weight, weight, weight * 3][scale]
            if scaled == 0, action == .put || action == .get || action == .endLease {
                scaled = weight
            }
            weights[action.rawValue] = scaled
        }
        // Not drawn, as above.
        weights[Action.hint.rawValue] = [0, 20, 80, 300][Int(seed / 3 % 4)]
        if weights[Action.detach.rawValue] > 0 { weights[Action.attach.rawValue] = 6 }
        if !random.chance(0.25) { weights[Action.space.rawValue] = 0 }
    }

    private mutating func drawFaults(_ random: inout SimulatedRandom) {
        switch random.below(8) {
        case 0, 1: return
        case 2: kinds = Self.timing
        case 3: kinds = Self.timing + Self.errors
        case 4, 5:
            kinds = Self.damaging + Self.timing
            singleDamage = true
        default: kinds = FaultKind.allCases
        }
        faulty = true
        let ceiling = [0.002, 0.01, 0.05][random.below(3)]
        let spareManifest = !singleDamage
        plan = FaultPlan.swarm(seed: seed, kinds: kinds, ceiling: ceiling) { name in
            spareManifest && name == "manifest"
        }
        if singleDamage {
            plan.allowOne(of: Self.damaging)
            // One that is longer than a copy of the manifest may take all four.
            plan.mostPagesAstray = Manifest.copyBytes / FormatConstants.pageBytes
        }
        // Not drawn, as above: long enough for a device to become suspect, or only slow.
        plan.hangNanoseconds = seed % 2 == 0 ? 3_000_000_000 : 200_000_000
        plan.slowNanoseconds = 50_000_000
        plan.holesAreNoise = true
        if kinds.contains(.hungDevice) && random.chance(0.5) {
            plan[.hungDevice] = 0.001
            plan[.slowDevice] = 0.002
        }
    }

    /// What is above the staged store in this run; not drawn either.
    func tiered(_ staged: StagedConfiguration) -> TieredConfiguration {
        var made = TieredConfiguration(staged)
        made.replacement = ReplacementKind.allCases[Int(seed / 5) % ReplacementKind.allCases.count]
        made.prefetch.predictors = seed / 7 % 4 == 0 ? .chain : .all
        made.staged.keepsParts = seed / 19 % 2 == 0
        made.prefetch.blocks = [8, 64, 1024][Int(seed / 2 % 3)]
        made.prefetch.requests = [2, 16, 64][Int(seed / 11 % 3)]
        made.prefetch.operations = [1, 4, 64][Int(seed / 13 % 3)]
        if seed / 19 % 2 == 0 { made.overload = .staysInMemory }
        made.prefetch.patience = [1_000_000, 30_000_000_000][Int(seed / 17 % 2)]
        return made
    }

    /// The action that a number below the sum of weights means.
    func action(_ random: inout SimulatedRandom) -> Action {
        var left = random.below(weights.reduce(0, +))
        for action in Action.allCases {
            left -= weights[action.rawValue]
            if left < 0 { return action }
        }
        return .get
    }

    /// A value length by this run's profile.
    func length(_ random: inout SimulatedRandom) -> Int {
        switch sizes {
        case 0: 1 + random.below(maximumBlock)
        case 1: min(maximumBlock, [1, 100, 4096, 8192, 16 << 10, 64 << 10][random.below(6)])
        case 2: maximumBlock / 4096 * 4096 - 4096 * random.below(2) * (maximumBlock > 8192 ? 1 : 0)
        default: min(maximumBlock, max(1, [4095, 4096, 4097, 512, 12_000][random.below(5)]))
        }
    }
}
