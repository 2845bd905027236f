// CrashNote: what each thread is doing, kept so that a trap in the core still tells the seed and
// the command that replays it. The handler only writes bytes that were made before.

import Glibc

enum CrashNote {
    private static let threads = 8
    private static let bytes = 512

    /// For each thread: its id, the length of its note, the note.
    private struct Entry {
        var thread: pthread_t = 0
        var used = false
        var length = 0
    }

    // Written by the thread that owns the entry before it starts a seed, read by a signal handler
    // on the same thread: no two threads touch the same entry.
    nonisolated(unsafe) private static let entries: UnsafeMutablePointer<Entry> = {
        let made = UnsafeMutablePointer<Entry>.allocate(capacity: threads)
        made.initialize(repeating: Entry(), count: threads)
        return made
    }()
    nonisolated(unsafe) private static let notes: UnsafeMutablePointer<UInt8> = {
        let made = UnsafeMutablePointer<UInt8>.allocate(capacity: threads * bytes)
        made.initialize(repeating: 0, count: threads * bytes)
        return made
    }()

    static func install() {
        _ = entries.pointee.used
        _ = notes.pointee
        useOwnStack()
        for number in [SIGILL, SIGTRAP, SIGSEGV, SIGBUS, SIGABRT] {
            var action = sigaction()
            action.__sigaction_handler.sa_handler = { received in
                CrashNote.tell()
                signal(received, SIG_DFL)
                raise(received)
            }
            action.sa_flags = SA_ONSTACK
            sigaction(number, &action, nil)
        }
    }

    /// A stack of its own for this thread's handler, so that an overflow is told too. Never freed:
    /// threads are few and live as long as the run.
    static func useOwnStack() {
        var stack = stack_t()
        stack.ss_size = 64 << 10
        stack.ss_sp = UnsafeMutableRawPointer.allocate(byteCount: stack.ss_size, alignment: 4096)
        sigaltstack(&stack, nil)
    }

    static func set(_ worker: Int, _ text: String) {
        guard worker < threads else { return }
        let line = Array(("trapped: " + text + "\n").utf8.prefix(bytes))
        for index in line.indices { notes[worker * bytes + index] = line[index] }
        entries[worker].thread = pthread_self()
        entries[worker].length = line.count
        entries[worker].used = true
    }

    private static func tell() {
        for index in 0..<threads
        where entries[index].used && entries[index].thread == pthread_self() {
            _ = write(2, notes + index * bytes, entries[index].length)
        }
    }
}
