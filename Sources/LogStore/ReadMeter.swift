// ReadMeter: what reading from one device takes, learnt from the reads themselves: a time that each
// read waits however small it is, and a time for each byte that stands before its end. Both contain
// the queue, the device and the check of the bytes, since a read is timed from where it is handed
// over to where its bytes have been found right.
//
// The time of a byte comes from stretches in which the device always had something to do: what went
// through, over how long that took. A read's own time would tell less, since of what it found in
// front of it nobody knows how much was through already. The rest of a read that was alone is what
// any read waits.
//
// Invariants: constant memory, no allocation; until a device was busy in a stretch, all the time of
// a read that was alone counts as its bytes', which claims least.

/// What reading from a device is expected to take, as of some moment.
package struct ReadCost: Sendable, Equatable {
    /// Nanoseconds that come to any read.
    package var latency: Double = 0
    /// Nanoseconds for each byte asked for before the end of a read, its own included.
    package var perByte: Double = 0
    /// How far off reads have lately been from what these two say, as a share of it: the mean
    /// excess and the mean deviation together; 0.25 stands for a quarter longer.
    package var risk: Double = 0
    /// Reads timed; below `ReadMeter.enough` the rest is not to be relied on.
    package var samples: UInt32 = 0
    /// Bytes asked for and not delivered yet.
    package var outstanding: UInt64 = 0
    /// Bytes asked for so far.
    package var begun: UInt64 = 0
    /// When the last timed read ended, monotonic nanoseconds.
    package var updated: UInt64 = 0

    package init() {}

    package var isMeasured: Bool { samples >= ReadMeter.enough }
}

package struct ReadMeter: Sendable {
    package static let enough: UInt32 = 8
    /// Reads after which an observation counts for a third.
    private static let memory = 64.0
    /// Smaller reads are timed only one in eight, once a few were: the clock would be a share of
    /// their cost.
    private static let alwaysTimed = 64 << 10

    /// What the meter said when a read began.
    package struct Mark: Sendable {
        package var completed: UInt64 = 0
        /// Bytes asked for before its end, its own included.
        package var ahead: UInt64 = 0
        package init() {}
    }

    private var completed: UInt64 = 0
    private var outstanding: UInt64 = 0
    private var counter: UInt8 = 0
    private var samples: UInt32 = 0
    // Of busy stretches, decayed: nanoseconds and bytes.
    private var busyTime = 0.0
    private var busyBytes = 0.0
    // The same of reads that were alone.
    private var aloneTime = 0.0
    private var aloneBytes = 0.0
    /// The end of the last timed read, and what had gone through by then.
    private var lastEnd: UInt64 = 0
    private var lastCompleted: UInt64 = 0
    // Decayed: what reads were expected to take, took, and were off by, weighted by what was
    // expected, since a claim is of many reads.
    private var expectedTime = 0.0
    private var takenTime = 0.0
    private var offTime = 0.0

    package init() {}

    /// A read of so many bytes is handed over. Whether it is worth asking for the time.
    @inline(__always)
    package mutating func began(_ bytes: Int) -> Bool {
        outstanding &+= UInt64(bytes)
        counter &+= 1
        return bytes >= Self.alwaysTimed || counter & 7 == 0 || samples < 4 * Self.enough
    }

    /// What had gone through before a read that has just begun, and what stands before its end.
    @inline(__always)
    package var mark: Mark {
        var made = Mark()
        made.completed = completed
        made.ahead = outstanding
        return made
    }

    @inline(__always)
    package mutating func ended(_ bytes: Int) {
        outstanding -= min(outstanding, UInt64(bytes))
        completed &+= UInt64(bytes)
    }

    /// A timed read of so many bytes has ended well, after `ended` was told of it.
    package mutating func timed(_ bytes: Int, start: UInt64, now: UInt64, mark: Mark) {
        guard now >= start else { return }
        let time = Double(now - start)
        if samples >= Self.enough {
            let cost = self.cost
            let expected = cost.latency + cost.perByte * Double(mark.ahead)
            let taken = min(time, 16 * expected)
            expectedTime += expected - expectedTime / 32
            takenTime += taken - takenTime / 32
            offTime += abs(taken - expected) - offTime / 32
        }
        // Begun before the last one ended: so there was something to do all the time since.
        if lastEnd > 0, start <= lastEnd, completed > lastCompleted {
            busyTime += Double(now - min(now, lastEnd)) - busyTime / Self.memory
            busyBytes += Double(completed &- lastCompleted) - busyBytes / Self.memory
        }
        if mark.ahead == UInt64(bytes), completed &- mark.completed == UInt64(bytes) {
            let share = aloneBytes == 0 ? 1 : 1 / 16.0
            aloneTime += share * (time - aloneTime)
            aloneBytes += share * (Double(bytes) - aloneBytes)
        }
        lastEnd = now
        lastCompleted = completed
        if samples < UInt32.max { samples += 1 }
    }

    /// What reads are expected to take from now on.
    package var cost: ReadCost {
        var made = ReadCost()
        made.samples = samples
        made.outstanding = outstanding
        made.begun = completed &+ outstanding
        made.updated = lastEnd
        if busyBytes > 0 {
            made.perByte = busyTime / busyBytes
            made.latency = max(0, aloneTime - made.perByte * aloneBytes)
        } else if aloneBytes > 0 {
            made.perByte = aloneTime / aloneBytes
        }
        made.risk = 0.25
        if expectedTime > 0 {
            let excess = max(0, takenTime / expectedTime - 1)
            made.risk = min(4, max(0.02, excess + offTime / expectedTime))
        }
        return made
    }
}
