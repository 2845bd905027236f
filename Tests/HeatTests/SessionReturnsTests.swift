// What is learnt of when sessions come back, against made sessions whose returns are known.

import Staging
import Testing

@testable import Heat

@Suite struct SessionReturnsTests {
    private static let second: UInt64 = 1_000_000_000

    /// Sessions of a class that come back after a time, or never and are given up after `patience`.
    private func teach(
        _ returns: inout SessionReturns, _ kind: UInt8, _ ages: [UInt64?], patience: UInt64
    ) {
        for age in ages {
            returns.waited(kind, from: 0, to: age ?? patience)
            if let age { returns.returned(kind, age: age) } else { returns.gone() }
        }
    }

    @Test func nothingIsExpectedBeforeSomethingWasSeen() {
        var returns = SessionReturns()
        let kind = SessionReturns.kind(.toolPending, turns: 3)
        #expect(returns.chance(kind, age: 0, within: 60 * Self.second) == 0)
        teach(&returns, kind, [Self.second, 2 * Self.second], patience: 1)
        #expect(returns.chance(kind, age: 0, within: 60 * Self.second) == 0)
    }

    @Test func toolsComeBackWithinAMinuteAndPeopleDoNot() {
        var returns = SessionReturns()
        let tool = SessionReturns.kind(.toolPending, turns: 5)
        let person = SessionReturns.kind(.idle, turns: 1)
        let over = SessionReturns.kind(.oneShot, turns: 1)
        for round in 0..<400 {
            let seconds = UInt64(5 + round % 40)
            teach(&returns, tool, [seconds * Self.second], patience: 0)
            // One in five comes back at all, after some minutes.
            let back = round % 5 == 0 ? (200 + seconds) * Self.second : nil
            teach(&returns, person, [back], patience: 3000 * Self.second)
            teach(&returns, over, [nil], patience: 3000 * Self.second)
        }
        let minute = 60 * Self.second
        #expect(returns.chance(tool, age: 0, within: minute) > 0.75)
        #expect(returns.chance(person, age: 0, within: minute) < 0.1)
        #expect(returns.chance(person, age: 0, within: 300 * Self.second) > 0.1)
        #expect(returns.chance(over, age: 0, within: 300 * Self.second) < 0.15)
        // Of those who have waited for long, hardly one returns in the next minute.
        #expect(returns.chance(person, age: 2000 * Self.second, within: minute) < 0.02)
    }

    @Test func turnsAreToldApart() {
        #expect(
            SessionReturns.kind(.idle, turns: 1) != SessionReturns.kind(.idle, turns: 2))
        #expect(SessionReturns.kind(.idle, turns: 2) == SessionReturns.kind(.idle, turns: 3))
        #expect(
            SessionReturns.kind(.idle, turns: 8) == SessionReturns.kind(.idle, turns: .max))
        var returns = SessionReturns()
        let (first, later) = (
            SessionReturns.kind(.idle, turns: 1), SessionReturns.kind(.idle, turns: 9)
        )
        for round in 0..<300 {
            let back = round % 10 == 0 ? 10 * Self.second : nil
            teach(&returns, first, [back], patience: 1000 * Self.second)
            teach(&returns, later, [10 * Self.second], patience: 0)
        }
        #expect(returns.chance(first, age: 0, within: 30 * Self.second) < 0.25)
        #expect(returns.chance(later, age: 0, within: 30 * Self.second) > 0.75)
    }

    @Test func absurdTimesCostNothing() {
        var returns = SessionReturns()
        for _ in 0..<100 {
            returns.waited(3, from: 0, to: .max)
            returns.returned(3, age: .max)
            returns.waited(3, from: .max, to: 0)
        }
        let chance = returns.chance(3, age: .max, within: .max)
        #expect(chance >= 0 && chance <= 1)
    }

    @Test func whatIsToldIsTrustedAsFarAsItHolds() {
        var returns = SessionReturns()
        for _ in 0..<200 { returns.heldTold(false) }
        #expect(returns.trust < 0.05)
        for _ in 0..<200 { returns.heldTold(true) }
        #expect(returns.trust > 0.95)
    }
}
