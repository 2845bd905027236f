// What is taken apart of others' text: requests, addresses, samples. Nothing traps, whatever comes.

import Testing

@testable import StoreTools

@Suite struct MetricsTextTests {
    private func parse(_ text: String) -> HTTPExchange.Parsed {
        HTTPExchange.parse(Array(text.utf8))
    }

    @Test func requests() {
        #expect(parse("") == .incomplete)
        #expect(parse("GET /metrics HTTP/1.1\r\nHost: a\r\n") == .incomplete)
        #expect(
            parse("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
                == .asked(path: "/metrics", headOnly: false))
        #expect(parse("HEAD /a?b HTTP/1.0\n\n") == .asked(path: "/a", headOnly: true))
        #expect(parse("PUT / HTTP/1.1\r\n\r\n") == .refused(405))
        #expect(parse("GET  HTTP/1.1\r\n\r\n") == .refused(400))
        #expect(parse("GET http://a/ HTTP/1.1\r\n\r\n") == .refused(400))
        #expect(parse("GET / HTTP/3\r\n\r\n") == .refused(505))
        #expect(parse(String(repeating: "x", count: HTTPExchange.mostBytes)) == .refused(431))
        #expect(parse("G\u{0}T / HTTP/1.1\r\n\r\n") == .refused(400))
        var dice = Dice(state: 99)
        let alphabet = Array("GET /metrics HTTP/1.1\r\n: \u{0}ä".utf8)
        for _ in 0..<20_000 {
            let bytes = (0..<dice.next(80)).map { _ in alphabet[dice.next(alphabet.count)] }
            _ = HTTPExchange.parse(bytes + [0x0D, 0x0A, 0x0D, 0x0A])
        }
    }

    @Test func addresses() {
        #expect(ListenAddress("127.0.0.1:9100") == .internet(host: "127.0.0.1", port: 9100))
        #expect(ListenAddress("*:1") == .internet(host: "0.0.0.0", port: 1))
        #expect(ListenAddress("[::1]:80") == .internet6(host: "::1", port: 80))
        #expect(ListenAddress("unix:/run/a") == .unix(path: "/run/a"))
        let long = "unix:/" + String(repeating: "x", count: 200)
        for wrong in ["", ":", "a:1", "1.2.3.4", "1.2.3.4:-1", "::1:80", "[::1]", "unix:", long] {
            #expect(ListenAddress(wrong) == nil, "\(wrong)")
        }
    }

    @Test func samples() {
        let made = MetricSamples(
            """
            # HELP hearth_a A.
            hearth_a 12
            hearth_b{reason="x"} 3
            hearth_b{reason="y z"} 4
            hearth_c{quantile="0.99"} 7
            hearth_c_count 2
            hearth_d_info{device="0",state="a \\"b\\" \\\\ c\\nd"} 1
            hearth_e NaN
            hearth_f{ 1
            nonsense

            """)
        #expect(made["a"] == 12 && made.count("a") == 12 && made["none"] == 0)
        #expect(made.byLabel("b").map(\.label) == ["x", "y z"])
        #expect(made.byLabel("b").map(\.value) == [3, 4])
        #expect(made.quantile("c", "0.99") == 7 && made.quantile("c", "0.5") == 0)
        #expect(made.count("c_count") == 2)
        #expect(made.words("d_info").first?["state"] == "a \"b\" \\ c\nd")
        #expect(made.count("e") == 0)
        #expect(StatisticsReport.duration(999) == "999 ns")
        #expect(StatisticsReport.duration(1500) == "1.5 us")
        #expect(StatisticsReport.duration(2_500_000) == "2.5 ms")
        #expect(StatisticsReport.duration(3_250_000_000) == "3.25 s")
    }
}
