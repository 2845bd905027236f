// LearntFile: the files `learnt` and `ghosts` in the first of a store's directories that is there.
// A torn one is found by its check, and costs what was learnt, or why blocks are gone.

import LogStore
import SegmentFormat

enum LearntFile {
    /// Nil: there is none that says anything.
    static func read(from directory: String) -> LearntReturns? {
        let most = LearntReturns.mostBytes
        return KeptFile.read(StoreFiles.learnt, from: directory, most: most).withUnsafeBytes {
            try? LearntReturns.decode($0)
        }
    }

    /// False: it could not be written; what was there is still there.
    static func write(_ learnt: LearntReturns, to directory: String) -> Bool {
        guard let bytes = learnt.encode() else { return false }
        return KeptFile.write(bytes, StoreFiles.learnt, to: directory)
    }

    static func readGhosts(from directory: String) -> KeptGhosts? {
        let most = KeptGhosts.mostBytes
        return KeptFile.read(StoreFiles.ghosts, from: directory, most: most).withUnsafeBytes {
            try? KeptGhosts.decode($0)
        }
    }

    static func write(_ ghosts: KeptGhosts, to directory: String) -> Bool {
        guard let bytes = ghosts.encode() else { return false }
        return KeptFile.write(bytes, StoreFiles.ghosts, to: directory)
    }
}
