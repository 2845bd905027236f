// The page that an owner writes for tools: it is there while the store is open and after, never
// torn for a reader, not in the way of anything; a store that cannot write it works all the same.

import BlockIO
import Foundation
import Glibc
import LogStore
import SegmentFormat
import StoreTools
import Testing

@testable import Hearth

@Suite struct PageTests {
    private func configuration(_ directory: TemporaryDirectory) -> Configuration {
        var made = Small.configuration(directory)
        made.statisticsPeriodSeconds = 0.05
        return made
    }

    private func read(_ directory: TemporaryDirectory) throws -> OwnerPage {
        try OwnerPage.read(directory.path, clock: SystemClock())
    }

    private func error(_ directory: TemporaryDirectory) -> StoreError? {
        #expect(throws: StoreError.self) { _ = try read(directory) }
    }

    private func figures(_ page: OwnerPage) throws -> [String: Any] {
        let parsed = try JSONSerialization.jsonObject(with: Data(page.page.json.utf8))
        return try #require(parsed as? [String: Any])
    }

    /// Looks until the page is as it should be, for ten seconds at most.
    private func wait(
        _ directory: TemporaryDirectory, until isRight: (OwnerPage) throws -> Bool
    ) async throws -> OwnerPage {
        for _ in 0..<500 {
            let page = try read(directory)
            if try isRight(page) { return page }
            try await Task.sleep(for: .milliseconds(20))
        }
        Issue.record("the page never came to tell it")
        return try read(directory)
    }

    @Test func thePageFollowsTheStore() async throws {
        let directory = TemporaryDirectory()
        let store = try await Store.open(configuration(directory))
        let first = try read(directory)
        #expect(first.owner == .running && first.page.process == getpid())
        #expect(first.page.user == geteuid() && first.page.descriptors.index >= 0)
        #expect(first.page.periodMilliseconds == 50 && !first.isStale)
        try await store.waitUntilRecovered()
        let space = try await store.namespace(Small.description)
        for number in 0..<10 {
            #expect(await store.putBytes(Payload.key(number), [1, 2, 3], in: space).isPresent)
        }
        let later = try await wait(directory) { page in
            (try figures(page)["space"] as? [String: Any])?["blocks"] as? Int == 10
        }
        let samples = MetricSamples(later.page.prometheus)
        #expect(samples["space_blocks"] == 10)
        #expect(samples.byLabel("puts_by_status").first?.value == 10)
        #expect(samples.count("puts_latency_count") == 10)
        await store.close()
        let last = try read(directory)
        #expect(last.owner == .closed && !last.isOpen)
        #expect(MetricSamples(last.page.prometheus)["space_blocks"] == 10)
        // Opened anew, the page tells of the new opening, and begins with nothing.
        let again = try await Store.open(configuration(directory))
        #expect(try read(directory).owner == .running)
        #expect(MetricSamples(try read(directory).page.prometheus)["puts_latency_count"] == 0)
        await again.close()
    }

    @Test func noReaderSeesATornPage() async throws {
        let directory = TemporaryDirectory()
        let store = try await Store.open(configuration(directory))
        try await store.waitUntilRecovered()
        let space = try await store.namespace(Small.description)
        let ends = Flag()
        let path = directory.path
        let reader = Task.detached {
            var (reads, bad, newest) = (0, 0, UInt64(0))
            while !ends.isSet {
                let file = FileManager.default.contents(atPath: path + "/statistics") ?? Data()
                let page = file.withUnsafeBytes { try? StatisticsPage.newest(in: $0) }
                if let page, page.sequence >= newest {
                    newest = page.sequence
                } else {
                    bad += 1
                }
                reads += 1
            }
            return (reads, bad, newest)
        }
        let began = SystemClock().monotonic
        var number = 0
        while SystemClock().monotonic - began < 2_000_000_000 {
            let keys = (number..<(number + 32)).map(Payload.key)
            _ = await store.put(
                keys.map { PutItem(key: $0, bytes: Payload.bytes($0, count: 4096)) }, in: space)
            number += 32
        }
        ends.set()
        let (reads, bad, newest) = await reader.value
        #expect(bad == 0, "of \(reads) reads")
        #expect(reads > 100 && newest > 10, "\(reads) reads up to page \(newest)")
        await store.close()
    }

    @Test func whatIsWrongWithThePageIsTold() async throws {
        let directory = TemporaryDirectory()
        let store = try await Small.open(directory)
        await store.close()
        let path = directory.path + "/statistics"
        let whole = try #require(FileManager.default.contents(atPath: path))
        func write(_ data: Data) throws { try data.write(to: URL(fileURLWithPath: path)) }

        try write(Data(whole.prefix(200)))
        #expect(error(directory)?.kind == .input)
        try write(Data())
        #expect(error(directory)?.kind == .input)
        var flipped = whole
        for slot in 0..<StatisticsPage.slots where slot * StatisticsPage.slotBytes < whole.count {
            flipped[slot * StatisticsPage.slotBytes + 130] ^= 1
        }
        try write(flipped)
        #expect(error(directory)?.kind == .input)
        unlink(path)
        #expect(error(directory)?.kind == .missing)
        // The store does not mind any of it.
        try write(flipped)
        let again = try await Small.open(directory)
        #expect(try read(directory).owner == .running)
        await again.close()
        unlink(directory.path + "/manifest")
        unlink(path)
        #expect(error(directory)?.kind == .notAStore)
        #expect(throws: StoreError.self) {
            try OwnerPage.read(directory.path + "/none", clock: SystemClock())
        }
    }

    @Test func anOwnerThatEndedIsTold() async throws {
        let directory = TemporaryDirectory()
        let store = try await Small.open(directory)
        await store.close()
        var page = try read(directory).page
        page.state = .open
        page.sequence += 1
        func write() throws {
            let bytes = try #require(page.encode())
            try Data(bytes).write(to: URL(fileURLWithPath: directory.path + "/statistics"))
        }
        // This process lives, but it began at another time than the page's owner.
        page.processStart += 1
        try write()
        #expect(try read(directory).owner == .gone)
        page.wallSeconds = SystemClock().wallSeconds
        try write()
        // With the lock held and the page fresh it may live where it is not seen from here.
        let driver = try makeDriver(.threads, regions: RegionTable(), depth: 8)
        let held = try driver.openDirectory(directory.path, create: false)
        try driver.lock(held, holder: "somebody")
        #expect(try read(directory).owner == .elsewhere)
        page.wallSeconds -= 3600
        try write()
        #expect(try read(directory).owner == .gone)
        driver.close(held)
        driver.shutdown()
    }

    @Test func withoutAPageTheStoreWorks() async throws {
        let directory = TemporaryDirectory()
        await (try await Small.open(directory)).close()
        var configuration = Small.configuration(directory)
        configuration.statisticsPeriodSeconds = 0
        let off = try await Store.open(configuration)
        // Nor is an old one left to tell what is no longer so.
        #expect(error(directory)?.kind == .missing)
        #expect(try await off.statistics().trouble.pageErrors == 0)
        await off.close()
        // In the way of the file stands a folder: told, and nothing else.
        mkdir(directory.path + "/statistics", 0o700)
        let store = try await Small.open(directory)
        let space = try await store.namespace(Small.description)
        #expect(await store.putBytes("k", [1, 2, 3], in: space).isPresent)
        #expect(try await store.statistics().trouble.pageErrors == 1)
        await store.close()
        rmdir(directory.path + "/statistics")
    }

    @Test func aSleepingOwnerIsLeftAlone() async throws {
        let directory = TemporaryDirectory()
        let store = try await Store.open(configuration(directory))
        try await store.waitUntilRecovered()
        // Whatever opening has left to do ends; on a busy machine that takes its time. Then a page
        // is written every tenth period, of forty in two seconds.
        var pages: [UInt64] = []
        var after = try read(directory).page.sequence
        repeat {
            let before = after
            try await Task.sleep(for: .seconds(2))
            after = try read(directory).page.sequence
            pages.append(after - before)
        } while pages.last.map { !(1...12).contains($0) } ?? true && pages.count < 15
        #expect(pages.last.map { (1...12).contains($0) } ?? false, "pages in two seconds: \(pages)")
        let space = try await store.namespace(Small.description)
        #expect(await store.putBytes("k", [1, 2, 3], in: space).isPresent)
        let woken = try await wait(directory) {
            MetricSamples($0.page.prometheus)["space_blocks"] == 1
        }
        #expect(woken.page.sequence > after)
        await store.close()
    }

    /// The file system may stand still: closing then goes on, and the last page comes later.
    @Test func closingDoesNotWaitForAPageForEver() async throws {
        let stands = Flag()
        let ended = Flag()
        let thread = try #require(
            PageThread("test-page") { thread in
                while thread.rest(until: UInt64(Int64.max)) {}
            })
        let began = SystemClock().monotonic
        let isThrough = thread.end(within: 50_000_000) {
            while !stands.isSet { usleep(1000) }
            ended.set()
        }
        #expect(!isThrough && !ended.isSet)
        #expect(SystemClock().monotonic - began < 5_000_000_000)
        stands.set()
        for _ in 0..<5000 where !ended.isSet { usleep(1000) }
        #expect(ended.isSet)
        // One that does not stand still is waited for.
        let quick = try #require(PageThread("test-page") { _ in })
        let done = Flag()
        #expect(quick.end(within: 60_000_000_000) { done.set() })
        #expect(done.isSet)
    }

    /// A page that an earlier owner's thread writes late is not in the way of the next owner's.
    @Test func aPageThatComesLateIsNobodys() throws {
        let directory = TemporaryDirectory()
        guard var late = PageFile.make(in: directory.path) else {
            Issue.record("no file")
            return
        }
        var page = StatisticsPage()
        page.json = "late"
        page.state = .closed
        var written = (0..<5).map { _ in late.write(page) }
        guard var now = PageFile.make(in: directory.path) else {
            Issue.record("no second file")
            return
        }
        page.json = "now"
        page.state = .open
        written.append(now.write(page))
        page.json = "late"
        page.state = .closed
        written.append(late.write(page))
        #expect(written.allSatisfy { $0 })
        #expect(try read(directory).page.json == "now")
    }

    /// The first directory's device is away: the page is in the next one, and moves when it is
    /// back.
    @Test func whereTheFirstMemberIsAbsent() async throws {
        let (first, second) = (TemporaryDirectory(), TemporaryDirectory())
        var configuration = configuration(first)
        configuration.directories = [first.path + "/store", second.path]
        func page(_ path: String) -> OwnerPage? {
            try? OwnerPage.read(path, clock: SystemClock())
        }
        let both = try await Store.open(configuration)
        try await both.waitUntilRecovered()
        #expect(page(first.path + "/store")?.owner == .running && page(second.path) == nil)
        await both.close()
        // A file is no directory: the member cannot be opened.
        rename(first.path + "/store", first.path + "/away")
        try Data("x".utf8).write(to: URL(fileURLWithPath: first.path + "/store"))
        let one = try await Store.open(configuration)
        try await one.waitUntilRecovered()
        #expect(page(second.path)?.owner == .running)
        await one.close()
        #expect(page(second.path)?.owner == .closed)
        unlink(first.path + "/store")
        rename(first.path + "/away", first.path + "/store")
        let again = try await Store.open(configuration)
        #expect(page(first.path + "/store")?.owner == .running && page(second.path) == nil)
        await again.close()
        try FileManager.default.removeItem(atPath: first.path + "/store")
    }
}
