// guided: the same mutations, chosen by libFuzzer from what code they reach. Only in a build that
// tools/fuzz made, which links libFuzzer's driver; it is looked up by name, so that the ordinary
// build needs nothing of it.

import Glibc

enum GuidedFuzz {
    private typealias Callback = @convention(c) (UnsafePointer<UInt8>?, Int) -> Int32
    private typealias Driver =
        @convention(c) (
            UnsafeMutablePointer<Int32>,
            UnsafeMutablePointer<
                UnsafeMutablePointer<
                    UnsafeMutablePointer<
                        CChar
                    >?
                >
            >, Callback
        ) -> Int32

    /// Valid structures of each kind that mutations begin with.
    private static let bases = 16

    // libFuzzer calls from one thread.
    nonisolated(unsafe) private static var mutators: [Int: Mutator] = [:]
    nonisolated(unsafe) private static var tally = FuzzTally()
    nonisolated(unsafe) private static var interface: FuzzedInterface?
    nonisolated(unsafe) private static var only: Int?

    /// `words` are libFuzzer's own options; one of "structure=N" leaves only that one, N being the
    /// number of structures for the C interface.
    static func run(_ words: [String]) -> Int32 {
        guard let found = dlsym(nil, "LLVMFuzzerRunDriver") else {
            report("hearth-torture: not linked with libFuzzer: use tools/fuzz")
            return 2
        }
        let driver = unsafeBitCast(found, to: Driver.self)
        var rest = ["hearth-torture"]
        for word in words {
            if word.hasPrefix("structure=") {
                only = Int(word.dropFirst("structure=".count))
            } else {
                rest.append(word)
            }
        }
        if only == nil || only == FuzzCatalog.names.count {
            interface = FuzzedInterface(directory: "/tmp/hearth-guided.\(getpid())")
            if interface == nil { return 1 }
        }
        var count = Int32(rest.count)
        let list = UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>.allocate(
            capacity: rest.count + 1)
        for (index, word) in rest.enumerated() { list[index] = strdup(word) }
        list[rest.count] = nil
        var arguments = list
        return driver(&count, &arguments) { bytes, length in
            GuidedFuzz.one(UnsafeRawBufferPointer(start: bytes, count: length))
            return 0
        }
    }

    private static func one(_ data: UnsafeRawBufferPointer) {
        guard data.count >= 4 else { return }
        let kinds = FuzzCatalog.names.count + 1
        let number = only ?? Int(data[0]) % kinds
        let base = Int(data[1]) % bases
        var choices = Choices(data: UnsafeRawBufferPointer(rebasing: data[2...]))
        var failure: String?
        if number >= FuzzCatalog.names.count {
            failure = interface?.message(&choices)
        } else {
            let place = number * bases + base
            var mutator: Mutator
            if let known = mutators.removeValue(forKey: place) {
                mutator = known
            } else {
                var making = Choices(seed: UInt64(place))
                mutator = Mutator(FuzzCatalog.make(number, &making), number)
            }
            failure = mutator.mutate(&choices, &tally)
            mutators[place] = mutator
        }
        if let failure {
            report("guided: \(number): \(failure)")
            abort()
        }
    }
}
