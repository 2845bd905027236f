// Workers: runs numbered pieces of work on a few threads, each piece with nothing shared. Stops
// early when one asks for it.

import Glibc
import Synchronization

final class Workers: Sendable {
    typealias Body = @Sendable (_ worker: Int, _ piece: Int) -> Bool

    private let next: Atomic<Int>
    private let end: Int
    private let stopped = Atomic<Bool>(false)
    private let body: Body

    private init(_ pieces: Range<Int>, _ body: @escaping Body) {
        next = Atomic<Int>(pieces.lowerBound)
        end = pieces.upperBound
        self.body = body
    }

    private final class Start: Sendable {
        let workers: Workers
        let number: Int
        init(_ workers: Workers, _ number: Int) {
            self.workers = workers
            self.number = number
        }
    }

    /// Runs the body for each piece, in order of their start; false from it ends the run.
    static func run(_ pieces: Range<Int>, threads: Int, _ body: @escaping Body) {
        let workers = Workers(pieces, body)
        var handles: [pthread_t] = []
        for number in 0..<max(1, threads) {
            var handle = pthread_t()
            var attributes = pthread_attr_t()
            pthread_attr_init(&attributes)
            pthread_attr_setstacksize(&attributes, 16 << 20)
            let start = Unmanaged.passRetained(Start(workers, number)).toOpaque()
            let made = pthread_create(
                &handle, &attributes,
                { argument in
                    guard let argument else { return nil }
                    let start = Unmanaged<Start>.fromOpaque(argument).takeRetainedValue()
                    start.workers.work(start.number)
                    return nil
                }, start)
            pthread_attr_destroy(&attributes)
            if made == 0 { handles.append(handle) }
        }
        for handle in handles { pthread_join(handle, nil) }
    }

    private func work(_ number: Int) {
        CrashNote.useOwnStack()
        while !stopped.load(ordering: .relaxed) {
            let piece = next.add(1, ordering: .relaxed).oldValue
            if piece >= end { return }
            if !body(number, piece) { stopped.store(true, ordering: .relaxed) }
        }
    }
}
