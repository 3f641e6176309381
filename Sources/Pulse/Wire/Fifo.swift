// SPDX-License-Identifier: MPL-2.0

/// A first-in first-out queue over one array.
struct Fifo<Element> {
    private var storage: [Element?] = []
    private var head = 0

    var count: Int { storage.count - head }
    var isEmpty: Bool { count == 0 }
    var first: Element? { isEmpty ? nil : storage[head] }

    mutating func append(_ element: Element) {
        storage.append(element)
    }

    mutating func popFirst() -> Element? {
        guard head < storage.count else { return nil }
        let element = storage[head].take()
        head += 1
        if head == storage.count {
            storage.removeAll(keepingCapacity: storage.count <= 4096)
            head = 0
        } else if head > 1024, head > storage.count / 2 {
            storage.removeFirst(head)
            head = 0
        }
        return element
    }

    mutating func removeAll(where shouldRemove: (Element) -> Bool) {
        let kept = storage[head...].filter { element in
            guard let element else { return false }
            return !shouldRemove(element)
        }
        storage = Array(kept)
        head = 0
    }

    func forEach(_ body: (Element) -> Void) {
        for case .some(let element) in storage[head...] { body(element) }
    }

    /// The element at a distance from the first one, which must exist.
    subscript(_ position: Int) -> Element {
        get {
            guard let element = storage[head + position] else { preconditionFailure("a queue has no holes") }
            return element
        }
        set { storage[head + position] = .some(newValue) }
    }
}
