// What a store has learnt of returns, over restarts: taken from the policy and the prefetcher of
// one that closes, given to those of one that opens. Namespaces go by their instances, whose slots
// may be another's by then.

import Heat
import LogStore
import Prefetch
import SegmentFormat
import Staging

extension TieredStore {
    /// What was learnt so far of when blocks and sessions come back; nil where nothing learns.
    package var learnt: LearntReturns? {
        var made = LearntReturns()
        made.store = staged.log.manifest.store
        made.bins = UInt16(SessionReturns.bins)
        if let blocks = staged.arena?.policy.learnt {
            for (slot, group) in blocks.groups where staged.log.namespaces.isLive(slot) {
                made.namespaces.append(
                    LearntReturns.Namespace(
                        instance: staged.log.namespaces.instance(slot), group: group))
            }
            made.blocks = blocks.classes
        }
        if let prefetcher {
            made.sessions = prefetcher.sessionReturns.learnt
            made.returns = prefetcher.sessionReturns.returns
            made.trust = prefetcher.sessionReturns.trust
        }
        return made.blocks.isEmpty && made.sessions.isEmpty ? nil : made
    }

    /// Takes over what the store has learnt in an earlier life; called right after `open`. What is
    /// another store's is passed over.
    package func recall(_ learnt: LearntReturns) {
        guard learnt.store == staged.log.manifest.store,
            Int(learnt.bins) == SessionReturns.bins
        else { return }
        var blocks = LearntBlocks()
        for namespace in learnt.namespaces {
            guard let slot = staged.log.namespaces.slot(instance: namespace.instance) else {
                continue
            }
            blocks.groups.append((slot, namespace.group))
        }
        blocks.classes = learnt.blocks
        staged.arena?.policy.recall(blocks)
        prefetcher?.sessionReturns.recall(
            learnt.sessions, returns: learnt.returns, trust: learnt.trust)
    }
}
