// HostWorld: a store on real files, driven by its test, in a directory that goes away with it.

import BlockIO
import Glibc
import LogStore
import Staging
import Testing

/// A new directory; `base` is a mounted file system or the temporary directory.
func makeTemporaryDirectory(in base: String = "/var/tmp") -> String {
    var name = Array("\(base)/hearth-damage-XXXXXX".utf8CString)
    guard mkdtemp(&name) != nil else { return "" }
    return String(decoding: name.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
}

/// Removes a directory of plain files.
func removeDirectory(_ path: String) {
    guard let directory = opendir(path) else { return }
    while let found = readdir(directory) {
        let name = withUnsafePointer(to: &found.pointee.d_name) {
            $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
        }
        if name != "." && name != ".." { unlink(path + "/" + name) }
    }
    closedir(directory)
    rmdir(path)
}

final class HostWorld: Harness {
    let sink = Collector()
    var configuration: StagedConfiguration
    let choice: DriverChoice
    private(set) var driver: any BlockDriver
    private(set) var store: StagedStore
    private var nextToken: UInt64 = 1
    private let clock = SystemClock()

    init(
        _ directory: String, _ choice: DriverChoice, segments: Int = 12, staging: Int = 0,
        capacity: UInt64? = nil
    ) throws {
        configuration = World.configuration(
            directories: [directory], segments: segments, staging: staging)
        if let capacity { configuration.log.capacityBytes = capacity }
        configuration.log.holder = "host world"
        self.choice = choice
        driver = try makeDriver(choice, regions: RegionTable(), depth: 64)
        store = try StagedStore.open(configuration, driver: driver, clock: clock)
        store.sink = sink
        settle()
    }

    func token() -> UInt64 {
        nextToken += 1
        return nextToken
    }

    func pause(_ nanoseconds: UInt64) { driver.wait(until: clock.monotonic + nanoseconds) }

    func settle(limit: Int) {
        let end = clock.monotonic + 60_000_000_000
        while clock.monotonic < end {
            let progressed = store.pump()
            if store.isIdle && store.isRecovered && !progressed { return }
            if !progressed { driver.wait(until: clock.monotonic + 1_000_000) }
        }
        fatalError("the store does not come to rest")
    }

    func close() {
        store.beginClose()
        settle()
        flush()
        checkpoint()
        store.shutdown()
        driver.shutdown()
    }

    func open() throws {
        driver = try makeDriver(choice, regions: RegionTable(), depth: 64)
        store = try StagedStore.open(configuration, driver: driver, clock: clock)
        store.sink = sink
        settle()
    }

    /// The error of a second opening, with a driver of its own.
    func openingError(_ change: (inout StagedConfiguration) -> Void = { _ in }) -> StoreError? {
        var changed = configuration
        change(&changed)
        guard let other = try? makeDriver(choice, regions: RegionTable(), depth: 16) else {
            return nil
        }
        defer { other.shutdown() }
        do throws(StoreError) {
            _ = try StagedStore.open(changed, driver: other, clock: clock)
            return nil
        } catch {
            return error
        }
    }

    func namespace(_ name: String = "model") -> UInt16 {
        let outcome = control {
            store.openNamespace(
                token: $0, fields: [("model", name)], aligned: false, timeToLive: 0, capBytes: 0)
        }
        return UInt16(outcome.version)
    }
}
