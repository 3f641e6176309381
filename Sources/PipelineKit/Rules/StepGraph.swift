// SPDX-License-Identifier: MPL-2.0

/// Which steps wait for which.
struct StepGraph: Sendable {
    private let names: [String]
    private let requires: [String: [String]]

    init(_ steps: [StepSpecification]) {
        names = steps.map(\.uid)
        let known = Set(names)
        requires = Dictionary(
            steps.map { step in (step.uid, step.requires.filter { known.contains($0) }) }
        ) { first, _ in first }
    }

    /// Whether there is a step of that name.
    func contains(_ name: String) -> Bool { requires[name] != nil }

    /// The steps in waves, each of which waits for those before it alone; steps of a cycle are in none.
    var waves: [[String]] {
        var left = names
        var done: Set<String> = []
        var waves: [[String]] = []
        while true {
            let wave = left.filter { name in requires[name, default: []].allSatisfy { done.contains($0) } }
            guard !wave.isEmpty else { return waves }
            done.formUnion(wave)
            left.removeAll { done.contains($0) }
            waves.append(wave)
        }
    }

    /// The shortest way from a step back to itself, both ends named; nil if there is none.
    var cycle: [String]? {
        let done = Set(waves.joined())
        let left = names.filter { !done.contains($0) }
        var shortest: [String]?
        for start in left.prefix(500) {
            guard let found = way(from: start, within: Set(left)), found.count < shortest?.count ?? .max else {
                continue
            }
            shortest = found
            if found.count == 3 { break }
        }
        return shortest
    }

    private func way(from start: String, within allowed: Set<String>) -> [String]? {
        var before: [String: String] = [:]
        var queue = [start]
        var next = 0
        while next < queue.count {
            let name = queue[next]
            next += 1
            for other in requires[name, default: []] where allowed.contains(other) {
                if other == start {
                    var path = [start]
                    var step: String? = name
                    while let current = step, current != start {
                        path.append(current)
                        step = before[current]
                    }
                    return path + [start]
                }
                if before[other] == nil {
                    before[other] = name
                    queue.append(other)
                }
            }
        }
        return nil
    }

    /// Everything a step waits for, directly or through others.
    func ancestors(of name: String) -> Set<String> {
        var found: Set<String> = []
        var queue = requires[name, default: []]
        while let next = queue.popLast() {
            if found.insert(next).inserted { queue += requires[next, default: []] }
        }
        return found
    }

    /// Everything that waits for one of some steps, directly or through others.
    func descendants(of roots: Set<String>) -> Set<String> {
        var found: Set<String> = []
        var hasGrown = true
        while hasGrown {
            hasGrown = false
            for name in names where !found.contains(name) {
                if requires[name, default: []].contains(where: { roots.contains($0) || found.contains($0) }) {
                    found.insert(name)
                    hasGrown = true
                }
            }
        }
        return found
    }

    /// The longest chain of steps that wait for each other.
    var criticalPath: [String] {
        var best: [String: [String]] = [:]
        for name in waves.joined() {
            let longest = requires[name, default: []].compactMap { best[$0] }.max { $0.count < $1.count } ?? []
            best[name] = longest + [name]
        }
        return best.values.max { ($0.count, $1.last ?? "") < ($1.count, $0.last ?? "") } ?? []
    }
}
