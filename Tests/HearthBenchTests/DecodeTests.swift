// DecodeTests: the generator's picks overlap as wanted, and small decodings in virtual time: equal
// runs are equal, guesses and hints are worth what they should be.

import BenchKit
import Testing

@testable import hearth_bench

@Suite struct DecodeTests {
    @Test func picksOverlapAsWanted() throws {
        var options = DecodeOptions()
        (options.steps, options.pages, options.picks, options.layers) = (40, 512, 32, 8)
        options.jump = 0
        for (steps, layers) in [(0.6, 0.3), (0.85, 0.85)] {
            (options.stepOverlap, options.layerOverlap) = (steps, layers)
            let picks = DecodePicks(options, seed: 1)
            #expect(abs(picks.overlap(steps: 1) - steps) < 0.06)
            #expect(abs(picks.overlap(layers: 1) - layers) < 0.06)
            #expect(picks[3, 2].count == 32 && Set(picks[3, 2]).count == 32)
            #expect(picks == DecodePicks(options, seed: 1))
            #expect(picks != DecodePicks(options, seed: 2))
        }
    }

    @Test func picksAreReadFromLines() throws {
        let text = """
            {"s":0,"l":0,"p":[3,1,1]}
            {"s":0,"l":1,"p":[]}
            {"s":1,"l":0,"p":[9]}
            {"s":1,"l":1,"p":[0]}
            """
        let picks = try DecodePicks(lines: text)
        #expect(picks.layers == 2 && picks.steps == 2 && picks.pages == 10)
        #expect(picks[0, 0] == [1, 3] && picks[1, 0] == [9])
        for bad in [
            "", "{}", "{\"s\":0,\"l\":0,\"p\":[-1]}", "{\"s\":1,\"l\":0,\"p\":[1]}",
            "{\"s\":0,\"l\":1,\"p\":[1]}", "{\"s\":0,\"l\":0,\"p\":[1]}\nx",
            "{\"s\":0,\"l\":0,\"p\":[1]}\n{\"s\":0,\"l\":0,\"p\":[1]}",
        ] {
            #expect(throws: BenchError.self) { _ = try DecodePicks(lines: bad) }
        }
    }

    private func report(_ words: [String: String]) throws -> DecodeReplay.Report {
        var given: [String: String?] = [
            "decode": "gen:steps=60,overlap=0.75/0.6,pages=256,picks=16,layers=8", "seed": "2",
            "device-model": "bw=7g,lat=80us,qd=64",
        ]
        for (name, text) in words { given[name] = text }
        return try DecodeReplay.measure(ReplayConfiguration(given: given, keep: false))
    }

    @Test func guessesOfTheNextLayer() throws {
        let first = try report(["prefetch": "layer"])
        #expect(first.main.wrong == 0 && first.without.wrong == 0)
        #expect(first.without.useful == 0 && first.without.misses > 200)
        #expect(first.main.coverage > 0.18)
        #expect(DecodeReplay.issuedPerMiss(first) < 1.1)
        #expect(first.main.stall < first.without.stall)
        let second = try report(["prefetch": "layer"])
        #expect(first.main == second.main)
    }

    @Test func hintedPagesComeInTime() throws {
        let made = try report(["hints": "pages:0.9"])
        #expect(made.main.wrong == 0)
        #expect(made.main.inTime > 0.8)
        #expect(made.main.stall < 0.5 * made.without.stall)
        let none = try report(["prefetch": "off"])
        #expect(none.main == none.without)
    }

    @Test(arguments: [
        "gen:steps=1", "gen:overlap=1.5", "gen:picks=2000", "gen:cache=0", "gen:x=1", "",
    ])
    func wrongOptionsAreRefused(_ text: String) {
        #expect(throws: UsageError.self) {
            _ = try ReplayConfiguration(given: ["decode": text], keep: false)
        }
    }
}
