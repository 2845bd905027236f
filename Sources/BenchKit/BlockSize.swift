// BlockSize: how many tokens a block has, which a trace does not tell, from the tokens and blocks
// of its requests. Either what is left of a prompt is a block that is less than full, so that n
// blocks have more than n - 1 blocks' tokens and at most n's; or it is no block, and they have n
// blocks' tokens at least and less than n + 1's. A trace of which requests contradict both is taken
// to be as its widest request says. Sizes are sixteens.

struct BlockSize {
    /// The most and least tokens a block of any request; the least for a block less in the request,
    /// and the most for one more.
    private var most = 0.0
    private var least = Double.infinity
    private var leastButOne = Double.infinity
    private var mostAndOne = 0.0
    private var widest = (blocks: 0, tokens: 0)

    mutating func observe(tokens: Int, blocks: Int) {
        guard tokens > 0, blocks > 0 else { return }
        let (all, count) = (Double(tokens), Double(blocks))
        most = max(most, all / count)
        least = min(least, all / count)
        if blocks > 1 { leastButOne = min(leastButOne, all / (count - 1)) }
        mostAndOne = max(mostAndOne, all / (count + 1))
        if blocks > widest.blocks { widest = (blocks, tokens) }
    }

    /// 0 for a trace that tells no tokens.
    var tokens: Int {
        guard widest.blocks > 0 else { return 0 }
        let withRest = (most / 16).rounded(.up) * 16
        if withRest < leastButOne { return Int(withRest) }
        let withoutRest = (least / 16).rounded(.down) * 16
        if withoutRest > mostAndOne { return Int(withoutRest) }
        let nearest = (Double(widest.tokens) / Double(widest.blocks) / 16).rounded()
        return 16 * max(1, Int(nearest))
    }
}
