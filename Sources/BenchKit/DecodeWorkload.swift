// DecodeWorkload: which pages a sparse attention picks, layer by layer and step by step, made
// from a seed with wanted overlaps of picks between steps and between layers.
//
// A page's score in a layer is normal: a part that stays (heavy hitters) and a part that drifts
// from step to step; both resemble those of the layer before. The best k pages are picked. How
// much scores must resemble each other for the picks to overlap as wanted is solved for
// beforehand. Now and then the topic changes and the drifting part is drawn anew. No claim is
// made that any model picks so; what it is good for is holding predictors against each other.

import Glibc

package struct DecodeOptions: Equatable, Sendable {
    package var steps = 150
    /// Shares of picks that the next step, and the next layer, pick again.
    package var stepOverlap = 0.75
    package var layerOverlap = 0.6
    package var pages = 1024
    package var picks = 64
    package var layers = 16
    /// The part of a score's variance that stays.
    package var staying = 0.3
    /// Chance of a change of topic a step.
    package var jump = 0.01
    /// Pages of the fast tier for each layer, in multiples of what a layer picks.
    package var cache = 2.0
    /// Tokens of a page, and nanoseconds that a layer takes to compute.
    package var pageTokens = 64
    package var layerTime: UInt64 = 781_250
    package init() {}

    /// Parts with commas: `steps=`, `overlap=` (of steps, then a slash and of layers), `pages=`,
    /// `picks=`, `layers=`, `static=`, `jump=`, `cache=`, `page-tokens=`, `layer-time=`.
    package init(_ text: String) throws(OptionProblem) {
        for part in text.split(separator: ",", omittingEmptySubsequences: false) {
            let words = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard words.count == 2 else {
                throw OptionProblem(
                    "'\(part)' is not steps=n, overlap=x/y, pages=n, picks=n, layers=n, static=x, "
                        + "jump=x, cache=x, page-tokens=n or layer-time=t")
            }
            let value = String(words[1])
            switch words[0] {
            case "steps": steps = Int(try OptionValue.integer(value, in: 2...1_000_000))
            case "pages": pages = Int(try OptionValue.integer(value, in: 2...65_536))
            case "picks": picks = Int(try OptionValue.integer(value, in: 1...65_536))
            case "layers": layers = Int(try OptionValue.integer(value, in: 1...1024))
            case "static": staying = try Self.share(value)
            case "jump": jump = try Self.share(value)
            case "page-tokens": pageTokens = Int(try OptionValue.integer(value, in: 1...65_536))
            case "layer-time": layerTime = max(1, try OptionValue.time(value))
            case "cache":
                guard let times = Double(value), (0.1...1000).contains(times) else {
                    throw OptionProblem("'\(value)' is not a multiple of a layer's picks")
                }
                cache = times
            case "overlap":
                let shares = value.split(separator: "/", omittingEmptySubsequences: false)
                guard shares.count <= 2, let first = shares.first else {
                    throw OptionProblem("'\(value)' is not one or two shares, such as 0.75/0.6")
                }
                stepOverlap = try Self.share(String(first))
                if shares.count == 2 { layerOverlap = try Self.share(String(shares[1])) }
            default:
                throw OptionProblem(
                    "'\(words[0])' is not allowed; allowed: steps, overlap, pages, picks, layers, "
                        + "static, jump, cache, page-tokens, layer-time")
            }
        }
        guard picks < pages else { throw OptionProblem("picks must be fewer than pages") }
    }

    private static func share(_ text: String) throws(OptionProblem) -> Double {
        guard let value = Double(text), (0...0.99).contains(value) else {
            throw OptionProblem("'\(text)' is not a share of 0 to 0.99")
        }
        return value
    }

    package var text: String {
        "gen:steps=\(steps),overlap=" + formatted("%g/%g", stepOverlap, layerOverlap)
            + ",pages=\(pages),picks=\(picks),layers=\(layers)"
    }
}

/// What was picked: step by step, layer by layer, pages in rising order.
package struct DecodePicks: Equatable, Sendable {
    package private(set) var layers: Int
    package private(set) var pages: Int
    private var picks: [[Int32]] = []

    package var steps: Int { layers == 0 ? 0 : picks.count / layers }

    package subscript(step: Int, layer: Int) -> [Int32] { picks[step * layers + layer] }

    init(layers: Int, pages: Int, picks: [[Int32]]) {
        self.layers = layers
        self.pages = pages
        self.picks = picks
    }

    /// The mean share of a set of picks that is picked again `steps` later, or `layers` deeper.
    package func overlap(steps: Int = 0, layers: Int = 0) -> Double {
        var again = 0
        var all = 0
        for step in 0..<max(0, self.steps - steps) {
            for layer in 0..<max(0, self.layers - layers) {
                let first = Set(self[step, layer])
                again += self[step + steps, layer + layers].count { first.contains($0) }
                all += first.count
            }
        }
        return all == 0 ? 0 : Double(again) / Double(all)
    }
}

extension DecodePicks {
    /// From lines `{"s":step,"l":layer,"p":[pages]}`: steps and layers from 0 on, in their order.
    package init(lines text: String) throws(BenchError) {
        var picks: [[Int32]] = []
        var (layers, pages) = (0, 0)
        for (number, line) in text.split(separator: "\n").enumerated() {
            guard let value = JSONValue(parsing: String(line)),
                let step = Self.whole(value["s"]), let layer = Self.whole(value["l"]),
                case .array(let list)? = value["p"]
            else {
                throw BenchError("line \(number + 1) is not {\"s\":n,\"l\":n,\"p\":[n,..]}")
            }
            if step == 0 { layers = max(layers, layer + 1) }
            guard layers > 0, picks.count == step * layers + layer else {
                throw BenchError("line \(number + 1): step \(step), layer \(layer) is misplaced")
            }
            var set: Set<Int32> = []
            for page in list {
                guard let page = Self.whole(page), page < 1 << 24 else {
                    throw BenchError("line \(number + 1): a page is a number from 0 to 2^24")
                }
                set.insert(Int32(page))
                pages = max(pages, page + 1)
            }
            picks.append(set.sorted())
        }
        guard layers > 0, !picks.isEmpty, picks.count % layers == 0 else {
            throw BenchError("no whole step of picks")
        }
        self.init(layers: layers, pages: pages, picks: picks)
    }

    private static func whole(_ value: JSONValue?) -> Int? {
        switch value {
        case .integer(let number)? where number >= 0: Int(number)
        case .unsigned(let number)?: Int(exactly: number)
        default: nil
        }
    }

    /// The mean number of pages that a layer picks.
    package var picksALayer: Double {
        Double(picks.reduce(0) { $0 + $1.count }) / Double(max(1, picks.count))
    }

    package init(_ options: DecodeOptions, seed: UInt64) {
        let share = Double(options.picks) / Double(options.pages)
        let steps = Self.correlation(overlap: options.stepOverlap, share: share)
        let depth = Self.correlation(overlap: options.layerOverlap, share: share)
        let staying = min(options.staying, 0.9 * steps)
        let drift = (steps - staying) / (1 - staying)
        var random = SeededGenerator(seed: scrambled(seed ^ 0xDEC0DE))
        let stays = Self.field(options, depth, &random)
        var moves = Self.field(options, depth, &random)
        var picks: [[Int32]] = []
        picks.reserveCapacity(options.steps * options.layers)
        let (still, moving) = (staying.squareRoot(), (1 - staying).squareRoot())
        let rest = (1 - drift * drift).squareRoot()
        var scores = [Double](repeating: 0, count: options.pages)
        for _ in 0..<options.steps {
            for layer in 0..<options.layers {
                let start = layer * options.pages
                for page in 0..<options.pages {
                    scores[page] = still * stays[start + page] + moving * moves[start + page]
                }
                picks.append(Self.best(options.picks, of: scores))
            }
            let fresh = Self.field(options, depth, &random)
            if random.unit() < options.jump {
                moves = fresh
            } else {
                for index in moves.indices {
                    moves[index] = drift * moves[index] + rest * fresh[index]
                }
            }
        }
        self.init(layers: options.layers, pages: options.pages, picks: picks)
    }

    /// Normal scores of all pages, each layer's resembling those of the one before.
    private static func field(
        _ options: DecodeOptions, _ correlation: Double, _ random: inout SeededGenerator
    ) -> [Double] {
        let rest = (1 - correlation * correlation).squareRoot()
        var scores: [Double] = []
        scores.reserveCapacity(options.layers * options.pages)
        for layer in 0..<options.layers {
            for _ in 0..<options.pages {
                let above = layer == 0 ? 0 : scores[scores.count - options.pages]
                let own = random.normal()
                scores.append(layer == 0 ? own : correlation * above + rest * own)
            }
        }
        return scores
    }

    static func best(_ count: Int, of scores: [Double]) -> [Int32] {
        let order = scores.indices.sorted { (scores[$0], $1) > (scores[$1], $0) }
        return order.prefix(count).map { Int32($0) }.sorted()
    }

    /// The correlation of two normal scores whose best `share` overlap by `overlap`.
    static func correlation(overlap: Double, share: Double) -> Double {
        let samples = 100_000
        var random = SeededGenerator(seed: 0x0C0A)
        let first = (0..<samples).map { _ in random.normal() }
        let other = (0..<samples).map { _ in random.normal() }
        let count = max(1, Int(share * Double(samples)))
        func threshold(_ values: [Double]) -> Double { values.sorted(by: >)[count - 1] }
        let high = threshold(first)
        let (wanted, picked) = (overlap * Double(count), first.indices.filter { first[$0] >= high })
        var (low, top) = (0.0, 0.99999)
        for _ in 0..<24 {
            let middle = (low + top) / 2
            let rest = (1 - middle * middle).squareRoot()
            let second = first.indices.map { middle * first[$0] + rest * other[$0] }
            let limit = threshold(second)
            let both = picked.count { second[$0] >= limit }
            if Double(both) < wanted { low = middle } else { top = middle }
        }
        return (low + top) / 2
    }
}
