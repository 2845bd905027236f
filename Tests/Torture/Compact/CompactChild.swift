// CompactChild: one compaction of a closed store, in a process of its own, to be killed.

import BlockIO
import Glibc
import LogStore
import StoreTools

enum CompactChild {
    /// Runs the child's command line; returns its exit code.
    static func run(_ arguments: Arguments) -> Int32 {
        guard let directory = arguments.string("--directory") else {
            Arguments.refuse("compact-child needs --directory")
        }
        do {
            let driver = try makeDriver(.automatic, regions: RegionTable(), depth: 64)
            defer { driver.shutdown() }
            _ = try Compactor.run(
                [directory], driver: driver, clock: SystemClock(), options: options(arguments))
            return 0
        } catch {
            report("compact-child: \(error)")
            return 3
        }
    }

    private static func options(_ arguments: Arguments) -> CompactOptions {
        let seed = UInt64(arguments.number("--seed", 1))
        var options = CompactOptions(entropy: (seed, 7, 8, 9))
        options.holder = "torture \(getpid())"
        // Small windows: more of the moments between one step and the next.
        options.bytesInFlight = arguments.number("--window", 2 << 20)
        return options
    }

    /// What the store is like, read without opening it: the next run finds just what was left.
    static func shape(_ directory: String) throws -> StoreShape {
        let driver = try makeDriver(.automatic, regions: RegionTable(), depth: 64)
        defer { driver.shutdown() }
        return try Compactor.shape(
            of: [directory], driver: driver, clock: SystemClock(),
            options: CompactOptions(entropy: (1, 7, 8, 9)))
    }

    /// What `hearth verify` finds.
    static func damage(_ directory: String) throws -> [String] {
        let driver = try makeDriver(.automatic, regions: RegionTable(), depth: 64)
        defer { driver.shutdown() }
        let closed = try ClosedStore.open(
            [directory], driver: driver, clock: SystemClock(), holder: "torture \(getpid())")
        defer { closed.close() }
        return try Verifier.run(closed).damage.map(\.line)
    }
}
