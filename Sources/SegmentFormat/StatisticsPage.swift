// StatisticsPage: what the owner of an open store tells tools, in a file beside the store: who it
// is, which descriptors its shared memory has, and its statistics as two texts. Not part of the
// format on disk: nothing in a store depends on it, it is never flushed, and a store without it is
// whole.
//
// The file has two places, written in turn, each with a check over all that it holds; so whoever
// reads while the owner writes finds the page before whole. The place and the making of magic,
// version, check and length never change, so that a newer page is told from a damaged one.

package struct StatisticsPage: Equatable, Sendable {
    package enum State: UInt8, Sendable {
        case open = 0
        /// Closed in good order; the figures are the last ones.
        case closed = 1
    }

    /// The descriptor numbers of the owner's shared mappings, -1 for none. Who may look into the
    /// process finds them in /proc.
    package struct Descriptors: Equatable, Sendable {
        package var index: Int32 = -1
        /// Why blocks that are gone are gone.
        package var ghosts: Int32 = -1
        package var residents: Int32 = -1
        package var slabs: Int32 = -1
        package init() {}
    }

    package static let version: UInt16 = 1
    package static let slots = 2
    package static let slotBytes = 128 << 10
    static let magic: UInt32 = 0x5053_5448  // "HTSP"
    private static let headerBytes = 128
    static let checkOffset = 8
    static let seed: UInt64 = 0x4865_6172_7468_5370

    package var state = State.open
    /// Counts the pages of one opening, from 1.
    package var sequence: UInt64 = 0
    package var process: Int32 = 0
    package var user: UInt32 = 0
    /// When the process began, in clock ticks since the machine started: with the number, its name.
    package var processStart: UInt64 = 0
    /// CLOCK_MONOTONIC of the owner's machine when this was collected, nanoseconds.
    package var monotonic: UInt64 = 0
    /// Unix seconds when this was collected, and when the store was opened.
    package var wallSeconds: UInt32 = 0
    package var openedSeconds: UInt32 = 0
    package var periodMilliseconds: UInt32 = 0
    package var store = Identity128(hi: 0, lo: 0)
    package var descriptors = Descriptors()
    package var json = ""
    package var prometheus = ""

    package init() {}

    /// The bytes of a place, as many as are used; nil when they would not fit one.
    package func encode() -> [UInt8]? {
        var (json, prometheus) = (self.json, self.prometheus)
        let length = Self.headerBytes + json.utf8.count + prometheus.utf8.count
        guard length <= Self.slotBytes else { return nil }
        var made = [UInt8](repeating: 0, count: length)
        made.withUnsafeMutableBytes { bytes in
            bytes.put(Self.magic, 0)
            bytes.put(Self.version, 4)
            bytes.put(UInt32(length), 16)
            bytes.put(state.rawValue, 20)
            bytes.put(sequence, 24)
            bytes.put(UInt32(bitPattern: process), 32)
            bytes.put(user, 36)
            bytes.put(processStart, 40)
            bytes.put(monotonic, 48)
            bytes.put(wallSeconds, 56)
            bytes.put(openedSeconds, 60)
            bytes.put(periodMilliseconds, 64)
            bytes.put(store, 72)
            bytes.put(UInt32(bitPattern: descriptors.index), 88)
            bytes.put(UInt32(bitPattern: descriptors.ghosts), 92)
            bytes.put(UInt32(bitPattern: descriptors.residents), 96)
            bytes.put(UInt32(bitPattern: descriptors.slabs), 100)
            bytes.put(UInt32(json.utf8.count), 104)
            bytes.put(UInt32(prometheus.utf8.count), 108)
            var at = Self.headerBytes
            for _ in 0..<2 {
                json.withUTF8 { text in
                    let part = UnsafeMutableRawBufferPointer(
                        rebasing: bytes[at..<(at + text.count)])
                    part.copyBytes(from: text)
                    at += text.count
                }
                swap(&json, &prometheus)
            }
            bytes.seal(Self.seed, at: Self.checkOffset)
        }
        return made
    }

    /// The page in one place of the file.
    package static func decode(
        _ place: UnsafeRawBufferPointer
    ) throws(FormatError) -> StatisticsPage {
        guard place.count >= headerBytes, place.u32(0) == magic else { throw .notHearth }
        let length = Int(place.u32(16))
        guard length >= headerBytes, length <= place.count else { throw .damaged }
        let bytes = UnsafeRawBufferPointer(rebasing: place[..<length])
        guard bytes.verifies(seed, at: checkOffset) else { throw .damaged }
        guard bytes.u16(4) == version else { throw .newerFormat(word: UInt64(bytes.u16(4))) }
        let jsonBytes = Int(bytes.u32(104))
        let prometheusBytes = Int(bytes.u32(108))
        guard let state = State(rawValue: bytes.u8(20)),
            headerBytes + jsonBytes + prometheusBytes == length
        else { throw .damaged }
        var made = StatisticsPage()
        made.state = state
        made.sequence = bytes.u64(24)
        made.process = Int32(bitPattern: bytes.u32(32))
        made.user = bytes.u32(36)
        made.processStart = bytes.u64(40)
        made.monotonic = bytes.u64(48)
        made.wallSeconds = bytes.u32(56)
        made.openedSeconds = bytes.u32(60)
        made.periodMilliseconds = bytes.u32(64)
        made.store = bytes.identity(72)
        made.descriptors.index = Int32(bitPattern: bytes.u32(88))
        made.descriptors.ghosts = Int32(bitPattern: bytes.u32(92))
        made.descriptors.residents = Int32(bitPattern: bytes.u32(96))
        made.descriptors.slabs = Int32(bitPattern: bytes.u32(100))
        let middle = headerBytes + jsonBytes
        // Not mended where it is no text: that could be longer than what is there.
        guard let json = String(validating: bytes[headerBytes..<middle], as: UTF8.self),
            let prometheus = String(validating: bytes[middle..<length], as: UTF8.self)
        else { throw .damaged }
        made.json = json
        made.prometheus = prometheus
        return made
    }

    /// The newest whole page of a file. Without one, a newer version says more than damage, and
    /// damage more than nothing.
    package static func newest(
        in file: UnsafeRawBufferPointer
    ) throws(FormatError) -> StatisticsPage {
        var best: StatisticsPage?
        var failure = FormatError.notHearth
        for slot in 0..<slots where slot * slotBytes < file.count {
            let end = min(file.count, (slot + 1) * slotBytes)
            do throws(FormatError) {
                let found = try decode(
                    UnsafeRawBufferPointer(rebasing: file[(slot * slotBytes)..<end]))
                if found.sequence >= best?.sequence ?? 0 { best = found }
            } catch {
                switch (failure, error) {
                case (.newerFormat, _), (_, .notHearth): break
                default: failure = error
                }
            }
        }
        guard let best else { throw failure }
        return best
    }
}
