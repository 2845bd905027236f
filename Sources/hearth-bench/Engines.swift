// Engines: which target stands behind `--ioengine`, and the store behind a replay.

import BenchKit

func makeTarget(_ options: JobOptions) throws(BenchError) -> any BenchTarget {
    switch options.engine {
    case .ioUring, .psync: RawTarget()
    case .kv: KvTarget(options)
    }
}

func openReplayStore(_ plan: ReplayStorePlan) throws(BenchError) -> any ReplayStore {
    try HearthReplayStore(plan)
}
