// PageTable: the bytes of a simulated file, held sparsely as references to immutable 4 KiB pages.
//
// A page is never changed once it is in a table: writing puts in a new one. So a durable view, a
// current view and any number of forked machines share what they have in common, and a fork costs
// a few references. A page that is not there reads as zeros.

import Glibc

package enum SimulatedPage {
    package static let bytes = 4096
    package static let sectorBytes = 512
    /// Offsets at and above it are refused with EFBIG: a table grows with the highest page.
    package static let maximumFileBytes = 1 << 40
}

/// The memory of some pages that were written together; immutable once in a table.
package final class Extent {
    let bytes: UnsafeMutableRawPointer
    let pages: Int

    init(pages: Int) {
        self.pages = pages
        bytes = .allocate(byteCount: max(1, pages) * SimulatedPage.bytes, alignment: 64)
    }

    deinit { bytes.deallocate() }

    /// A new extent with the bytes of `count` pages of this one.
    func copy(from start: Int, count: Int) -> Extent {
        let fresh = Extent(pages: count)
        fresh.bytes.copyMemory(
            from: bytes + start * SimulatedPage.bytes, byteCount: count * SimulatedPage.bytes)
        return fresh
    }
}

/// One page of an extent, or zeros.
struct PageReference {
    var extent: Extent?
    var index: Int

    static var zeros: PageReference { PageReference(extent: nil, index: 0) }

    @inline(__always)
    var address: UnsafeMutableRawPointer? {
        extent.map { $0.bytes + index * SimulatedPage.bytes }
    }

    static func == (left: PageReference, right: PageReference) -> Bool {
        left.extent === right.extent && (left.extent == nil || left.index == right.index)
    }
}

/// A run of a table's pages: the unit of copy on write.
final class PageNode {
    static let pages = 64
    let slots: UnsafeMutablePointer<PageReference>

    init() {
        slots = .allocate(capacity: Self.pages)
        slots.initialize(repeating: .zeros, count: Self.pages)
    }

    init(copying other: PageNode) {
        slots = .allocate(capacity: Self.pages)
        slots.initialize(from: other.slots, count: Self.pages)
    }

    deinit {
        slots.deinitialize(count: Self.pages)
        slots.deallocate()
    }
}

/// Maps page numbers to pages; a value, copied by reference until it is changed.
struct PageTable {
    private var nodes: ContiguousArray<PageNode?> = []

    subscript(page: Int) -> PageReference {
        let index = page / PageNode.pages
        guard index < nodes.count, let node = nodes[index] else { return .zeros }
        return node.slots[page % PageNode.pages]
    }

    /// Puts `count` pages of `extent` from its page `start` at page `first`; nil clears them.
    mutating func put(_ first: Int, _ extent: Extent?, from start: Int, count: Int) {
        var done = 0
        while done < count {
            let page = first + done
            let inNode = page % PageNode.pages
            let run = min(count - done, PageNode.pages - inNode)
            if let slots = writable(page / PageNode.pages, creating: extent != nil) {
                for step in 0..<run {
                    slots[inNode + step] = PageReference(
                        extent: extent, index: extent == nil ? 0 : start + done + step)
                }
            }
            done += run
        }
    }

    mutating func put(_ page: Int, _ reference: PageReference) {
        put(page, reference.extent, from: reference.index, count: 1)
    }

    /// Copies `count` pages from page `first` into memory.
    func read(_ first: Int, count: Int, into memory: UnsafeMutableRawPointer) {
        var done = 0
        while done < count {
            let page = first + done
            let index = page / PageNode.pages
            let inNode = page % PageNode.pages
            let run = min(count - done, PageNode.pages - inNode)
            let target = memory + done * SimulatedPage.bytes
            if index < nodes.count, let node = nodes[index] {
                for step in 0..<run {
                    let place = target + step * SimulatedPage.bytes
                    if let address = node.slots[inNode + step].address {
                        memcpy(place, address, SimulatedPage.bytes)
                    } else {
                        memset(place, 0, SimulatedPage.bytes)
                    }
                }
            } else {
                memset(target, 0, run * SimulatedPage.bytes)
            }
            done += run
        }
    }

    /// How many pages hold memory: what the sparse file costs.
    var storedPages: Int {
        var count = 0
        for case let node? in nodes {
            for slot in 0..<PageNode.pages where node.slots[slot].extent != nil { count += 1 }
        }
        return count
    }

    private mutating func writable(
        _ index: Int, creating: Bool
    ) -> UnsafeMutablePointer<PageReference>? {
        if index >= nodes.count {
            guard creating else { return nil }
            nodes.append(contentsOf: repeatElement(nil, count: index + 1 - nodes.count))
        }
        if nodes[index] == nil {
            guard creating else { return nil }
            nodes[index] = PageNode()
        } else if !isKnownUniquelyReferenced(&nodes[index]), let shared = nodes[index] {
            nodes[index] = PageNode(copying: shared)
        }
        return nodes[index]?.slots
    }
}
