// HTTPExchange: as much of HTTP/1.1 as a scraper needs: one request of bounded size, one answer,
// and the connection is over. Bytes in, bytes out, no sockets.

package enum HTTPExchange {
    /// The longest request, head and all, bytes.
    package static let mostBytes = 8192

    package enum Parsed: Equatable, Sendable {
        /// The head is not all there yet.
        case incomplete
        /// Refused with this status.
        case refused(Int)
        /// A GET, or a HEAD, which is answered without a body.
        case asked(path: String, headOnly: Bool)
    }

    /// What was received so far. Nothing that a client sends is trusted.
    package static func parse(_ bytes: [UInt8]) -> Parsed {
        guard let end = headEnd(bytes) else {
            return bytes.count >= mostBytes ? .refused(431) : .incomplete
        }
        guard end <= mostBytes else { return .refused(431) }
        let line = bytes.prefix { $0 != 0x0A && $0 != 0x0D }
        let words = line.split(separator: 0x20, omittingEmptySubsequences: false)
        guard words.count == 3, words.allSatisfy({ !$0.isEmpty }),
            line.allSatisfy({ $0 >= 0x20 && $0 < 0x7F }), words[2].starts(with: "HTTP/".utf8)
        else { return .refused(400) }
        guard words[2].starts(with: "HTTP/1.".utf8), words[2].count == 8 else {
            return .refused(505)
        }
        guard words[1].first == UInt8(ascii: "/") else { return .refused(400) }
        let isGet = words[0].elementsEqual("GET".utf8)
        let isHead = words[0].elementsEqual("HEAD".utf8)
        guard isGet || isHead else { return .refused(405) }
        let path = words[1].prefix { $0 != UInt8(ascii: "?") }
        return .asked(path: String(decoding: path, as: UTF8.self), headOnly: isHead)
    }

    /// Where the empty line behind the head ends. A bare line feed counts, as is usual.
    private static func headEnd(_ bytes: [UInt8]) -> Int? {
        var lineLength = 0
        for (place, byte) in bytes.enumerated() {
            if byte == 0x0A {
                if lineLength == 0 && place > 1 { return place + 1 }
                lineLength = 0
            } else if byte != 0x0D {
                lineLength += 1
            }
        }
        return nil
    }

    /// A whole answer that ends the connection.
    package static func answer(
        _ status: Int, _ body: String, type: String = "text/plain; charset=utf-8",
        headOnly: Bool = false
    ) -> [UInt8] {
        var text = "HTTP/1.1 \(status) \(reasons[status] ?? "Error")\r\n"
        text += "Content-Type: \(type)\r\nContent-Length: \(body.utf8.count)\r\n"
        if status == 405 { text += "Allow: GET, HEAD\r\n" }
        text += "Connection: close\r\n\r\n"
        return Array((headOnly ? text : text + body).utf8)
    }

    /// The answer to a refused request.
    package static func refusal(_ status: Int) -> [UInt8] {
        answer(status, (reasons[status] ?? "Error") + "\n")
    }

    private static let reasons = [
        200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed",
        408: "Request Timeout", 431: "Request Header Fields Too Large",
        503: "Service Unavailable", 505: "HTTP Version Not Supported",
    ]
}
