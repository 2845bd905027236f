// The statistics as Prometheus text: every number of the JSON is there, under its name; each metric
// is declared once, before its samples, which stand together.

import Testing

@testable import Hearth

@Suite struct PrometheusTests {
    private func statistics() -> Statistics {
        var made = Statistics()
        made.gets.hitsDevice = 12
        made.gets.missesByReason = ["neverPut": 3, "evicted": 4]
        made.gets.latencyDevice = LatencySummary(
            count: 2, sum: 300, mean: 150, p50: 100, p90: 200, p99: 200, p999: 200, max: 200)
        made.writes.amplification = 1.25
        made.space.capacity = 1 << 40
        made.driver.kind = "io_uring"
        made.driver.grants = "a \"quoted\" \\ word\nand a line"
        made.devices = [
            Statistics.DeviceState(index: 0, state: "healthy", segments: 5),
            Statistics.DeviceState(index: 3, state: "out", segments: 6),
        ]
        made.hints.byKind = ["chain": 9]
        made.recovery.isComplete = true
        made.durableVersion = 77
        return made
    }

    @Test func samples() {
        let text = statistics().prometheus()
        let lines = Set(text.split(separator: "\n").map(String.init))
        for line in [
            "# TYPE hearth_gets_hits_device counter", "hearth_gets_hits_device 12",
            "hearth_gets_misses_by_reason{reason=\"never_put\"} 3",
            "hearth_gets_misses_by_reason{reason=\"evicted\"} 4",
            "# TYPE hearth_gets_latency_device summary",
            "hearth_gets_latency_device{quantile=\"0.5\"} 100",
            "hearth_gets_latency_device_sum 300", "hearth_gets_latency_device_count 2",
            "# TYPE hearth_space_capacity gauge", "hearth_space_capacity 1099511627776",
            "# TYPE hearth_writes_amplification gauge", "hearth_writes_amplification 1.25",
            "hearth_hints_by_kind{kind=\"chain\"} 9", "hearth_recovery_is_complete 1",
            "hearth_devices_segments{device=\"0\"} 5", "hearth_devices_segments{device=\"1\"} 6",
            "hearth_devices_info{device=\"1\",state=\"out\"} 1", "hearth_durable_version 77",
            "hearth_driver_info{kind=\"io_uring\",grants=\"a \\\"quoted\\\" \\\\ word\\nand a"
                + " line\",slab_pages=\"\"} 1",
        ] {
            #expect(lines.contains(line), "\(line)")
        }
    }

    @Test func eachMetricIsDeclaredOnceBeforeItsSamples() throws {
        var declared: Set<String> = []
        var current = ""
        var samples: Set<String> = []
        for line in statistics().prometheus().split(separator: "\n") {
            let words = line.split(separator: " ", maxSplits: 3).map(String.init)
            if words[0] == "#" {
                if words[1] == "HELP" {
                    #expect(declared.insert(words[2]).inserted, "\(words[2]) twice")
                    current = words[2]
                } else {
                    #expect(words[1] == "TYPE" && words[2] == current)
                    #expect(["counter", "gauge", "summary"].contains(words[3]))
                }
                continue
            }
            let name = line.prefix { $0 != "{" && $0 != " " }
            #expect(name == current || name == current + "_sum" || name == current + "_count")
            let sample = line.split(separator: " ").dropLast().joined(separator: " ")
            #expect(samples.insert(sample).inserted, "\(sample) twice")
            #expect(Double(line.split(separator: " ").last ?? "") != nil, "\(line)")
            #expect(name.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "_") })
        }
        #expect(declared.count > 70)
    }

    /// The names are those of the JSON: none is missing.
    @Test func everyNumberOfTheJSONIsThere() {
        let text = statistics().prometheus()
        var names = 0
        for part in [
            "gets", "puts", "reads", "writes", "space", "reclaim", "trouble", "memory", "driver",
            "recovery",
        ] {
            let parts = Mirror(reflecting: statistics()).children
            guard let value = parts.first(where: { $0.label == part }) else { continue }
            for field in Mirror(reflecting: value.value).children {
                guard let label = field.label, !(field.value is [String: UInt64]),
                    !(field.value is String)
                else { continue }
                names += 1
                let name = "hearth_\(part)_\(PrometheusText.snake(label))"
                #expect(text.contains("# TYPE \(name) "), "\(name)")
            }
        }
        #expect(names > 90)
    }
}
