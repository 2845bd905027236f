// SessionReturns: what was learnt of when sessions come back. Waiting sessions are in classes, by
// what was said of them (a tool is at work, a person is, it is over) and by how many turns they
// have had. Of each class it holds the hazard of a return by age, as replacement does of blocks
// (ReturnModel), from how long sessions waited until they came back and how long the others have
// waited so far. Where the engine tells when a session is expected, it learns how often that held.
//
// Time is in units of about a millisecond. Invariants: no allocation after `init`; an event costs
// at most a step for each octave of the age; what is concluded belongs to many events.

import SegmentFormat
import Staging

package struct SessionReturns: ~Copyable {
    /// Octaves of turns that are told apart: 1, 2 and 3, 4 to 7, more.
    private static let turnClasses = 4
    private static let classes = SessionState.allCases.count * turnClasses
    /// Returns between two conclusions, and before the first one.
    private static let leastLesson = 32
    /// How much one told time that held, or did not, weighs.
    private static let trustRate: Float = 1.0 / 32
    private static let unitShift: UInt64 = 20

    /// Ages that are told apart.
    package static var bins: Int { ReturnModel.bins }

    private var model = ReturnModel(classes: SessionReturns.classes)
    private var events = 0
    private var isKnown = false
    /// How often sessions came back about when it was told that they would; until that was seen
    /// the engine is believed.
    package private(set) var trust: Float = 0.75
    /// Returns that were seen.
    package private(set) var returns: UInt64 = 0

    package init() {}

    package static var memoryBytes: Int { ReturnModel.bytes(classes: classes) }

    /// The class of a session that waits after so many turns.
    package static func kind(_ state: SessionState, turns: UInt32) -> UInt8 {
        let octave = min(31 - max(1, turns).leadingZeroBitCount, turnClasses - 1)
        return UInt8(Int(state.rawValue) * turnClasses + octave)
    }

    /// A session has waited from one age to another, nanoseconds, and had not come back then.
    package mutating func waited(_ kind: UInt8, from: UInt64, to: UInt64) {
        var (at, end) = (from >> Self.unitShift, to >> Self.unitShift)
        end = min(end, 1 << UInt64(ReturnModel.bins - 1))
        while at < end {
            // Ages of bin n end with 2^n - 1.
            let until = min(end, max(at + 1, UInt64(1) << UInt64(ReturnModel.bin(at))))
            model.waited(Int(kind), age: at, for: Float(until - at))
            at = until
        }
    }

    /// A session has come back at that age, nanoseconds; `waited` told of the time until then.
    package mutating func returned(_ kind: UInt8, age: UInt64) {
        returns += 1
        model.returned(Int(kind), age: age >> Self.unitShift)
        noted()
    }

    /// A session was given up without having come back: that is known of it, too.
    package mutating func gone() { noted() }

    /// Whether a session came back about when that was told.
    package mutating func heldTold(_ held: Bool) {
        trust += ((held ? 1 : 0) - trust) * Self.trustRate
    }

    private mutating func noted() {
        events += 1
        guard events >= Self.leastLesson else { return }
        events = 0
        isKnown = true
        model.learn()
    }

    // MARK: Over restarts

    /// What was seen of the classes that sessions were in.
    package var learnt: [LearntReturns.Class] { model.learnt }

    /// Takes over what was seen before, into what has seen nothing yet.
    package mutating func recall(
        _ classes: [LearntReturns.Class], returns: UInt64, trust: Float
    ) {
        guard self.returns == 0, events == 0, !classes.isEmpty else { return }
        for known in classes { model.recall(known, as: Int(known.number)) }
        self.returns = returns
        self.trust = trust
        isKnown = returns >= UInt64(Self.leastLesson)
        model.learn()
    }

    /// The chance that a session of the class that has waited for `age` comes back within `time`,
    /// nanoseconds; 0 while nothing is known.
    package func chance(_ kind: UInt8, age: UInt64, within time: UInt64) -> Float {
        guard isKnown else { return 0 }
        return model.chance(
            Int(kind), age: age >> Self.unitShift, within: max(1, time >> Self.unitShift))
    }
}
