// ProcessName: how this process calls itself in a store's lock.

import Glibc

enum ProcessName {
    /// "pid 1234 (name)".
    static var current: String {
        "pid \(getpid()) (" + (CommandLine.arguments.first?.split(separator: "/").last ?? "?") + ")"
    }
}
