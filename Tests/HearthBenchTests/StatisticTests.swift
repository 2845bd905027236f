// Statistics: fio's histogram by the values its source documents, percentiles, deviations, depth
// maps, latency steps, and fio's figures.

import Testing

@testable import BenchKit

@Suite struct StatisticTests {
    // The comment at plat_val_to_idx in fio's stat.c: values below 128 are exact; then groups of 64
    // buckets whose width doubles.
    @Test(
        arguments: [
            (0, 0), (1, 1), (63, 63), (64, 64), (127, 127), (128, 128), (129, 128), (130, 129),
            (255, 191), (256, 192), (259, 192), (260, 193), (511, 255), (512, 256), (1023, 319),
            (1024, 320),
        ] as [(UInt64, Int)])
    func buckets(value: UInt64, bucket: Int) {
        #expect(LatencyHistogram.bucket(value) == bucket)
    }

    // Bucket middles as fio 3.33 printed them for runs on this code's development machine.
    @Test(
        arguments: [
            97792, 142336, 150528, 173056, 189440, 224256, 226304, 242688, 252928, 264192, 395264,
            444416, 27008, 32384, 38144, 42240, 10688, 44288,
        ] as [UInt64])
    func middlesAreFios(value: UInt64) {
        #expect(LatencyHistogram.value(LatencyHistogram.bucket(value)) == value)
    }

    @Test func errorIsBelowOneInSixtyFour() {
        var random = SeededGenerator(seed: 3)
        // The last group ends at 2^34 ns, 17 s; what is longer counts there.
        for _ in 0..<10_000 {
            let value = random.next() >> (random.below(34) + 30)
            let shown = LatencyHistogram.value(LatencyHistogram.bucket(value))
            let error = value > shown ? value - shown : shown - value
            #expect(error * 64 <= max(value, 64))
        }
        #expect(LatencyHistogram.bucket(UInt64.max) == LatencyHistogram.buckets - 1)
    }

    @Test func percentiles() {
        var histogram = LatencyHistogram()
        for value in 1...100 { histogram.add(UInt64(value)) }
        #expect(histogram.percentiles([1, 50, 99, 100]) == [1, 50, 99, 100])
        var other = LatencyHistogram()
        for _ in 0..<100 { other.add(5) }
        histogram.merge(other)
        #expect(histogram.total == 200)
        #expect(histogram.percentiles([50]) == [5])
        #expect(LatencyHistogram().percentiles([50, 99]) == [0, 0])
    }

    @Test func samplesMergeAsOnePopulation() {
        var all = SampleStatistic()
        var parts = [SampleStatistic(), SampleStatistic()]
        var random = SeededGenerator(seed: 5)
        for index in 0..<1000 {
            let value = random.below(10_000)
            all.add(value)
            parts[index % 3 == 0 ? 0 : 1].add(value)
        }
        parts[0].merge(parts[1])
        #expect(parts[0].count == 1000 && parts[0].smallest == all.smallest)
        #expect(abs(parts[0].mean - all.mean) < 1e-6)
        #expect(abs(parts[0].deviation - all.deviation) < 1e-6)
        var small = SampleStatistic()
        for value in [2, 4, 4, 4, 5, 5, 7, 9] as [UInt64] { small.add(value) }
        #expect(small.mean == 5 && abs(small.deviation - (32.0 / 7).squareRoot()) < 1e-12)
    }

    @Test func ratesOfJobsAdd() {
        var first = SampleStatistic()
        var second = SampleStatistic()
        for value in [100, 110] as [UInt64] { first.add(value) }
        for value in [200, 190] as [UInt64] { second.add(value) }
        first.addParallel(second)
        #expect(first.smallest == 290 && first.maximum == 310 && first.mean == 300)
    }

    @Test func depthsAndSteps() {
        var map = DepthMap()
        for depth in [1, 2, 3, 4, 7, 8, 64, 200] { map.addDepth(depth) }
        #expect(map.counts == [1, 2, 2, 1, 0, 0, 2])
        var batches = DepthMap()
        for count in [0, 1, 4, 5, 16, 33, 65] { batches.addBatch(count) }
        #expect(batches.counts == [1, 2, 1, 1, 0, 1, 1])
        var steps = LatencySteps()
        for value in [1, 3, 999, 1000, 49_000, 50_000, 2_000_000_000, 1_500_000_000] as [UInt64] {
            steps.add(value)
        }
        #expect(steps.nanoseconds[0] == 1 && steps.nanoseconds[1] == 1)
        #expect(steps.nanoseconds[9] == 1 && steps.microseconds[0] == 1)
        #expect(steps.microseconds[4] == 1 && steps.microseconds[5] == 1)
        #expect(steps.milliseconds[11] == 1 && steps.milliseconds[10] == 1)
    }

    // Pairs of number and text as fio 3.33 prints them.
    @Test func figuresAreFios() {
        #expect(figure(9666, binary: false) == "9666")
        #expect(figure(10714, binary: false) == "10.7k")
        #expect(figure(1_659_240, binary: false) == "1659k")
        #expect(figure(633_514_666, binary: true, unit: "B/s") == "604MiB/s")
        #expect(figure(633_514_666, binary: false, unit: "B/s") == "634MB/s")
        #expect(figure(1_900_544, binary: true, unit: "B") == "1856KiB")
        #expect(figure(65536, binary: true, unit: "B") == "64.0KiB")
        #expect(figure(4096, binary: true, unit: "B") == "4096B")
        #expect(figure(3_167_300, digits: 6, binary: false) == "3167.3k")
        #expect(figure(91516, digits: 6, binary: false) == "91516")
    }

    @Test func permutationVisitsEachOnce() {
        for count in [1, 2, 3, 17, 1000, 4096] as [UInt64] {
            let order = Permutation(count: count, seed: 9)
            let places = (0..<count).map { order[$0] }
            #expect(Set(places).count == Int(count) && places.allSatisfy { $0 < count })
        }
        let first = Permutation(count: 1000, seed: 1)
        let second = Permutation(count: 1000, seed: 2)
        #expect((0..<1000).contains { first[$0] != second[$0] })
        #expect((0..<1000).count { first[$0] == $0 } < 20)
    }
}
