// RecordFile: the file of a recorder: one line of JSON a request, in the form that
// `hearth-bench replay --trace` reads, up to a bound in bytes. A file that is there is left alone:
// the new one gets a number behind its name. The recorder's thread only.

import Glibc

struct RecordFile: ~Copyable {
    /// Other names that are tried.
    private static let mostNumbers = 1000
    /// Bytes that are written at once.
    private static let chunk = 1 << 16

    let path: String
    private var descriptor: Int32
    private let limit: UInt64
    private var buffer: [UInt8] = []
    private(set) var bytes: UInt64 = 0
    private(set) var requests: UInt64 = 0
    private(set) var keysDropped: UInt64 = 0
    private(set) var errors: UInt64 = 0
    /// The time of the last line.
    private var latest: UInt64 = 0

    init(_ wanted: String, limitBytes: UInt64) throws(HearthError) {
        limit = limitBytes
        var name = wanted
        var number = 0
        while true {
            descriptor = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0o600)
            if descriptor >= 0 { break }
            number += 1
            guard errno == EEXIST, number < Self.mostNumbers else {
                throw HearthError(
                    errno == EEXIST ? .configuration : .permission, operation: "open",
                    subject: "recordFile \(wanted)", errno: errno,
                    advice: "The file cannot be made: give a path in a folder that can be written "
                        + "to, or none.")
            }
            name = "\(wanted).\(number)"
        }
        path = name
        buffer.reserveCapacity(2 * Self.chunk)
    }

    deinit { if descriptor >= 0 { _ = Glibc.close(descriptor) } }

    /// Adds a request; without room for it, it is dropped.
    mutating func append(_ request: RecordedRequest) {
        let line = Self.line(request, time: max(latest, request.time))
        guard descriptor >= 0, bytes + UInt64(buffer.count + line.utf8.count) <= limit else {
            keysDropped += UInt64(request.blocks.count)
            return
        }
        latest = max(latest, request.time)
        buffer.append(contentsOf: line.utf8)
        requests += 1
        if buffer.count >= Self.chunk { flush() }
    }

    /// Writes what was added.
    mutating func flush() {
        var done = 0
        while done < buffer.count, descriptor >= 0 {
            let count = buffer.withUnsafeBytes {
                Glibc.write(descriptor, $0.baseAddress.map { $0 + done }, $0.count - done)
            }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else {
                // No line must stand there in part.
                errors += 1
                _ = ftruncate(descriptor, off_t(bytes))
                close()
                break
            }
            done += count
        }
        if descriptor >= 0 { bytes += UInt64(done) }
        buffer.removeAll(keepingCapacity: true)
    }

    mutating func close() {
        if descriptor >= 0 { _ = Glibc.close(descriptor) }
        descriptor = -1
    }

    static func line(_ request: RecordedRequest, time: UInt64) -> String {
        var text = "{\"t\":" + seconds(time)
        if request.session >= 0 { text += ",\"s\":\(request.session)" }
        if request.hinted > 0 { text += ",\"hinted\":\(request.hinted)" }
        if request.due > 0 { text += ",\"due\":" + seconds(request.due) }
        text += ",\"got\":\(request.got),\"put\":\(request.put)"
        if request.bytes > 0 { text += ",\"bytes\":\(request.bytes)" }
        text += ",\"hash_ids\":["
        for (index, id) in request.blocks.enumerated() {
            if index > 0 { text += "," }
            text += String(id)
        }
        return text + "]}\n"
    }

    /// With six digits behind the point.
    private static func seconds(_ nanoseconds: UInt64) -> String {
        let digits = String(nanoseconds / 1000 % 1_000_000)
        return "\(nanoseconds / 1_000_000_000)."
            + String(repeating: "0", count: 6 - digits.count) + digits
    }
}
