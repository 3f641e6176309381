// SPDX-License-Identifier: MPL-2.0

/// Why a chain cannot be trusted, or could not be looked at.
public struct ChainProblem: Error, Sendable, Hashable, CustomStringConvertible {
    /// What it makes of the task.
    public let code: ResolutionCode
    /// One line per complaint.
    public let lines: [String]

    /// All complaints.
    public var description: String { lines.joined(separator: "\n") }

    /// Something about the chain is not as it should be.
    init(_ line: String) {
        self.init([line], code: .malformedPayload)
    }

    /// Something needed for looking at the chain could not be reached.
    static func unreachable(_ line: String) -> ChainProblem {
        ChainProblem([line], code: .resourceUnavailable)
    }

    init(_ lines: [String], code: ResolutionCode) {
        self.lines = lines
        self.code = code
    }

    /// Several complaints as one; a broken chain outweighs an unreachable server.
    init?(merging problems: [ChainProblem]) {
        guard !problems.isEmpty else { return nil }
        let isBroken = problems.contains { $0.code == .malformedPayload }
        let code = isBroken ? .malformedPayload : problems.map(\.code).max() ?? .malformedPayload
        var lines: [String] = []
        for line in problems.flatMap(\.lines) where !lines.contains(line) { lines.append(line) }
        self.init(lines, code: code)
    }
}

/// Collects complaints, so that one look tells all of them.
struct ChainComplaints {
    private(set) var problems: [ChainProblem] = []

    mutating func add(_ line: String) { problems.append(ChainProblem(line)) }

    mutating func collect(_ check: () throws(ChainProblem) -> Void) {
        do throws(ChainProblem) {
            try check()
        } catch {
            problems.append(error)
        }
    }

    func end() throws(ChainProblem) {
        if let merged = ChainProblem(merging: problems) { throw merged }
    }
}
