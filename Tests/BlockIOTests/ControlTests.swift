// ControlTests: directories, locks and files, the same on every driver.

import BlockIO
import Glibc
import Testing

@Suite struct ControlTests {
    @Test(arguments: [Flavour.uring, .threads])
    func openFlagsAndErrors(_ flavour: Flavour) throws {
        let rig = try Rig(flavour)
        let driver = rig.driver
        #expect(
            errno(of: { () throws(IOError) in try driver.open(rig.directory, "no", .existing) })
                == ENOENT)
        let file = try driver.open(rig.directory, "a", .exclusive)
        #expect(
            errno(of: { () throws(IOError) in try driver.open(rig.directory, "a", .exclusive) })
                == EEXIST)
        _ = try driver.open(rig.directory, "b", .create)
        _ = try driver.open(rig.directory, "b", .create)
        #expect(try driver.list(rig.directory) == ["a", "b"])
        var found = stat()
        #expect(stat(rig.path + "/a", &found) == 0 && found.st_mode & 0o777 == 0o600)
        try driver.remove(rig.directory, "a")
        #expect(
            errno(of: { () throws(IOError) in try driver.remove(rig.directory, "a") }) == ENOENT)
        #expect(try driver.list(rig.directory) == ["b"])
        driver.close(file)
        #expect(errno(of: { () throws(IOError) in _ = try driver.information(file) }) == EBADF)
        #expect(errno(of: { () throws(IOError) in _ = try driver.list(FileID(9999)) }) == EBADF)
        #expect(try driver.availableBytes(rig.directory) > 1 << 20)
    }

    @Test(arguments: [Flavour.uring, .threads])
    func directoriesAreMadePrivate(_ flavour: Flavour) throws {
        let rig = try Rig(flavour)
        let inner = rig.path + "/inner"
        #expect(
            errno(of: { () throws(IOError) in try rig.driver.openDirectory(inner, create: false) })
                == ENOENT)
        let made = try rig.driver.openDirectory(inner, create: true)
        _ = try rig.driver.openDirectory(inner, create: true)
        var found = stat()
        #expect(stat(inner, &found) == 0 && found.st_mode & 0o777 == 0o700)
        #expect(try rig.driver.list(made).isEmpty)
        #expect(rmdir(inner) == 0)
    }

    @Test(arguments: [Flavour.uring, .threads])
    func lockNamesItsHolder(_ flavour: Flavour) throws {
        let rig = try Rig(flavour)
        try rig.driver.lock(rig.directory, holder: "pid 17 on rack 4")
        // A second open in this process, through this driver and through another.
        let again = try rig.driver.openDirectory(rig.path, create: false)
        let other = try Flavour.threads.make(RegionTable(), depth: 4)
        let otherDirectory = try other.openDirectory(rig.path, create: false)
        let mine = rig.driver
        for (driver, directory) in [(mine, again), (other, otherDirectory), (mine, rig.directory)] {
            do throws(IOError) {
                try driver.lock(directory, holder: "somebody else")
                Issue.record("a held lock was given again")
            } catch {
                #expect(error.errno == EAGAIN && error.detail == "pid 17 on rack 4")
            }
        }
        var found = stat()
        #expect(stat(rig.path + "/LOCK", &found) == 0 && found.st_mode & 0o777 == 0o600)
        rig.driver.close(rig.directory)
        try other.lock(otherDirectory, holder: "next")
        #expect(errno(of: { () throws(IOError) in try mine.lock(again, holder: "x") }) == EAGAIN)
        other.shutdown()
        try mine.lock(again, holder: "last")
        try mine.remove(again, "LOCK")
    }

    @Test(arguments: [Flavour.uring, .threads])
    func manyFilesAndReusedIdentifiers(_ flavour: Flavour) throws {
        let rig = try Rig(flavour)
        var files: [FileID] = []
        for index in 0..<150 {
            files.append(try rig.driver.open(rig.directory, "f\(index)", .exclusive))
        }
        #expect(Set(files).count == 150)
        let memory = Memory(4096)
        for (index, file) in files.enumerated() {
            fillPattern(memory.base, 4096, seed: UInt64(index))
            #expect(rig.run(.write, file, 0, memory.piece()) == 4096)
        }
        // A closed identifier goes to the next file, also in the ring's own table.
        rig.driver.close(files[40])
        let reused = try rig.driver.open(rig.directory, "f149", .existing)
        #expect(reused == files[40])
        #expect(rig.run(.read, reused, 0, memory.piece()) == 4096)
        #expect(holdsPattern(memory.base, 4096, seed: 149))
        for (index, file) in files.enumerated() where index != 40 {
            #expect(rig.run(.read, file, 0, memory.piece()) == 4096)
            #expect(holdsPattern(memory.base, 4096, seed: UInt64(index)))
        }
    }

    @Test func clockGoesOn() {
        let clock = SystemClock()
        let first = clock.monotonic
        usleep(2000)
        #expect(clock.monotonic - first >= 2_000_000)
        #expect(clock.wallSeconds > 1_700_000_000)
    }
}

/// The errno with which a control call fails, 0 if it does not.
private func errno<Result>(of body: () throws(IOError) -> Result) -> Int32 {
    do throws(IOError) {
        _ = try body()
        return 0
    } catch {
        return error.errno
    }
}
