// UringRing: owns one io_uring, its eventfd for waking, and the choice of setup flags.
//
// The ring is made on the thread that uses it and used by that thread only (SINGLE_ISSUER). Never
// used: SQPOLL (burns a core), IOPOLL (not every device), NO_SQARRAY (older liburing returns
// garbage). `struct io_uring` lives at a stable address for its whole life.

import CLiburing
import CPlatform
import Glibc

/// The ladder of setup flags, best first.
package enum RingSetup: Int, Sendable, CaseIterable {
    case deferTaskrun
    case coopTaskrun
    case plain

    var flags: UInt32 {
        let submitAll: UInt32 = 1 << 7
        let coopTaskrun: UInt32 = 1 << 8
        let taskrunFlag: UInt32 = 1 << 9
        let singleIssuer: UInt32 = 1 << 12
        let deferTaskrun: UInt32 = 1 << 13
        switch self {
        case .deferTaskrun: return submitAll | taskrunFlag | singleIssuer | deferTaskrun
        case .coopTaskrun: return submitAll | taskrunFlag | coopTaskrun
        case .plain: return 0
        }
    }

    var words: String {
        switch self {
        case .deferTaskrun: "SINGLE_ISSUER|DEFER_TASKRUN"
        case .coopTaskrun: "COOP_TASKRUN"
        case .plain: "no setup flags"
        }
    }
}

/// How a `UringDriver` is made. The defaults are right for everything but tests and measurements.
package struct UringOptions: Sendable {
    /// The first rung of the ladder to try.
    package var setup: RingSetup = .deferTaskrun
    package var registerFiles = true
    package var registerBuffers = true
    /// The largest single transfer, bytes; a multiple of 4096.
    package var transferBytes = 1 << 20
    /// For tests: each kernel transfer moves at most this much, so that it comes back short.
    package var shortTransferBytes = Int.max
    /// For tests: registering any region fails as it does when memlock is short.
    package var refuseBuffers = false
    package init() {}
}

struct UringRing: ~Copyable {
    let pointer: UnsafeMutablePointer<io_uring>
    let setup: RingSetup
    let ringRegistered: Bool

    init(entries: Int, from first: RingSetup) throws(IOError) {
        pointer = .allocate(capacity: 1)
        pointer.initialize(to: io_uring())
        var failure: Int32 = 0
        for setup in RingSetup.allCases where setup.rawValue >= first.rawValue {
            var parameters = io_uring_params()
            parameters.flags = setup.flags | (1 << 4)  // CLAMP
            failure = -io_uring_queue_init_params(UInt32(entries), pointer, &parameters)
            if failure != 0 { continue }
            // Without EXT_ARG (5.11) a timed wait needs requests of its own; without NODROP
            // completions can be lost. Such kernels get the thread driver.
            let needed: UInt32 = (1 << 8) | (1 << 1)
            if parameters.features & needed != needed {
                io_uring_queue_exit(pointer)
                failure = ENOSYS
                continue
            }
            self.setup = setup
            ringRegistered = io_uring_register_ring_fd(pointer) == 1
            return
        }
        pointer.deallocate()
        throw IOError(operation: "io_uring_setup", path: "", errno: failure)
    }

    deinit {
        io_uring_queue_exit(pointer)
        pointer.deallocate()
    }
}
