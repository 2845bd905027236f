// The seeded run of messages to the C interface: a store of its own, each message from its own
// seed. What a message does depends on those before it, so a failure is replayed from the first
// one.

import Glibc

enum InterfaceFuzz {
    static func run(_ messages: Int, _ seed: UInt64, _ arguments: Arguments) -> Int32 {
        let directory =
            (arguments.string("--directory") ?? "/tmp") + "/hearth-fuzz.\(getpid())"
        let command = "hearth-torture fuzz --mutations 0 --messages \(messages) --first \(seed)"
        CrashNote.set(0, "replay: \(command)")
        guard let interface = FuzzedInterface(directory: directory) else { return 1 }
        let began = secondsNow()
        var failure: String?
        var done = 0
        while done < messages, failure == nil {
            var choices = Choices(seed: seed &* 1_000_003 &+ UInt64(done))
            failure = interface.message(&choices)
            done += 1
        }
        let closed = interface.close()
        failure = failure ?? closed
        let seconds = secondsNow() - began
        say("messages to the C interface, by answer")
        for (name, count) in interface.counts.sorted(by: { $0.key < $1.key }) {
            say("  " + name + String(repeating: " ", count: max(1, 40 - name.count)) + "\(count)")
        }
        if let failure { report("message \(done): \(failure)\n  replay: \(command)") }
        say(
            "fuzz: \(done) messages in \(decimal(seconds)) s, "
                + "\(Int(Double(done) / max(seconds, 0.001))) a second, "
                + "\(failure == nil ? 0 : 1) failed")
        return failure == nil ? 0 : 1
    }
}
