// Failure: what a call of the C interface returns when it does not succeed: a code of hearth.h and
// one line that says what was wrong and what to do, kept for the calling thread.

import CHearth
import CPlatform
import Glibc
import Hearth

struct Failure: Error {
    var code: Int32
    var message: String

    init(_ code: Int, _ message: String) {
        self.code = Int32(truncatingIfNeeded: code)
        self.message = message
    }

    static func argument(_ message: String) -> Failure { Failure(HEARTH_E_ARGUMENT, message) }

    static let closed = Failure(
        HEARTH_E_CLOSED, "The store is closing or closed: open it again to go on.")

    init(_ error: HearthError) {
        let code: Int
        switch error.kind {
        case .locked: code = HEARTH_E_LOCKED
        case .notAStore, .otherStore, .newerFormat, .damaged: code = HEARTH_E_FORMAT
        case .noSpace: code = HEARTH_E_NO_SPACE
        case .permission: code = HEARTH_E_PERMISSION
        case .missing, .input: code = HEARTH_E_IO
        case .configuration: code = HEARTH_E_ARGUMENT
        case .resource: code = HEARTH_E_RESOURCE
        case .closed: code = HEARTH_E_CLOSED
        }
        self.init(code, error.description)
    }

    /// Makes it this thread's last message.
    func keep() {
        guard let text = hearth_thread_text() else { return }
        let room = Int(HEARTH_THREAD_TEXT) - 1
        var count = 0
        for byte in message.utf8 where count < room {
            // One line, whatever a path or a name holds.
            text[count] = CChar(bitPattern: byte == 10 || byte == 13 ? 32 : byte)
            count += 1
        }
        // Cut between characters: what follows a first byte of UTF-8 begins with the bits 10.
        if count == room, message.utf8.count > room {
            while count > 0, UInt8(bitPattern: text[count - 1]) & 0xC0 == 0x80 { count -= 1 }
            if count > 0, UInt8(bitPattern: text[count - 1]) >= 0xC0 { count -= 1 }
        }
        text[count] = 0
    }
}

/// Runs the body of a call; its failure becomes the code returned and the thread's message.
@inline(__always)
func call(_ body: () throws(Failure) -> Int64) -> Int64 {
    do throws(Failure) {
        return try body()
    } catch {
        error.keep()
        return Int64(error.code)
    }
}

/// The same for calls that return a code only.
@inline(__always)
func status(_ body: () throws(Failure) -> Void) -> Int32 {
    do throws(Failure) {
        try body()
        return 0
    } catch {
        error.keep()
        return error.code
    }
}

/// Turns the store's errors into this interface's.
func attempt<Value>(_ body: () throws(HearthError) -> Value) throws(Failure) -> Value {
    do throws(HearthError) {
        return try body()
    } catch {
        throw Failure(error)
    }
}

/// Refuses a call that waits from inside a callback, which runs on the thread it would wait for.
func mayWait(_ name: StaticString) throws(Failure) {
    if hearth_thread_number().pointee != 0 {
        throw .argument(
            "\(name) waits, and a callback runs on the store's own thread: call it from another.")
    }
}

func given<Pointee>(
    _ pointer: UnsafePointer<Pointee>?, _ name: StaticString
) throws(Failure) -> UnsafePointer<Pointee> {
    guard let pointer else { throw .argument("\(name) is NULL.") }
    return pointer
}

func given<Pointee>(
    _ pointer: UnsafeMutablePointer<Pointee>?, _ name: StaticString
) throws(Failure) -> UnsafeMutablePointer<Pointee> {
    guard let pointer else { throw .argument("\(name) is NULL.") }
    return pointer
}

/// A C string as it is; text that is not UTF-8 would not be the same once it were mended.
func text(_ pointer: UnsafePointer<CChar>, _ name: String) throws(Failure) -> String {
    let bytes = UnsafeRawBufferPointer(start: pointer, count: strlen(pointer))
    guard let text = String(validating: bytes, as: UTF8.self) else {
        throw .argument("\(name) is not UTF-8.")
    }
    return text
}
