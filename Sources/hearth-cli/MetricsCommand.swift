// `hearth metrics`: serves the figures of an open store to Prometheus.

import ArgumentParser
import BlockIO
import Glibc
import LogStore
import StoreTools

struct MetricsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "metrics",
        abstract: "Serve the figures of an open store to Prometheus.",
        discussion: """
            Answers GET /metrics with the page that the owner writes about once a second. When \
            nobody has the store open, hearth_up is 0 and the figures are left out; it goes on, \
            and finds the next owner. SIGINT and SIGTERM end it with exit code 0.
            """)

    @OptionGroup var page: PageArguments

    @Option(
        help: """
            Where to listen: ADDRESS:PORT with a numeric address, localhost or *, [ADDRESS]:PORT \
            for IPv6, or unix:PATH. Port 0 takes a free one, which is told.
            """)
    var listen: String

    func validate() throws {
        guard ListenAddress(listen) != nil else {
            throw ValidationError(
                "--listen is ADDRESS:PORT with a numeric address, localhost or *, or unix:PATH, "
                    + "not '\(listen)'.")
        }
    }

    func run() throws {
        try reporting("metrics") {
            guard let wanted = ListenAddress(listen) else { return }
            // Before anything listens: a directory that is none is an error of who starts this.
            _ = try page.report()
            let (listener, address) = try wanted.listen()
            // Before the thread is made, so that it has them blocked, too.
            var signals = sigset_t()
            sigemptyset(&signals)
            sigaddset(&signals, SIGINT)
            sigaddset(&signals, SIGTERM)
            pthread_sigmask(SIG_BLOCK, &signals, nil)
            signal(SIGPIPE, SIG_IGN)
            Output.error("hearth metrics: listening on \(address.description)\n")
            let directory = page
            let server = MetricsServer(listener: listener, clock: SystemClock()) {
                Self.answer(directory)
            }
            guard Self.start(server) else {
                throw Failure(ToolExit.failed, "the process may start no more threads")
            }
            var got: Int32 = 0
            sigwait(&signals, &got)
            if case .unix(let path) = address { unlink(path) }
        }
    }

    private static func answer(_ page: PageArguments) -> (status: Int, body: String) {
        do {
            return (200, try page.report().prometheus)
        } catch let error as StoreError {
            return (503, "\(error.subject): \(error.advice)\n")
        } catch {
            return (503, "\(error)\n")
        }
    }

    /// Serves on a thread of its own until the process ends.
    private static func start(_ server: MetricsServer) -> Bool {
        let reference = Unmanaged.passRetained(server)
        var thread = pthread_t()
        let failure = pthread_create(
            &thread, nil,
            { argument in
                guard let argument else { return nil }
                let server = Unmanaged<MetricsServer>.fromOpaque(argument).takeRetainedValue()
                while true { server.turn() }
            }, reference.toOpaque())
        if failure != 0 { reference.release() }
        return failure == 0
    }
}
