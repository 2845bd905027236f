// The calls about queues and leases.

import CHearth
import Hearth

/// How C declares a queue's callback.
public typealias CompletionCallback =
    @convention(c) (UnsafeMutableRawPointer?, UnsafePointer<hearth_completion>?, UInt32) -> Void

/// `hearth_queue_open` of hearth.h.
@c(hearth_queue_open)
public func hearthQueueOpen(
    _ store: UInt64, _ capacity: UInt32, _ callback: CompletionCallback?,
    _ context: UnsafeMutableRawPointer?, _ queue: UnsafeMutablePointer<UInt64>?
) -> Int32 {
    status { () throws(Failure) in
        let result = try given(queue, "queue")
        result.pointee = 0
        let found = try OpenStore.find(store)
        guard (1...(1 << 20)).contains(capacity) else {
            throw .argument("capacity \(capacity): give 1 to 2^20 operations.")
        }
        result.pointee = try found.add(
            Queue(found, capacity: Int(capacity), callback: callback, context: context))
    }
}

/// `hearth_queue_close` of hearth.h.
@c(hearth_queue_close)
public func hearthQueueClose(_ queue: UInt64) -> Int32 {
    status { () throws(Failure) in
        try mayWait("hearth_queue_close")
        let found = try Registry.current.queues.find(queue)
        // The handle is gone at once; the store knows of the queue until nothing uses its memory.
        guard Registry.current.queues.remove(queue) != nil else { throw .closed }
        found.close()
        found.store.remove(queue: queue)
    }
}

/// `hearth_submit` of hearth.h.
@c(hearth_submit)
public func hearthSubmit(
    _ queue: UInt64, _ operations: UnsafePointer<hearth_operation>?, _ count: UInt32,
    _ data: UnsafeRawPointer?, _ dataBytes: UInt64
) -> Int64 {
    call { () throws(Failure) in
        let found = try Registry.current.queues.find(queue)
        let data = try BatchData(data, dataBytes)
        if count == 0 {
            try found.checkOpen()
            return 0
        }
        return Int64(
            try found.submit(try given(operations, "operations"), count: Int(count), data))
    }
}

/// `hearth_poll` of hearth.h.
@c(hearth_poll)
public func hearthPoll(
    _ queue: UInt64, _ completions: UnsafeMutablePointer<hearth_completion>?, _ room: UInt32,
    _ timeout: UInt64
) -> Int64 {
    call { () throws(Failure) in
        if timeout > 0 { try mayWait("hearth_poll") }
        let found = try Registry.current.queues.find(queue)
        guard found.callback == nil else {
            throw .argument("The queue has a callback: its completions are not polled.")
        }
        guard room > 0 else { throw .argument("room is 0: give room for a completion at least.") }
        return Int64(
            try found.poll(
                try given(completions, "completions"), room: Int(room), timeout: timeout))
    }
}

/// `hearth_event_fd` of hearth.h.
@c(hearth_event_fd)
public func hearthEventDescriptor(_ queue: UInt64) -> Int32 {
    Int32(
        truncatingIfNeeded: call { () throws(Failure) in
            let found = try Registry.current.queues.find(queue)
            guard found.callback == nil else {
                throw .argument("The queue has a callback: it has no descriptor.")
            }
            return Int64(try found.descriptor())
        })
}

/// `hearth_cancel` of hearth.h.
@c(hearth_cancel)
public func hearthCancel(_ queue: UInt64, _ first: UInt64, _ last: UInt64) -> Int32 {
    status { () throws(Failure) in
        let found = try Registry.current.queues.find(queue)
        try found.checkOpen()
        guard first <= last else {
            throw .argument("first \(first) is above last \(last).")
        }
        found.cancel(first: first, last: last)
    }
}

/// `hearth_lease_runs` of hearth.h.
@c(hearth_lease_runs)
public func hearthLeaseRuns(
    _ store: UInt64, _ lease: UInt64, _ runs: UnsafeMutablePointer<hearth_run>?, _ room: UInt32
) -> Int64 {
    call { () throws(Failure) in
        let found = try OpenStore.find(store)
        let made = try found.leases.runs(lease, of: found)
        guard let made else {
            throw Failure(HEARTH_E_INTERNAL, "The lease's bytes are not within its block.")
        }
        if room > 0 {
            let into = try given(runs, "runs")
            for (index, run) in made.prefix(Int(room)).enumerated() {
                into.advanced(by: index).initialize(
                    to: hearth_run(address: run.baseAddress, length: UInt64(run.count)))
            }
        }
        return Int64(made.count)
    }
}

/// `hearth_lease_end` of hearth.h.
@c(hearth_lease_end)
public func hearthLeaseEnd(_ store: UInt64, _ lease: UInt64) -> Int32 {
    status { () throws(Failure) in
        let found = try OpenStore.find(store)
        found.store.engine.endLease(try found.leases.remove(lease).view.slot)
    }
}
