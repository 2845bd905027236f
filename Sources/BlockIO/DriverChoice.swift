// DriverChoice: which driver a store runs on. The choice is made at open, can be forced, and what
// came of it stands in `statistics.grants`, never silent.

import Glibc

package enum DriverChoice: String, Sendable, CaseIterable {
    /// io_uring where the kernel lets us, else threads.
    case automatic
    case ioUring
    case threads
}

/// Makes a driver; on the thread that will use it.
package func makeDriver(
    _ choice: DriverChoice, regions: RegionTable, depth: Int
) throws(IOError) -> any BlockDriver {
    switch choice {
    case .ioUring:
        return try UringDriver(regions: regions, depth: depth)
    case .threads:
        return try ThreadDriver(regions: regions, depth: depth, reason: "asked for")
    case .automatic:
        do throws(IOError) {
            return try UringDriver(regions: regions, depth: depth)
        } catch {
            return try ThreadDriver(
                regions: regions, depth: depth, reason: "io_uring: \(describe(error))")
        }
    }
}

private func describe(_ error: IOError) -> String {
    switch error.errno {
    case ENOSYS: "the kernel lacks it or is too old (5.11 needed)"
    case EPERM, EACCES: "forbidden here (seccomp or kernel.io_uring_disabled)"
    case ENOMEM: "locked-memory limit too small"
    default: error.description
    }
}
