// Suggestion: the known word nearest to a wrong one, by edit distance with transpositions.

/// The number of insertions, deletions, replacements and swaps of neighbours between two words.
package func editDistance(_ first: String, _ second: String) -> Int {
    let a = Array(first.utf8)
    let b = Array(second.utf8)
    if a.isEmpty || b.isEmpty { return max(a.count, b.count) }
    var older = [Int](repeating: 0, count: b.count + 1)
    var previous = Array(0...b.count)
    for i in 1...a.count {
        var current = [i] + [Int](repeating: 0, count: b.count)
        for j in 1...b.count {
            let cost = a[i - 1] == b[j - 1] ? 0 : 1
            var best = min(previous[j] + 1, current[j - 1] + 1, previous[j - 1] + cost)
            if i > 1, j > 1, a[i - 1] == b[j - 2], a[i - 2] == b[j - 1] {
                best = min(best, older[j - 2] + 1)
            }
            current[j] = best
        }
        (older, previous) = (previous, current)
    }
    return previous[b.count]
}

/// The candidate nearest to `word`; a candidate that starts with it wins over an equally near one,
/// then the order of the candidates decides. `-` and `_` count as the same letter.
package func nearest(to word: String, among candidates: [String]) -> String? {
    func plain(_ text: String) -> String {
        String(decoding: text.utf8.map { $0 == 45 ? 95 : $0 }, as: UTF8.self).lowercased()
    }
    let wanted = plain(word)
    return candidates.enumerated().min { left, right in
        func rank(_ item: (offset: Int, element: String)) -> (Int, Int, Int) {
            let name = plain(item.element)
            let begins = name.hasPrefix(wanted) || wanted.hasPrefix(name)
            return (editDistance(wanted, name), begins ? 0 : 1, item.offset)
        }
        return rank(left) < rank(right)
    }?.element
}
