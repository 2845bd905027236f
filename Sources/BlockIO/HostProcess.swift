// HostProcess: what the machine tells of processes: whether one still lives, and whether somebody
// holds the lock of a store's directory. For tools that look at a store which is another's.

import CPlatform
import Glibc

package enum HostProcess {
    /// When a process began, in clock ticks since the machine was started; nil when there is no
    /// such process any more. Number and start together name one process for good.
    package static func startTicks(_ process: Int32) -> UInt64? {
        // What it is called stands in parentheses and may hold any character, so the last one
        // counts. Behind it the state is field 3, the start field 22.
        guard let text = line("/proc/\(process)/stat"), let end = text.lastIndex(of: ")") else {
            return nil
        }
        let fields = text[text.index(after: end)...].split(separator: " ")
        // A zombie has its number still, and nothing else.
        guard fields.count > 19, fields[0] != "Z", fields[0] != "X" else { return nil }
        return UInt64(fields[19])
    }

    /// Whether somebody holds the lock of this `LOCK` file, which is not taken. False, too, where
    /// that cannot be told: no such file, no leave to open it, a file system without such locks.
    package static func isLocked(_ path: String) -> Bool {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)
        guard descriptor >= 0 else { return false }
        defer { _ = close(descriptor) }
        return hearth_lock_held(descriptor) == 1
    }

    private static func line(_ path: String) -> String? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { _ = close(descriptor) }
        let text = String(unsafeUninitializedCapacity: 1024) { buffer in
            max(0, read(descriptor, buffer.baseAddress, buffer.count))
        }
        return text.isEmpty ? nil : text
    }
}
