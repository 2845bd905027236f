// Manifest: what the store is and who its members are. The file has four copies; the one of epoch e
// goes to places e mod 2 and two further on, so that the epoch before stays whole until this one is
// durable, and each epoch survives the loss of one copy, or of two neighbours: what is written to a
// wrong place, or a row of bad sectors, may lie across a border. No rename, no append.

package struct Manifest: Sendable {
    package static let copyBytes = 256 << 10
    package static let copies = 4

    /// The two places of an epoch's copies.
    package static func places(of epoch: UInt64) -> [Int] {
        let first = Int(epoch % 2)
        return [first, twin(of: first)]
    }

    /// The place of the other copy of the same epoch.
    package static func twin(of place: Int) -> Int { (place + 2) % copies }

    package var store = Identity128(hi: 0, lo: 0)
    package var secret = SecretKey(k0: 0, k1: 0)
    package var epoch: UInt64 = 0
    package var membershipEpoch: UInt64 = 0
    package var mode: UInt8 = 0
    package var segmentBytes: UInt64 = 0
    package var maxBlockBytes: UInt64 = 0
    package var capacityBytes: UInt64 = 0
    package var thisDevice: UInt8 = 0
    package var devices: [DeviceRecord] = []
    /// Generations, versions and instance ids below these were (or may have been) given out.
    package var generationLimit: UInt64 = 0
    package var versionLimit: UInt64 = 0
    package var nextNamespaceInstance: UInt64 = 0
    package var wallSecondsFloor: UInt32 = 0
    package var cleanClose = false
    /// The account of writes: bytes that may be written, negative when too many were, as of a wall
    /// time; 0 and 0 for none.
    package var writeBalance: Int64 = 0
    package var writeBalanceSeconds: UInt32 = 0
    package var namespaces: [NamespaceRecord] = []
    /// Written by a newer build that this one may read but not write.
    package var readOnlyFormat = false

    package init() {}

    private static let fixedBytes = 192
    private static let deviceBytes = 40
    private static let checkOffset = 8
    private static let seed: UInt64 = 0x4865_6172_7468_4D61

    private var encodedBytes: Int {
        Self.fixedBytes + devices.count * Self.deviceBytes
            + namespaces.reduce(0) { $0 + $1.encodedBytes }
    }

    /// Whether it fits a copy.
    package var fits: Bool {
        encodedBytes <= Self.copyBytes
            && namespaces.allSatisfy {
                $0.fields.count <= NamespaceRecord.maximumFields
                    && $0.fields.allSatisfy {
                        $0.0.utf8.count <= 4096 && $0.1.utf8.count <= 4096
                    }
            }
    }

    package func encode(into: UnsafeMutableRawBufferPointer) throws(FormatError) {
        guard into.count == Self.copyBytes, fits else { throw .tooLarge }
        into.zero()
        into.put(FormatConstants.manifestMagic, 0)
        into.put(FormatConstants.version, 4)
        into.put(epoch, 16)
        into.put(FormatConstants.compatible, 24)
        into.put(FormatConstants.readOnlyCompatible, 32)
        into.put(FormatConstants.incompatible, 40)
        into.put(store, 48)
        into.put(secret.k0, 64)
        into.put(secret.k1, 72)
        into.put(membershipEpoch, 80)
        into.put(segmentBytes, 88)
        into.put(maxBlockBytes, 96)
        into.put(capacityBytes, 104)
        into.put(generationLimit, 112)
        into.put(versionLimit, 120)
        into.put(nextNamespaceInstance, 128)
        into.put(UInt32(devices.count), 136)
        into.put(UInt32(namespaces.count), 140)
        into.put(wallSecondsFloor, 144)
        into.put(mode, 148)
        into.put(thisDevice, 149)
        into.put(UInt8(cleanClose ? 1 : 0), 150)
        into.put(UInt64(bitPattern: writeBalance), 152)
        into.put(writeBalanceSeconds, 160)
        var at = Self.fixedBytes
        for device in devices {
            into.put(device.id, at)
            into.put(device.membershipEpoch, at + 16)
            into.put(device.segmentCount, at + 24)
            into.put(device.index, at + 28)
            into.put(device.state, at + 29)
            at += Self.deviceBytes
        }
        for namespace in namespaces {
            let bytes = namespace.encodedBytes
            namespace.encode(UnsafeMutableRawBufferPointer(rebasing: into[at..<(at + bytes)]))
            at += bytes
        }
        into.seal(Self.seed, at: Self.checkOffset)
    }

    package static func decode(
        copy: UnsafeRawBufferPointer
    ) throws(FormatError) -> Manifest {
        guard copy.count == copyBytes, copy.u32(0) == FormatConstants.manifestMagic else {
            throw .notHearth
        }
        guard copy.verifies(seed, at: checkOffset) else { throw .damaged }
        let unknown = copy.u64(40) & ~FormatConstants.incompatible
        if unknown != 0 { throw .newerFormat(word: unknown) }
        var made = Manifest()
        made.readOnlyFormat = copy.u64(32) & ~FormatConstants.readOnlyCompatible != 0
        made.epoch = copy.u64(16)
        made.store = copy.identity(48)
        made.secret = SecretKey(k0: copy.u64(64), k1: copy.u64(72))
        made.membershipEpoch = copy.u64(80)
        made.segmentBytes = copy.u64(88)
        made.maxBlockBytes = copy.u64(96)
        made.capacityBytes = copy.u64(104)
        made.generationLimit = copy.u64(112)
        made.versionLimit = copy.u64(120)
        made.nextNamespaceInstance = copy.u64(128)
        made.wallSecondsFloor = copy.u32(144)
        made.mode = copy.u8(148)
        made.thisDevice = copy.u8(149)
        made.cleanClose = copy.u8(150) != 0
        made.writeBalance = Int64(bitPattern: copy.u64(152))
        made.writeBalanceSeconds = copy.u32(160)
        try made.decodeLists(copy)
        return made
    }

    private mutating func decodeLists(
        _ copy: UnsafeRawBufferPointer
    ) throws(FormatError) {
        let deviceCount = Int(copy.u32(136))
        let namespaceCount = Int(copy.u32(140))
        for counter in [
            epoch, membershipEpoch, generationLimit, versionLimit, nextNamespaceInstance,
        ] where counter >= FormatConstants.counterLimit { throw .damaged }
        guard deviceCount <= 32, namespaceCount <= 4096, segmentBytes >= 1 << 16,
            segmentBytes <= 1 << 32,
            segmentBytes % UInt64(FormatConstants.pageBytes) == 0,
            maxBlockBytes >= 1, maxBlockBytes <= UInt64(FormatConstants.maxBlockBytes),
            Int(thisDevice) < max(1, deviceCount)
        else { throw .damaged }
        var at = Self.fixedBytes
        for _ in 0..<deviceCount {
            guard at + Self.deviceBytes <= copy.count else { throw .damaged }
            devices.append(
                DeviceRecord(
                    id: copy.identity(at), index: copy.u8(at + 28), state: copy.u8(at + 29),
                    segmentCount: copy.u32(at + 24), membershipEpoch: copy.u64(at + 16)))
            guard Int(copy.u8(at + 28)) == devices.count - 1, copy.u32(at + 24) <= 1 << 15 else {
                throw .damaged
            }
            at += Self.deviceBytes
        }
        for _ in 0..<namespaceCount {
            let (record, bytes) = try NamespaceRecord.decode(
                UnsafeRawBufferPointer(rebasing: copy[at...]))
            namespaces.append(record)
            at += bytes
        }
    }

    /// The newest whole copy of a manifest file. Of copies that do not decode, a newer format says
    /// more than damage, and damage more than strangeness.
    package static func newest(
        in file: UnsafeRawBufferPointer
    ) throws(FormatError) -> Manifest {
        var best: Manifest?
        var failure = FormatError.notHearth
        for copy in 0..<copies {
            guard (copy + 1) * copyBytes <= file.count else { break }
            let bytes = UnsafeRawBufferPointer(
                rebasing: file[(copy * copyBytes)..<((copy + 1) * copyBytes)])
            do throws(FormatError) {
                let found = try decode(copy: bytes)
                if found.epoch > best?.epoch ?? 0 || best == nil { best = found }
            } catch {
                switch error {
                case .newerFormat: throw error
                case .notHearth: break
                default: failure = error
                }
            }
        }
        guard let best else { throw failure }
        return best
    }
}
