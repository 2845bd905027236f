// Engines: which target stands behind `--ioengine`.

import BenchKit

func makeTarget(_ options: JobOptions) throws(BenchError) -> any BenchTarget {
    switch options.engine {
    case .ioUring, .psync: return RawTarget()
    case .kv: throw BenchError("the store is not linked into this build; use --ioengine=io_uring")
    }
}

func openReplayStore(_ plan: ReplayStorePlan) throws(BenchError) -> any ReplayStore {
    throw BenchError("the store is not linked into this build")
}
