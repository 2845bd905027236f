// ReplacementKind: the replacement policies that staging can be opened with. `adaptive` is the
// default of the product; the others are for comparison.

package enum ReplacementKind: String, CaseIterable, Sendable {
    case lru
}
