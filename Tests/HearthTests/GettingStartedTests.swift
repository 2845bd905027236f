// The article's code: what stands between the markers is what the article shows, and it runs.

import Foundation
import Hearth
import Testing

private func gettingStarted(directory: String) async throws -> [UInt8]? {
    // snippet begin
    let capacity = Configuration.capacity(forValueBytes: 1 << 30, blockBytes: 1 << 20)
    let store = try await Store.open(
        Configuration(directory: directory, capacityBytes: capacity))

    // Keys of two namespaces never meet: name everything that must match.
    let blocks = try await store.namespace(
        NamespaceDescription([("model", "llama-3-8b"), ("dtype", "bf16")]))

    // Put a block and have it flushed: from then on it survives a crash.
    let key = Key("prefix-hash-of-the-block")
    let value = [UInt8](repeating: 7, count: 1 << 20)
    let put = await store.put(
        PutItem(key: key, bytes: value), in: blocks, options: PutOptions(durability: .durable))
    print("put: \(put.status), version \(put.version)")

    // Which blocks of a chain are there? Memory only, on this thread.
    let chain: [Key] = [key, "the-next-block"]
    print("blocks to read: \(store.longestPrefix(chain, in: blocks))")

    // Read it, every byte checked: straight from the device into memory of one's own.
    let buffer = Buffer(count: value.count)
    let get = await store.get(GetItem(key: key, into: Memory(buffer)), in: blocks)
    print("get: \(get.status), \(get.delivered) bytes")

    // Or look at it where it lies in the DRAM tier, without a copy.
    if let lease = await store.lease(key, in: blocks) {
        lease.withRuns { runs in print("leased: \(runs.count) runs") }
    }

    let statistics = try await store.statistics()
    print("hits: \(statistics.gets.hitsStaging + statistics.gets.hitsDevice)")
    await store.close()
    // snippet end
    return get.isHit ? [UInt8](buffer.bytes) : nil
}

@Suite struct GettingStartedTests {
    @Test func itRuns() async throws {
        let directory = TemporaryDirectory()
        let bytes = try await gettingStarted(directory: directory.path)
        #expect(bytes == [UInt8](repeating: 7, count: 1 << 20))
    }

    @Test func theArticleShowsThisCode() throws {
        let source = try String(contentsOfFile: #filePath, encoding: .utf8)
        let lines = source.split(separator: "\n", omittingEmptySubsequences: false)
        let begin = try #require(lines.firstIndex { $0.contains("// snippet " + "begin") })
        let end = try #require(lines.firstIndex { $0.contains("// snippet " + "end") })
        let snippet = lines[(begin + 1)..<end].map { $0.hasPrefix("    ") ? $0.dropFirst(4) : $0 }
            .joined(separator: "\n")
        let article = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .appendingPathComponent("../../Sources/Hearth/Hearth.docc/GettingStarted.md")
        let text = try String(contentsOf: article, encoding: .utf8)
        let parts = text.components(separatedBy: "```")
        let code = parts.first { $0.hasPrefix("swift\n") }?.dropFirst(6)
        #expect(code.map(String.init) == snippet + "\n")
    }
}
