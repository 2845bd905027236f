// AdmissionSimulation: what a device without limits would be written and would give back, by what
// is admitted to it. A block that is not there is computed by the request and offered; a hit is one
// of the prefix.

import Heat
import Staging

package struct AdmissionResult: Equatable, Sendable {
    package var writes = 0
    package var prefixHits = 0
    /// Blocks written and never read.
    package var unread = 0
    package init() {}
}

package struct AdmissionSimulation {
    private let trace: TraceTable

    package init(_ trace: TraceTable) { self.trace = trace }

    /// All blocks, partial tails too, when they come.
    package func runWritingAll() -> AdmissionResult {
        run(foretold: nil) { _, _, _, _ in true }
    }

    package func run(_ admission: WriteAdmission, foretold: [Bool]?) -> AdmissionResult {
        run(foretold: foretold) { block, uses, outlook, isPartial in
            admission.verdict(
                keyHash: scrambled(UInt64(block)), uses: uses, outlook: outlook,
                isPartial: isPartial, isLeaving: false) == .write
        }
    }

    private func run(
        foretold: [Bool]?, _ admits: (Int32, UInt32, Outlook, Bool) -> Bool
    ) -> AdmissionResult {
        var result = AdmissionResult()
        var isStored = [Bool](repeating: false, count: trace.unique)
        var isRead = [Bool](repeating: false, count: trace.unique)
        var uses = [UInt32](repeating: 0, count: trace.unique)
        for request in 0..<trace.requests {
            let range = trace.accesses(of: request)
            let outlook = foretold.map { $0[request] ? Outlook.returns : .ends } ?? .unknown
            var isPrefix = true
            for access in range {
                let block = Int(trace.blocks[access])
                uses[block] += 1
                isPrefix = isPrefix && isStored[block]
                if isPrefix {
                    result.prefixHits += 1
                    isRead[block] = true
                }
                let isPartial =
                    trace.endsPartial[request] && access == range.upperBound - 1
                if !isStored[block], admits(Int32(block), uses[block], outlook, isPartial) {
                    isStored[block] = true
                    result.writes += 1
                }
            }
        }
        for block in isStored.indices where isStored[block] && !isRead[block] { result.unread += 1 }
        return result
    }
}
