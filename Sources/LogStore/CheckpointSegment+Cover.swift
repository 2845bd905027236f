// What a dump's row of a segment says about replaying it. Recovery and the tools ask the same.
//
// A dump has no tombstones: of a key that was deleted it has nothing. That is enough for segments
// whose lives it saw. One that was away when it was made, or could not be read, or whose next
// header had not landed yet, may come back with blocks that were deleted meanwhile, and then the
// tombstones count, in segments that need no replay otherwise.

import SegmentFormat

extension CheckpointSegment {
    /// Whether a life in which the segment is found is one that the dump saw, or has begun since.
    package func knows(life generation: UInt64) -> Bool {
        if self.generation == generation { return true }
        // There was no file yet.
        if state == SegmentState.uncreated.rawValue { return true }
        return self.generation != 0 && self.generation < generation
    }

    /// Whether the dump speaks for the whole segment. `whole`: it knows the lives of all others,
    /// too; without that, segments of records are replayed.
    package func isCovered(whole: Bool) -> Bool {
        guard state == SegmentState.sealed.rawValue else { return false }
        return whole || minValueVersion != UInt64.max
    }
}
