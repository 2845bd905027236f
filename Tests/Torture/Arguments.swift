// Arguments: `--name value` pairs and flags, by hand. An unknown one is named, with exit code 2.

import Glibc

struct Arguments {
    let command: String
    private var values: [String: String] = [:]
    private var flags: Set<String> = []
    private let text: [String]

    init(_ arguments: [String], flags known: Set<String>) {
        text = arguments
        command = arguments.count > 1 ? arguments[1] : ""
        var index = 2
        while index < arguments.count {
            let name = arguments[index]
            guard name.hasPrefix("--") else { Self.refuse("unexpected '\(name)'") }
            if known.contains(name) {
                flags.insert(name)
            } else {
                index += 1
                guard index < arguments.count else { Self.refuse("\(name) needs a value") }
                values[name] = arguments[index]
            }
            index += 1
        }
    }

    func has(_ flag: String) -> Bool { flags.contains(flag) }

    func number(_ name: String, _ standard: Int) -> Int {
        guard let value = values[name] else { return standard }
        guard let number = Int(value) else { Self.refuse("\(name) takes a number, not '\(value)'") }
        return number
    }

    func string(_ name: String) -> String? { values[name] }

    func only(_ names: [String]) {
        for name in values.keys.sorted() where !names.contains(name) {
            Self.refuse("\(name) is not an option of \(command); there are \(names)")
        }
    }

    static func refuse(_ message: String) -> Never {
        report("hearth-torture: " + message)
        exit(2)
    }
}

/// A line on standard error, whole even with several threads.
func report(_ line: String) {
    let bytes = Array((line + "\n").utf8)
    bytes.withUnsafeBytes { _ = write(2, $0.baseAddress, $0.count) }
}

func say(_ line: String) {
    let bytes = Array((line + "\n").utf8)
    bytes.withUnsafeBytes { _ = write(1, $0.baseAddress, $0.count) }
}

/// Seconds since the program began, for the figures at the end.
func secondsNow() -> Double {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
}

func decimal(_ value: Double) -> String {
    let tenths = Int((value * 10).rounded())
    return "\(tenths / 10).\(abs(tenths % 10))"
}
