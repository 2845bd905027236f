// Repository: the files of this checkout, read from the disk. What is built, ignored or hidden
// belongs to nobody's rules and is left out.

import Foundation

struct RepositoryFile: CustomStringConvertible {
    /// From the root, such as `Sources/LogStore/LogStore.swift`.
    let path: String
    let text: String

    var description: String { path }
    var name: String { path.split(separator: "/").last.map(String.init) ?? path }
    var isSwift: Bool { path.hasSuffix(".swift") }
    /// Lines as they stand.
    var lines: [Substring] { text.split(separator: "\n", omittingEmptySubsequences: false) }
    /// The module of a source or test file: the second folder.
    var module: String? {
        let parts = path.split(separator: "/")
        return parts.count > 2 && (parts[0] == "Sources" || parts[0] == "Tests")
            ? String(parts[1]) : nil
    }
}

enum Repository {
    /// The folder that holds Package.swift, three above this file.
    static let root = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

    /// Never anybody's: built, fetched, or made by a tool.
    static func isIgnored(_ name: String) -> Bool {
        name == ".git" || name == ".build" || name.hasPrefix(".build-") || name == ".swiftpm"
            || name == ".venv" || name == "__pycache__" || name == "Package.resolved"
            || name == ".DS_Store"
    }

    static func topLevel() throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: root.path)
            .filter { !isIgnored($0) }.sorted()
    }

    /// Every text file, by path.
    static func files() throws -> [RepositoryFile] {
        var found: [RepositoryFile] = []
        try collect(root, "", &found)
        return found.sorted { $0.path < $1.path }
    }

    private static func collect(
        _ folder: URL, _ prefix: String, _ found: inout [RepositoryFile]
    ) throws {
        for name in try FileManager.default.contentsOfDirectory(atPath: folder.path) {
            if isIgnored(name) { continue }
            let url = folder.appendingPathComponent(name)
            let values = try url.resourceValues(forKeys: [.isDirectoryKey, .isRegularFileKey])
            if values.isDirectory == true {
                try collect(url, prefix + name + "/", &found)
            } else if values.isRegularFile == true, let text = textOf(url) {
                found.append(RepositoryFile(path: prefix + name, text: text))
            }
        }
    }

    /// Nil for what is no text: golden images and the like.
    private static func textOf(_ url: URL) -> String? {
        guard let data = try? Data(contentsOf: url), !data.contains(0) else { return nil }
        return String(data: data, encoding: .utf8)
    }

    static func exists(_ path: String) -> Bool {
        FileManager.default.fileExists(atPath: root.appendingPathComponent(path).path)
    }
}
