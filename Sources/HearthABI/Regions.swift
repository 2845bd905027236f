// The calls about memory: regions of host, shared and device memory.

import CHearth
import Glibc
import Hearth

/// `hearth_register` of hearth.h.
@c(hearth_register)
public func hearthRegister(
    _ store: UInt64, _ address: UnsafeMutableRawPointer?, _ length: UInt64, _ descriptor: Int32,
    _ region: UnsafeMutablePointer<UInt32>?
) -> Int32 {
    status { () throws(Failure) in
        try mayWait("hearth_register")
        let result = try given(region, "region")
        result.pointee = 0
        let found = try OpenStore.find(store)
        guard let address else { throw .argument("address is NULL.") }
        let start = UInt64(UInt(bitPattern: address))
        guard length > 0, length <= UInt64(Int.max), !start.addingReportingOverflow(length).overflow
        else {
            throw .argument("length \(length): not that of mapped memory.")
        }
        if descriptor >= 0 {
            var information = stat()
            guard fstat(descriptor, &information) == 0 else {
                throw .argument("descriptor \(descriptor): errno \(errno): not an open descriptor.")
            }
            guard UInt64(clamping: information.st_size) >= length else {
                throw .argument(
                    "descriptor \(descriptor): \(information.st_size) bytes, fewer than the "
                        + "\(length) that are mapped.")
            }
        }
        let memory = UnsafeMutableRawBufferPointer(start: address, count: Int(length))
        let made = try attempt { () throws(HearthError) in
            try found.store.registerAndWait(memory, descriptor: descriptor)
        }
        found.regions.add(KnownRegion(region: made, address: UInt(bitPattern: address)))
        result.pointee = UInt32(made.number)
    }
}

/// How C declares the copy functions of device memory.
public typealias CopyFunction =
    @convention(c) (UInt, UInt64, UnsafeMutableRawPointer?, UInt) -> Int32

/// `hearth_register_device` of hearth.h.
@c(hearth_register_device)
public func hearthRegisterDevice(
    _ store: UInt64, _ length: UInt64, _ context: UInt, _ toDevice: CopyFunction?,
    _ fromDevice: CopyFunction?, _ region: UnsafeMutablePointer<UInt32>?
) -> Int32 {
    status { () throws(Failure) in
        try mayWait("hearth_register_device")
        let result = try given(region, "region")
        result.pointee = 0
        let found = try OpenStore.find(store)
        guard let toDevice, let fromDevice else {
            throw .argument("to_device or from_device is NULL: device memory needs both.")
        }
        guard length > 0, length <= UInt64(Int.max) else {
            throw .argument("length \(length): not that of device memory.")
        }
        // The same function in C; Swift's type says more: that the host pointer is never NULL and
        // the length fits an Int, which hold, and that another thread may call it, as the header
        // says.
        let to = unsafeBitCast(toDevice, to: Store.DeviceCopyFunction.self)
        let from = unsafeBitCast(fromDevice, to: Store.DeviceCopyFunction.self)
        let made = try attempt { () throws(HearthError) in
            try found.store.registerDeviceAndWait(
                bytes: length, context: context, toDevice: to, fromDevice: from)
        }
        found.regions.add(KnownRegion(region: made, address: 0))
        result.pointee = UInt32(made.number)
    }
}

/// `hearth_unregister` of hearth.h.
@c(hearth_unregister)
public func hearthUnregister(_ store: UInt64, _ region: UInt32) -> Int32 {
    status { () throws(Failure) in
        try mayWait("hearth_unregister")
        let found = try OpenStore.find(store)
        let known = try found.regions.remove(region)
        for queue in found.queues where queue.uses(region) {
            found.regions.add(known)
            throw .argument(
                "region \(region): an operation uses it that is under way or was not polled: poll "
                    + "its completion, or its release.")
        }
        found.store.unregisterAndWait(known.region)
    }
}
