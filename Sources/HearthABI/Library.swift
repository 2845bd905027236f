// The calls about the library itself: version, features, and the names of values.

import CHearth
import CPlatform

/// `hearth_version` of hearth.h.
@c(hearth_version)
public func hearthVersion() -> UInt32 {
    UInt32(HEARTH_VERSION_MAJOR) << 16 | UInt32(HEARTH_VERSION_MINOR)
}

/// `hearth_has_feature` of hearth.h.
@c(hearth_has_feature)
public func hearthHasFeature(_ name: UnsafePointer<CChar>?) -> Int32 {
    guard let name else { return 0 }
    let known: Set<String> = [
        "dir", "io_uring", "region-shared", "region-device", "lease", "hints", "list",
        "prefix-ask", "engine-memory",
    ]
    return known.contains(String(cString: name)) ? 1 : 0
}

/// `hearth_error_message` of hearth.h.
@c(hearth_error_message)
public func hearthErrorMessage() -> UnsafePointer<CChar>? {
    UnsafePointer(hearth_thread_text())
}

/// Text that lives as long as the library.
private func lasting(_ text: StaticString) -> UnsafePointer<CChar>? {
    UnsafeRawPointer(text.utf8Start).assumingMemoryBound(to: CChar.self)
}

/// `hearth_error_name` of hearth.h.
@c(hearth_error_name)
public func hearthErrorName(_ error: Int32) -> UnsafePointer<CChar>? {
    switch Int(error) {
    case 0: lasting("OK")
    case HEARTH_E_HANDLE: lasting("HEARTH_E_HANDLE")
    case HEARTH_E_ARGUMENT: lasting("HEARTH_E_ARGUMENT")
    case HEARTH_E_LOCKED: lasting("HEARTH_E_LOCKED")
    case HEARTH_E_FORMAT: lasting("HEARTH_E_FORMAT")
    case HEARTH_E_PERMISSION: lasting("HEARTH_E_PERMISSION")
    case HEARTH_E_NO_SPACE: lasting("HEARTH_E_NO_SPACE")
    case HEARTH_E_IO: lasting("HEARTH_E_IO")
    case HEARTH_E_RESOURCE: lasting("HEARTH_E_RESOURCE")
    case HEARTH_E_FORKED: lasting("HEARTH_E_FORKED")
    case HEARTH_E_CLOSED: lasting("HEARTH_E_CLOSED")
    case HEARTH_E_TIMEOUT: lasting("HEARTH_E_TIMEOUT")
    case HEARTH_E_UNSUPPORTED: lasting("HEARTH_E_UNSUPPORTED")
    case HEARTH_E_INTERNAL: lasting("HEARTH_E_INTERNAL")
    default: lasting("?")
    }
}

/// `hearth_status_name` of hearth.h.
@c(hearth_status_name)
public func hearthStatusName(_ status: UInt32) -> UnsafePointer<CChar>? {
    switch hearth_status(rawValue: status) {
    case HEARTH_STORED: lasting("stored")
    case HEARTH_ALREADY: lasting("already-present")
    case HEARTH_CONFLICT: lasting("conflict")
    case HEARTH_NOT_ADMITTED: lasting("not-admitted")
    case HEARTH_THROTTLED: lasting("throttled")
    case HEARTH_TOO_LARGE: lasting("too-large")
    case HEARTH_NO_SPACE: lasting("no-space")
    case HEARTH_READ_ONLY: lasting("read-only")
    case HEARTH_FAILED: lasting("failed")
    case HEARTH_HIT: lasting("hit")
    case HEARTH_MISS: lasting("miss")
    case HEARTH_DELETED: lasting("deleted")
    case HEARTH_NOT_FOUND: lasting("not-found")
    case HEARTH_CANCELLED: lasting("cancelled")
    case HEARTH_TIMED_OUT: lasting("timed-out")
    case HEARTH_INVALID: lasting("invalid")
    case HEARTH_DONE: lasting("done")
    default: lasting("?")
    }
}

/// `hearth_reason_name` of hearth.h.
@c(hearth_reason_name)
public func hearthReasonName(_ reason: UInt32) -> UnsafePointer<CChar>? {
    switch hearth_reason(rawValue: reason) {
    case HEARTH_REASON_NONE: lasting("none")
    case HEARTH_REASON_NEVER_PUT: lasting("never-put")
    case HEARTH_REASON_NOT_ADMITTED: lasting("not-admitted")
    case HEARTH_REASON_EVICTED: lasting("evicted")
    case HEARTH_REASON_EXPIRED: lasting("expired")
    case HEARTH_REASON_DELETED: lasting("deleted")
    case HEARTH_REASON_QUARANTINED: lasting("quarantined")
    case HEARTH_REASON_FAILED_CHECK: lasting("failed-check")
    case HEARTH_REASON_DECLINED: lasting("declined")
    case HEARTH_REASON_OTHER_NAMESPACE: lasting("other-namespace")
    case HEARTH_REASON_DEVICE_OUT: lasting("device-out")
    case HEARTH_REASON_RECOVERING: lasting("recovering")
    case HEARTH_REASON_DEADLINE: lasting("deadline")
    default: lasting("?")
    }
}
