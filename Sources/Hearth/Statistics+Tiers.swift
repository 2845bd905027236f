// Statistics of the tiers: for each what it has room for and holds, what it served, and what went
// up into it and down from it.

import LogStore
import Staging
import Tiering

extension Statistics {
    /// The tiers: the engine's own memory as far as it reports it, the DRAM tier, and the devices.
    public struct Tiers: Sendable, Equatable {
        /// What is told of each.
        public struct Tier: Sendable, Equatable {
            /// Bytes that it has room for.
            public var capacity: UInt64 = 0
            /// Bytes that it holds.
            public var used: UInt64 = 0
            /// Blocks that it holds.
            public var held: UInt64 = 0
            /// Uses that it served.
            public var hits: UInt64 = 0
            /// Blocks that came up into it ahead of being asked for.
            public var promotions: UInt64 = 0
            /// Their value bytes.
            public var promotedBytes: UInt64 = 0
            /// Blocks that made room in it.
            public var demotions: UInt64 = 0
            /// Bytes a second at which blocks were seen to come from it, or, of the engine's, into
            /// it; 0 while that is not known.
            public var bytesPerSecond: Double = 0
        }

        /// What the engine reported and what came of copies into its memory.
        public struct Engine: Sendable, Equatable {
            /// Blocks that it took in.
            public var admitted: UInt64 = 0
            /// Those that it held already.
            public var admittedAgain: UInt64 = 0
            /// Blocks that are no longer known to be there, for want of room in the table.
            public var forgotten: UInt64 = 0
            /// Times that it took in more than it has room for.
            public var overCapacity: UInt64 = 0
            /// Blocks that it let go of which it was not known that it held them.
            public var evictedUnknown: UInt64 = 0
            /// Blocks that it let go and that no lower tier has.
            public var evictedUnstored: UInt64 = 0
            /// Copies that it refused.
            public var refusedCopies: UInt64 = 0
            /// Copies that failed.
            public var failedCopies: UInt64 = 0
            /// Ends of copies that were not under way.
            public var strayEnds: UInt64 = 0
            /// Announced blocks that were gone, or there, when their turn came.
            public var staleCandidates: UInt64 = 0
            /// Announced blocks that the bounded queue had no room for.
            public var overflowed: UInt64 = 0
            /// Times that copying stopped at the high watermark.
            public var full: UInt64 = 0
            /// Copies under way.
            public var copying = 0
        }

        /// The engine's memory.
        public var engine = Tier()
        /// The DRAM tier.
        public var staging = Tier()
        /// The devices.
        public var device = Tier()
        /// What the engine reported.
        public var reports = Engine()
    }
}

extension Owner {
    func tiers(_ statistics: Statistics) -> Statistics.Tiers {
        var made = Statistics.Tiers()
        if let told = tiered.tiers?.statistics { made.note(told) }
        if let arena = store.arena {
            made.staging = Statistics.Tiers.Tier(
                capacity: UInt64(arena.bytes),
                used: UInt64(arena.cleanBytes + arena.dirtyBytes),
                held: UInt64(arena.residentCount), hits: statistics.gets.hitsStaging,
                promotions: store.statistics.prefetchReads,
                promotedBytes: statistics.prefetch.issuedBytes, demotions: arena.evictions)
        }
        made.device = Statistics.Tiers.Tier(
            capacity: statistics.space.capacity, used: statistics.space.live,
            held: statistics.space.blocks, hits: statistics.gets.hitsDevice,
            demotions: statistics.reclaim.evictedBlocks)
        made.device.bytesPerSecond = store.log.meters.reduce(0) { sum, meter in
            let cost = meter.cost
            return cost.isMeasured && cost.perByte > 0 ? sum + 1e9 / cost.perByte : sum
        }
        return made
    }
}

extension Statistics.Tiers {
    mutating func note(_ told: EngineTierStatistics) {
        engine = Tier(
            capacity: told.capacity, used: told.bytes, held: UInt64(told.blocks), hits: told.hits,
            promotions: told.promoted, promotedBytes: told.promotedBytes, demotions: told.evicted,
            bytesPerSecond: told.bytesPerSecond)
        reports = Engine(
            admitted: told.admitted, admittedAgain: told.admittedAgain, forgotten: told.forgotten,
            overCapacity: told.overCapacity, evictedUnknown: told.evictedUnknown,
            evictedUnstored: told.evictedUnstored, refusedCopies: told.refusedCopies,
            failedCopies: told.failedCopies, strayEnds: told.strayEnds,
            staleCandidates: told.stale, overflowed: told.overflowed, full: told.full,
            copying: told.copying)
    }

    func write(_ text: inout some StatisticsText) {
        text.object {
            $0.field("engine") { engine.write(&$0) }
            $0.field("staging") { staging.write(&$0) }
            $0.field("device") { device.write(&$0) }
            $0.field("reports") { reports.write(&$0) }
        }
    }
}

extension Statistics.Tiers.Tier {
    func write(_ text: inout some StatisticsText) {
        text.object {
            $0.number("capacity", capacity)
            $0.number("used", used)
            $0.number("held", held)
            $0.number("hits", hits)
            $0.number("promotions", promotions)
            $0.number("promotedBytes", promotedBytes)
            $0.number("demotions", demotions)
            $0.number("bytesPerSecond", bytesPerSecond)
        }
    }
}

extension Statistics.Tiers.Engine {
    func write(_ text: inout some StatisticsText) {
        text.object {
            $0.number("admitted", admitted)
            $0.number("admittedAgain", admittedAgain)
            $0.number("forgotten", forgotten)
            $0.number("overCapacity", overCapacity)
            $0.number("evictedUnknown", evictedUnknown)
            $0.number("evictedUnstored", evictedUnstored)
            $0.number("refusedCopies", refusedCopies)
            $0.number("failedCopies", failedCopies)
            $0.number("strayEnds", strayEnds)
            $0.number("staleCandidates", staleCandidates)
            $0.number("overflowed", overflowed)
            $0.number("full", full)
            $0.number("copying", copying)
        }
    }
}
