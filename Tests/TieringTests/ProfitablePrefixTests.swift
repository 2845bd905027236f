// ProfitablePrefix: single decisions with known answers, and whole runs of a queue in front of one
// prefill server and one device, in which claiming must never be slower than computing everything.

import LogStore
import SimulatedDisk
import Testing

@testable import Tiering

/// xorshift, so that a run is its seed's.
private struct Chance {
    var state: UInt64
    mutating func next() -> UInt64 {
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        return state
    }
    mutating func unit() -> Double { Double(next() >> 11) / Double(1 << 53) }
    mutating func below(_ limit: Int) -> Int { Int(next() % UInt64(limit)) }
    /// Exponential with mean 1, by von Neumann's comparisons: no Foundation here.
    mutating func exponential() -> Double {
        var whole = 0.0
        while true {
            let first = unit()
            var last = first
            var runs = 0
            while true {
                let next = unit()
                runs += 1
                if next >= last { break }
                last = next
            }
            if runs & 1 == 1 { return whole + first }
            whole += 1
        }
    }
}

private func devices(perByte: Double, latency: Double = 100_000, risk: Double = 0.02)
    -> PrefixDevices
{
    var made = PrefixDevices(repeating: DeviceLoad())
    for device in 0..<32 {
        made[device].cost.perByte = perByte
        made[device].cost.latency = latency
        made[device].cost.risk = risk
        made[device].cost.samples = 100
        made[device].cost.updated = 1_000_000_000
    }
    return made
}

private func decide(
    _ question: PrefixQuestion, _ blocks: [PrefixBlock], _ devices: inout PrefixDevices
) -> PrefixDecision {
    var prefix = ProfitablePrefix(question, devices)
    for block in blocks { prefix.add(block) }
    return prefix.decide(&devices)
}

@Suite struct ProfitablePrefixTests {
    /// 100 blocks of 1 MB, of which `loaded` are on device 0.
    private func question(layers: Int = 1, starts: UInt64 = 0) -> PrefixQuestion {
        var made = PrefixQuestion(now: 1_000_000_001, blocks: 100, blockNanoseconds: 1_000_000)
        made.layers = layers
        made.startsIn = starts
        return made
    }
    private let stored = [PrefixBlock](
        repeating: PrefixBlock(bytes: 1_000_000, device: 0), count: 80)

    @Test func aFastDeviceIsClaimedWhole() {
        var fast = devices(perByte: 0.1)  // 0.1 ms a block, computing takes 1 ms
        let made = decide(question(), stored, &fast)
        #expect(made.blocks == 80 && made.declinedBytes == 0)
        // 80 blocks of 0.1 ms and the latency, 2 % longer.
        #expect(abs(Double(made.readyIn) - 8_262_000) < 1000)
        #expect(fast[0].freeAt == 1_000_000_001 + 8_000_000)
    }

    @Test func aSlowDeviceIsDeclinedUnlessItCanBeHidden() {
        var slow = devices(perByte: 10)  // 10 ms a block
        #expect(decide(question(), stored, &slow).blocks == 0)
        // Layer by layer, 8 or 9 blocks come while the other 91 are computed.
        slow = devices(perByte: 10)
        let hidden = decide(question(layers: 32), stored, &slow)
        #expect((8...9).contains(hidden.blocks) && hidden.declinedBytes > 70_000_000)
        // And while the request waits for its turn.
        slow = devices(perByte: 10)
        let waited = decide(question(starts: 500_000_000), stored, &slow)
        #expect((45...50).contains(waited.blocks))
    }

    @Test func whatIsInMemoryIsAlwaysClaimed() {
        var slow = devices(perByte: 10)
        let blocks = [PrefixBlock](repeating: PrefixBlock(bytes: 0, device: -1), count: 30)
        let made = decide(question(), blocks + stored.prefix(20), &slow)
        #expect(made.blocks == 30 && made.present == 50 && made.declinedBytes == 20_000_000)
    }

    @Test func aGapOnTheDeviceIsReadForWhatLiesBehindItInMemory() {
        var slow = devices(perByte: 10)
        let behind = [PrefixBlock](repeating: PrefixBlock(bytes: 0, device: -1), count: 50)
        let made = decide(question(), stored.prefix(2) + behind, &slow)
        #expect(made.blocks == 52)
    }

    @Test func claimsQueueUpBehindEachOther() {
        var shared = devices(perByte: 0.9)
        let free = decide(question(layers: 32), stored, &shared)
        #expect(free.blocks > 40)
        #expect(shared[0].freeAt > 1_000_000_001)
        // The second waits for the first, gains less, and the third nothing any more.
        let second = decide(question(layers: 32), stored, &shared)
        #expect(second.gain < free.gain / 2 && second.readyIn > free.readyIn)
        #expect(decide(question(layers: 32), stored, &shared).blocks == 0)
        // Another device is not in the way.
        let other = decide(
            question(layers: 32), stored.map { PrefixBlock(bytes: $0.bytes, device: 1) }, &shared)
        #expect(other.blocks == free.blocks && other.gain == free.gain)
    }

    @Test func whatIsNotKnownIsTriedWithOneBlock() {
        var unknown = PrefixDevices(repeating: DeviceLoad())
        let made = decide(question(), stored, &unknown)
        #expect(made.isProbe && made.blocks == 1)
        // Long unmeasured: once in a thousand times what it takes.
        var slow = devices(perByte: 10)
        var late = question()
        late.now = 1_000_000_001 + 5_000_000_000
        #expect(decide(late, stored, &slow).blocks == 0)
        late.now = 1_000_000_001 + 12_000_000_000
        let again = decide(late, stored, &slow)
        #expect(again.isProbe && again.blocks == 1)
    }

    /// What was begun early counts from the moment it is begun: a claim made right after would take
    /// blocks that a slow device has only just been asked for as being there.
    @Test func whatIsBegunEarlyStandsBeforeTheNextClaim() throws {
        let slow = LatencyModel.constant(100_000, bytesPerSecond: 1_000_000)
        let world = try TieredWorld(latency: slow)
        let space = world.namespace()
        let names = (0..<12).map { "key-\($0)" }
        for name in names { world.put(name, space, payload(name, length: 50_000)) }
        world.settle()
        world.emptyStaging(space)
        // Enough reads for the device to be known: 50 ms each.
        for name in names.prefix(10) { _ = world.get(name, space, length: 50_000) }
        let judge = world.store.judge
        #expect(judge.cost(0).isMeasured && judge.cost(0).outstanding == 0)
        world.chain(space, Array(names.suffix(2)))
        #expect(world.store.pump())
        #expect(world.store.prefetchStatistics.inFlight > 0)
        #expect(judge.cost(0).outstanding >= 50_000)
        var ask = PrefixAsk(tokensPerBlock: 10)
        ask.tokensPerSecond = 1000  // 10 ms a block
        let made = judge.decide(
            ask, namespaceSlot: space, keys: 2, now: world.clock.monotonic
        ) { number in
            Array(names[10 + number].utf8).withUnsafeBytes {
                world.store.staged.prefixBlock(space, $0)
            }
        }
        #expect(made.present == 2 && made.blocks == 0)
        world.settle()
    }

    @Test func withoutARateEverythingIsClaimed() {
        var slow = devices(perByte: 10)
        var unknown = question()
        unknown.blockNanoseconds = 0
        #expect(decide(unknown, stored, &slow).blocks == 80)
    }

    // MARK: Whole runs

    struct Device: CustomTestStringConvertible, Sendable {
        var gigabytes: Double
        var load: Double
        var ahead: Bool
        var testDescription: String { "\(gigabytes) GB/s, load \(load), ahead \(ahead)" }
    }
    static let all = [0.05, 0.2, 1, 7].flatMap { bandwidth in
        [0.2, 0.5, 0.8, 0.95].flatMap { load in
            [true, false].map { Device(gigabytes: bandwidth, load: load, ahead: $0) }
        }
    }

    @Test(arguments: all) func neverSlowerThanComputing(_ device: Device) {
        for seed in [UInt64(11), 12] {
            var run = QueueRun(seed: seed, gigabytes: { _ in device.gigabytes })
            run.simulate(load: device.load, ahead: device.ahead)
            #expect(run.mean(run.claimed) <= 1.02 * run.mean(run.computed))
            #expect(run.p99(run.claimed) <= 1.02 * run.p99(run.computed))
            if device.gigabytes == 7 {
                #expect(run.mean(run.claimed) < 0.8 * run.mean(run.computed))
            }
        }
    }

    /// A drive that becomes a hundredth of itself is found out: what had been claimed of it by then
    /// has to be waited for, but hardly more is claimed.
    @Test func aDeviceThatBecomesSlowIsDeclined() {
        var run = QueueRun(seed: 5, gigabytes: { $0 < 1500 ? 7 : 0.07 })
        run.simulate(load: 0.2, ahead: false)
        let before = run.claims[..<1500].reduce(0, +)
        let after = run.claims[1600...].reduce(0, +)
        #expect(before > 10_000)
        #expect(after < before / 20)
    }

    /// Whatever an engine tells, and however often it asks without loading, there is an answer.
    @Test func absurdQuestionsAreAnswered() {
        let judge = PrefixJudge()
        #expect(judge.readingGain == 0)
        let slow = devices(perByte: 1e300)
        for rate in [Double.leastNonzeroMagnitude, 1e-300, 1, .greatestFiniteMagnitude, 0] {
            for after in [UInt64(0), 1, .max] {
                for keys in [0, 1, 3] {
                    var ask = PrefixAsk(tokensPerBlock: keys == 1 ? .max : 1)
                    (ask.tokensPerSecond, ask.tokensAfter) = (rate, after)
                    (ask.startsIn, ask.loadsIn) = (after, after)
                    ask.layers = keys == 3 ? .max : 1
                    let made = judge.decide(ask, namespaceSlot: 0, keys: keys, now: 1) { _ in
                        PrefixBlock(bytes: .max, device: 0)
                    }
                    #expect(made.present == keys && made.blocks <= keys)
                    #expect(made.readyIn <= 1 << 60 && made.endIn <= 1 << 60)
                    judge.computed(tokens: 1, nanoseconds: .max)
                }
            }
        }
        // Claims that nobody asks for pile up, to a bound.
        var known = slow
        known[0].claimed = 1 << 62
        known[0].freeAt = .max
        let question = PrefixQuestion(now: 1, blocks: 1, blockNanoseconds: 0)
        for _ in 0..<100 {
            #expect(
                decide(question, [PrefixBlock(bytes: .max, device: 0)], &known).blocks == 1)
            known[0].claimed = max(known[0].claimed, known[0].claimed &+ 1 << 61)
        }
    }

    @Test func theRateIsLearntFromPuts() {
        var rate = RecomputeRate()
        #expect(rate.blockNanoseconds(3) == 0)
        var now: UInt64 = 5
        for second in 0..<20 {  // 40 a second while busy, and long silences
            for _ in 0..<(second % 2 == 0 ? 40 : 3) {
                rate.stored(3, now: now)
                now += 25_000_000
            }
            now += 3_000_000_000
        }
        #expect(abs(rate.blockNanoseconds(3) - 25e6) < 2e6)
        #expect(rate.blockNanoseconds(4) == 0)
        #expect(rate.tokenNanoseconds == 0)
        rate.computed(tokens: 1000, nanoseconds: 50_000_000)
        #expect(rate.tokenNanoseconds == 50_000)
    }
}

/// Requests in front of one prefill server and one device that reads first come, first served, on
/// which blocks of 512 tokens are 64 MiB; the meter sees each read when it has ended.
private struct QueueRun {
    private static let block = 64.0 * 1024 * 1024
    private static let compute = 512.0 / 20_000 * 1e9
    private static let layers = 32
    private struct Request {
        var arrival = 0.0
        var stored = 0
        var blocks = 0
    }
    private struct Read {
        var start: Double
        var end: Double
        var mark: ReadMeter.Mark
    }

    private var chance: Chance
    private let gigabytes: (Int) -> Double
    private let judge = PrefixJudge()
    private var meter = ReadMeter()
    private var reads: [Read] = []
    private var nextRead = 0
    private var free = 0.0
    var claimed: [Double] = []
    var computed: [Double] = []
    var claims: [Int] = []

    init(seed: UInt64, gigabytes: @escaping (Int) -> Double) {
        chance = Chance(state: seed &* 0x9E37_79B9_7F4A_7C15)
        self.gigabytes = gigabytes
    }

    func mean(_ times: [Double]) -> Double { times.reduce(0, +) / Double(times.count) }
    func p99(_ times: [Double]) -> Double { times.sorted()[times.count * 99 / 100] }

    private mutating func requests(_ load: Double) -> [Request] {
        var made: [Request] = []
        var work = 0.0
        for _ in 0..<3000 {
            var request = Request()
            if chance.unit() < 0.3 { request.stored = 1 + chance.below(1 + chance.below(120)) }
            request.blocks = request.stored + 1 + chance.below(1 + chance.below(40))
            work += Double(request.blocks - request.stored) * Self.compute
            made.append(request)
        }
        let gap = work / load / Double(made.count)
        var time = 0.0
        for index in made.indices {
            time += gap * chance.exponential()
            made[index].arrival = time
        }
        return made
    }

    mutating func simulate(load: Double, ahead: Bool) {
        var server = 0.0
        var serverAlone = 0.0
        for (number, request) in requests(load).enumerated() {
            let whole = Double(request.blocks) * Self.compute
            serverAlone = max(serverAlone, request.arrival) + whole
            computed.append(serverAlone - request.arrival)

            let begin = max(server, request.arrival)
            // Ahead: asked when it arrives, with the wait told; else when its turn comes.
            let now = ahead ? request.arrival : begin
            observe(until: now)
            var ask = PrefixAsk(tokensPerBlock: 512)
            ask.tokensPerSecond = 20_000
            ask.layers = UInt32(Self.layers)
            ask.startsIn = UInt64(begin - now)
            let made = judge.decide(
                ask, namespaceSlot: 0, keys: request.blocks, now: UInt64(now) + 1
            ) {
                $0 < request.stored ? PrefixBlock(bytes: UInt32(Self.block), device: 0) : nil
            }
            let from = max(now, free)
            for _ in 0..<made.blocks { read(now, gigabytes(number)) }
            let rest = Double(request.blocks - made.blocks) * Self.compute
            server = begin + rest
            if made.blocks > 0 {
                let first = from + (free - from) / Double(Self.layers)
                server = max(max(begin, first) + rest, free + rest / Double(Self.layers))
            }
            claimed.append(server - request.arrival)
            claims.append(made.blocks)
        }
    }

    private mutating func read(_ now: Double, _ gigabytes: Double) {
        _ = meter.began(Int(Self.block))
        let mark = meter.mark
        free = max(free, now + 100_000) + Self.block / gigabytes
        reads.append(Read(start: now, end: free, mark: mark))
    }

    private mutating func observe(until now: Double) {
        while nextRead < reads.count, reads[nextRead].end <= now {
            let read = reads[nextRead]
            meter.ended(Int(Self.block))
            meter.timed(
                Int(Self.block), start: UInt64(read.start), now: UInt64(read.end), mark: read.mark)
            nextRead += 1
        }
        judge.update([meter])
    }
}
