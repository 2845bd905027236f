// TimedReplayTests: the model of arrivals and of the prefill server against figures worked out by
// hand, and whole replays in virtual time of a small generated workload: equal runs are equal, an
// oracle is a bound, and what is announced comes early.

import BenchKit
import Testing

@testable import hearth_bench

@Suite struct TimedReplayTests {
    // MARK: The model

    /// As a batch of gets is served: reading one block must not evict those that are there.
    @Test func aLoadAsksForWhatIsInMemoryFirst() {
        func order(singly: Bool) -> [Int] {
            var load = BlockLoad([10, 11, 12, 13], asksSingly: singly) { $0 == 10 || $0 == 12 }
            var places: [Int] = []
            while !load.isAsked {
                #expect(load.mayAsk)
                places.append(load.nextPlace)
                load.next += 1
                load.ended += 1
            }
            return places
        }
        #expect(order(singly: false) == [2, 0, 3, 1])
        #expect(order(singly: true) == [0, 1, 2, 3])
    }

    @Test func layersHideTheShorterOfTwo() {
        let model = PrefillModel(rate: 1000, layers: 10, blockTokens: 100)
        #expect(model.compute(tokens: 1000, cachedBlocks: 4) == 0.6)
        // One token is computed whatever is there.
        #expect(model.compute(tokens: 400, cachedBlocks: 4) == 0.001)
        #expect(model.service(compute: 2, load: 0) == 2)
        #expect(model.service(compute: 2, load: 1) == 2.1)
        #expect(model.service(compute: 1, load: 4) == 4.1)
        #expect(model.stall(compute: 1, load: 0) == 0)
        #expect(abs(model.stall(compute: 1, load: 4) - 3.1) < 1e-9)
    }

    @Test func oneServerInOrder() {
        let times = PrefillModel.queue(
            arrivals: [0, 1_000_000_000, 1_500_000_000, 9_000_000_000], service: [2, 1, 1, 0.5])
        #expect(times == [2, 2, 2.5, 0.5])
        let figures = TimeFigures(times)
        #expect(figures.mean == 1.75 && figures.p99 == 2.5)
    }

    @Test func bucketsAreSpreadAndTimeIsStretched() {
        let times = [0.0, 0, 0, 3, 3, 6, 9]
        let plan = ArrivalPlan(times: times, seed: 1)
        #expect(plan.seconds.first == 0 && plan.seconds == plan.seconds.sorted())
        #expect(Set(plan.seconds).count == times.count)
        for (index, second) in plan.seconds.enumerated() {
            // From the first one, which itself may lie up to a bucket behind its time.
            #expect(second > times[index] - 3 && second < times[index] + 3)
        }
        #expect(plan.seconds == ArrivalPlan(times: times, seed: 1).seconds)
        #expect(plan.seconds != ArrivalPlan(times: times, seed: 2).seconds)
        let factor = plan.factor(load: 0.5, work: 2 * plan.span)
        #expect(abs(factor - 4) < 1e-9)
        // A trace with exact times is left as it is.
        #expect(ArrivalPlan(times: [0, 0.5, 0.9], seed: 1).seconds == [0, 0.5, 0.9])
    }

    // MARK: Whole runs

    private func report(_ words: [String: String]) throws -> TimedReport {
        var given: [String: String?] = [
            "time": "virtual", "sessions": "100", "turns": "3", "seed": "3", "eta": "never",
            "dram": "20%", "load": "0.1", "device-model": "bw=7g,lat=80us,qd=64",
            "block-tokens": "512",
        ]
        for (name, text) in words { given[name] = text }
        let settings = try ReplayConfiguration(given: given, keep: false)
        let run = try TimedRun(settings) { plan throws(BenchError) in try VirtualStore(plan) }
        let bounds = try run.bounds()
        return TimedReport(
            source: "chat", trace: run.trace, join: 1, plan: run.plan, model: run.model,
            hints: run.hintText, runs: try run.runs(bounds, load: settings.timed.loads.first),
            bounds: bounds)
    }

    @Test func equalRunsAreEqualAndEarlyIsBetter() throws {
        let words = ["claim": "all", "dram": "30%", "seed": "5"]
        let first = try report(words)
        let second = try report(words)
        #expect(first.json.description == second.json.description)
        let runs = first.runs
        #expect(runs.main.wrong == 0 && runs.withoutPrefetch.wrong == 0)
        #expect(runs.main.prefetch.useful > 20, "the workload reads the device")
        // A queue of many requests before little DRAM: what was there when a request came, or was
        // stored since, is brought again when it has left, some of it more than once.
        #expect(runs.main.prefetch.coverage > 0.95 && runs.main.prefetch.accuracy > 0.75)
        #expect(runs.main.stall < 0.8 * runs.withoutPrefetch.stall)
        #expect(runs.oracleTimes.mean < runs.times.mean)
        #expect(first.stallRemoved > 0.2 && first.stallRemoved < 1)
    }

    /// Nothing is announced, each block is asked for when the one before has come: what follows is
    /// known from the puts, which come from a chain's end.
    @Test func whatFollowsIsKnownFromThePuts() throws {
        let early = try report([
            "prefetch": "successor", "claim": "all", "dram": "30%", "seed": "5",
        ]).runs.main.prefetch
        #expect(early.useful > 1000 && early.coverage > 0.9 && early.accuracy > 0.9)
    }

    @Test func withoutPrefetchingNothingComesEarly() throws {
        let runs = try report(["prefetch": "off", "claim": "all"]).runs
        #expect(runs.main == runs.withoutPrefetch)
        #expect(runs.main.prefetch.issued == 0 && runs.main.stall > 0)
        let bound = try report(["prefetch": "oracle"]).runs
        #expect(bound.main.stall == 0 && bound.times.mean == bound.oracleTimes.mean)
    }

    /// Whatever the device, nobody waits longer than with none.
    @Test(arguments: [("bw=20m", "0.1"), ("bw=20m", "0.9"), ("bw=1g", "0.3"), ("bw=7g", "0.3")])
    func neverSlowerThanComputing(_ device: String, _ load: String) throws {
        let runs = try report(["device-model": device + ",lat=80us,qd=64", "load": load]).runs
        #expect(runs.main.wrong == 0)
        #expect(runs.times.mean <= 1.02 * runs.recomputeTimes.mean)
        #expect(runs.times.p99 <= 1.02 * runs.recomputeTimes.p99)
        // What is computed instead of loaded is time lost, too.
        #expect(runs.main.stall >= runs.main.declinedSeconds - 1e-6)
        if device == "bw=7g" {
            #expect(runs.times.mean < 0.95 * runs.recomputeTimes.mean)
            #expect(runs.main.hitsSSD + runs.main.prefetch.useful > 20)
        }
    }

    @Test(arguments: [
        ("prefetch", "sessions"), ("claim", "some"), ("time", "wall"), ("device-model", "fit"),
        ("device-model", "bw=0"), ("load", "0"), ("layers", "0"), ("speed", "-1"),
    ])
    func whatIsNotThereIsRefused(_ name: String, _ text: String) {
        #expect(throws: UsageError.self) {
            _ = try ReplayConfiguration(given: [name: text], keep: false)
        }
    }
}
