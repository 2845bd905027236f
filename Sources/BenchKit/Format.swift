// Format: numbers as C and fio print them, without Foundation. Everything here is for reports, none
// of it for hot loops.

import Glibc

/// printf into a String.
package func formatted(_ format: String, _ arguments: any CVarArg...) -> String {
    withVaList(arguments) { list in
        var buffer = [CChar](repeating: 0, count: 512)
        let count = vsnprintf(&buffer, buffer.count, format, list)
        let bytes = buffer.prefix(max(0, min(Int(count), buffer.count - 1)))
        return String(decoding: bytes.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}

/// fio's `num2str`: at most `digits` figures, then the power's letter and the unit.
package func figure(
    _ value: UInt64, digits: Int = 4, base: UInt64 = 1, binary: Bool, unit: String = ""
) -> String {
    let step: UInt64 = binary ? 1024 : 1000
    let prefixes =
        binary ? ["", "Ki", "Mi", "Gi", "Ti", "Pi"] : ["", "k", "M", "G", "T", "P"]
    var number = value.multipliedReportingOverflow(by: base).partialValue
    var index = 0
    var rest: UInt64?
    while index < prefixes.count - 1, String(number).count > digits {
        rest = number % step
        number /= step
        index += 1
    }
    guard let rest else { return "\(number)\(prefixes[index])\(unit)" }
    let room = digits - String(number).count
    if room <= 1 {
        if rest >= step / 2 { number += 1 }
        return "\(number)\(prefixes[index])\(unit)"
    }
    let fraction = formatted("%.\(room - 1)f", Double(rest) / Double(step))
    // A fraction that rounds up to 1 keeps the digits after the point, as fio does.
    return "\(number).\(fraction.dropFirst(2))\(prefixes[index])\(unit)"
}

/// The text of an errno.
package func errorText(_ code: Int32) -> String {
    String(cString: strerror(code))
}

/// Seconds as `1h02m03s`, `02m03s`.
package func clockText(_ seconds: UInt64) -> String {
    let hours = seconds / 3600
    let tail = formatted("%02lldm:%02llds", Int64(seconds % 3600 / 60), Int64(seconds % 60))
    return hours > 0 ? formatted("%02lldh:", Int64(hours)) + tail : tail
}

/// `ctime` without its newline.
package func calendarText(_ unixSeconds: Int) -> String {
    var time = time_t(unixSeconds)
    var parts = tm()
    guard localtime_r(&time, &parts) != nil else { return "" }
    var buffer = [CChar](repeating: 0, count: 64)
    guard asctime_r(&parts, &buffer) != nil else { return "" }
    let bytes = buffer.prefix { $0 != 0 && $0 != 10 }
    return String(decoding: bytes.map { UInt8(bitPattern: $0) }, as: UTF8.self)
}

/// Nanoseconds of the monotonic clock.
@inline(__always)
package func monotonicNanoseconds() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec)
}

/// Milliseconds since 1970.
package func wallMilliseconds() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
    return UInt64(time.tv_sec) * 1000 + UInt64(time.tv_nsec) / 1_000_000
}

/// Writes all of it; false when the descriptor refuses.
@discardableResult
package func writeAll(_ descriptor: Int32, _ text: String) -> Bool {
    var bytes = Array(text.utf8)[...]
    while !bytes.isEmpty {
        let count = bytes.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
        if count < 0 {
            if errno == EINTR { continue }
            return false
        }
        bytes = bytes.dropFirst(count)
    }
    return true
}
