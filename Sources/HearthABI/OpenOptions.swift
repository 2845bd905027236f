// OpenOptions: an endpoint and "name=value" strings made into a configuration. What is not right is
// refused with the name of the option and what it takes.

import CHearth
import Hearth

struct OpenOptions {
    private(set) var configuration: Configuration
    private var valueBytes: UInt64?
    private var seen: Set<String> = []

    /// "dir:/path" or "dir:/a,/b".
    init(endpoint: String) throws(Failure) {
        if endpoint.hasPrefix("unix:") {
            throw Failure(
                HEARTH_E_UNSUPPORTED,
                "\(endpoint): this library opens stores in the process only: use dir:/path.")
        }
        guard endpoint.hasPrefix("dir:") else {
            throw .argument("endpoint '\(endpoint)': give dir:/path, or dir:/a,/b for two devices.")
        }
        let paths = endpoint.dropFirst(4).split(separator: ",", omittingEmptySubsequences: false)
        configuration = Configuration(directories: paths.map(String.init), capacityBytes: 0)
    }

    mutating func take(_ option: String) throws(Failure) {
        let parts = option.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        let name = String(parts[0])
        guard parts.count == 2 else {
            throw .argument("option '\(option)': give name=value.")
        }
        guard seen.insert(name).inserted else {
            throw .argument("option '\(name)' is there twice: give it once.")
        }
        try set(name, String(parts[1]))
    }

    private mutating func set(_ name: String, _ value: String) throws(Failure) {
        switch name {
        case "capacity": configuration.capacityBytes = try Self.size(name, value)
        case "value_bytes": valueBytes = try Self.size(name, value)
        case "mode": configuration.mode = try Self.choice(name, value)
        case "open": configuration.openMode = try Self.choice(name, value)
        case "max_block": configuration.maximumBlockBytes = try Self.bytes(name, value)
        case "segment": configuration.minimumSegmentBytes = try Self.bytes(name, value)
        case "memory": configuration.memoryLimitBytes = try Self.bytes(name, value)
        case "staging": configuration.stagingBytes = try Self.bytes(name, value)
        case "slab": configuration.slabBytes = try Self.bytes(name, value)
        case "staging_mode": configuration.stagingMode = try Self.choice(name, value)
        case "index_entries": configuration.indexEntries = try Self.bytes(name, value)
        case "expected_block": configuration.expectedBlockBytes = try Self.bytes(name, value)
        case "table_cache": configuration.tableCacheBytes = try Self.bytes(name, value)
        case "prefetch": configuration.prefetch = try Self.choice(name, value)
        case "engine_memory": configuration.engineMemoryBytes = try Self.size(name, value)
        case "engine_high": configuration.engineHighWatermark = try Self.number(name, value)
        case "engine_low": configuration.engineLowWatermark = try Self.number(name, value)
        case "overload": configuration.overload = try Self.choice(name, value)
        case "write_on": configuration.writeMoment = try Self.choice(name, value)
        case "write_budget": configuration.writeBudgetBytesPerDay = try Self.size(name, value)
        case "driver":
            configuration.driver = value == "auto" ? .automatic : try Self.choice(name, value)
        case "queue_depth": configuration.queueDepth = try Self.bytes(name, value)
        case "operations": configuration.operationsInFlight = try Self.bytes(name, value)
        case "group": configuration.groupBytes = try Self.bytes(name, value)
        case "group_buffers": configuration.groupBuffers = try Self.bytes(name, value)
        case "clean_segments": configuration.cleanSegments = try Self.bytes(name, value)
        case "scrub": configuration.scrubBytesPerSecond = try Self.bytes(name, value)
        case "discard": configuration.discardBytesPerSecond = try Self.bytes(name, value)
        case "write_amplification": configuration.writeAmplification = try Self.number(name, value)
        case "heat_half_life": configuration.heatHalfLife = try Self.number(name, value)
        case "statistics_period":
            configuration.statisticsPeriodSeconds = try Self.number(name, value)
        case "allow_absent":
            guard value == "0" || value == "1" else {
                throw .argument("option \(name)=\(value): give 0 or 1.")
            }
            configuration.allowAbsentMembers = value == "1"
        case "holder": configuration.holder = value
        case "record": configuration.recordFile = value
        case "record_limit": configuration.recordLimitBytes = try Self.size(name, value)
        default:
            throw .argument(
                "there is no option '\(name)': hearth_open in hearth.h names those there are.")
        }
    }

    /// The configuration, with the capacity that `value_bytes` needs.
    func finished() throws(Failure) -> Configuration {
        var made = configuration
        switch (seen.contains("capacity"), valueBytes) {
        case (true, nil): return made
        case (true, .some):
            throw .argument("capacity and value_bytes are two ways to say one thing: give one.")
        case (false, nil):
            throw .argument("capacity or value_bytes is needed, such as capacity=100GiB.")
        case (false, .some(let bytes)):
            guard bytes > 0, bytes <= 1 << 55 else {
                throw .argument("option value_bytes=\(bytes): give 1 to 2^55.")
            }
            // The sum below takes these as they are.
            let checked = made
            try attempt { () throws(HearthError) in try checked.checkRanges() }
            if let entries = made.indexEntries, !(1024...(1 << 33)).contains(entries) {
                throw .argument("option index_entries=\(entries): give 1024 to 2^33.")
            }
            made.capacityBytes = made.capacity(
                forValueBytes: bytes, blockBytes: made.expectedBlockBytes)
            return made
        }
    }

    // MARK: Values

    private static func choice<Choice: RawRepresentable & CaseIterable>(
        _ name: String, _ value: String
    ) throws(Failure) -> Choice where Choice.RawValue == String {
        guard let choice = Choice(rawValue: value), value != "automatic" else {
            let names = Choice.allCases.map(\.rawValue)
                .map { $0 == "automatic" ? "auto" : $0 }
            throw .argument("option \(name)=\(value): give \(names.joined(separator: " or ")).")
        }
        return choice
    }

    /// A decimal number, such as 1.15.
    private static func number(_ name: String, _ value: String) throws(Failure) -> Double {
        guard let number = Double(value), number.isFinite else {
            throw .argument("option \(name)=\(value): give a number, such as 1.15.")
        }
        return number
    }

    private static func bytes(_ name: String, _ value: String) throws(Failure) -> Int {
        Int(clamping: try size(name, value))
    }

    /// Decimal digits, then nothing or K, M, G, T, P, with or without "iB": powers of 1024.
    static func size(_ name: String, _ value: String) throws(Failure) -> UInt64 {
        let digits = value.prefix { $0.isASCII && $0.isNumber }
        var unit = value.dropFirst(digits.count).lowercased()
        if unit.hasSuffix("ib"), unit.count == 3 { unit.removeLast(2) }
        let shifts = ["": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50]
        guard let number = UInt64(digits), let shift = shifts[unit] else {
            throw .argument("option \(name)=\(value): give a number, such as 4096, 64K or 10GiB.")
        }
        guard number <= UInt64.max >> UInt64(shift) else {
            throw .argument("option \(name)=\(value): that does not fit 64 bits.")
        }
        return number << UInt64(shift)
    }
}
