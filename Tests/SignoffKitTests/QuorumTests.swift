// SPDX-License-Identifier: MPL-2.0

import JSON
import StepKit
import Testing

@testable import SignoffKit

/// The rule that decides when enough of the right people have signed.
struct QuorumTests {
    private func policy(_ definition: JSONValue) throws -> SignoffPolicy {
        try SignoffPolicy(["method": "local", "definition": definition])
    }

    private func signature(_ person: String, _ group: String?) -> Signature {
        Signature(subject: person, email: "\(person)@example.com", group: group)
    }

    @Test func `41: one of several conditions is enough, whatever the others lack`() throws {
        let policy = try policy([["releng": 1, "relman": 1], ["releng": 2]])
        let first = signature("a", "releng")
        let second = signature("b", "releng")
        #expect(Quorum(policy, [first]).needs(second))
        #expect(Quorum(policy, [first, second]).isMet)
        #expect(!Quorum(policy, [first]).isMet)
    }

    @Test func `45: somebody named by address fills that slot and not their group's as well`() throws {
        let policy = try policy([["a@example.com": 1, "relman": 1]])
        #expect(!Quorum(policy, [signature("a", "relman")]).isMet)
        #expect(Quorum(policy, [signature("a", "relman"), signature("b", "relman")]).isMet)
        #expect(!Quorum(policy, [signature("b", "relman"), signature("c", "relman")]).isMet)
    }

    @Test func `a group somebody does not belong to counts for nothing`() throws {
        let policy = try policy([["a@example.com": 1], ["releng": 1]])
        let named = Signature(subject: "a", email: "a@example.com", group: nil)
        #expect(Quorum(policy, [named]).isMet)
        let other = Signature(subject: "b", email: "b@example.com", group: nil)
        #expect(!Quorum(policy, [other]).needs(other))
    }

    @Test func `58: policies that mean nothing are refused, with everything that is wrong`() throws {
        let wrong: [JSONValue] = [
            ["method": "fake", "definition": [["releng": 1]]],
            ["method": "local", "definition": []],
            ["method": "local", "definition": [[:]]],
            ["method": "local", "definition": [["releng": 0]]],
            ["method": "local", "definition": [["releng": 21]]],
            ["method": "local", "definition": [["releng": 1.5]]],
            ["method": "local", "definition": [["a@example.com": 2]]],
            ["method": "local", "definition": "releng"],
            ["method": "local", "definition": [["releng": 1]], "colour": "red"],
            ["definition": [["releng": 1]]],
        ]
        for json in wrong {
            #expect(throws: StepProblem.self, "\(json)") { try SignoffPolicy(json) }
        }
        do {
            _ = try SignoffPolicy(["method": "fake", "definition": [["releng": 0], [:]]])
        } catch {
            #expect(error.members["errors"]?.array?.count == 3)
        }
        #expect(try SignoffPolicy(["method": "LOCAL", "definition": ["releng": 1]]).conditions.count == 1)
    }

    /// The best assignment of distinct signatures to slots, found by trying all of them.
    private func canFill(_ slots: [String], _ signatures: [Signature], _ condition: [SignoffPolicy.Slot]) -> Bool {
        guard let slot = slots.first else { return true }
        for (index, signature) in signatures.enumerated()
        where Quorum.slot(of: signature, in: condition) == slot {
            var rest = signatures
            rest.remove(at: index)
            if canFill(Array(slots.dropFirst()), rest, condition) { return true }
        }
        return false
    }

    @Test func `the quorum agrees with the best assignment of people to slots, in any order, and never shrinks`() throws
    {
        var random = SystemRandomNumberGenerator()
        let people = (0..<5).map { "p\($0)" }
        let groups = ["g", "h"]
        for _ in 0..<2000 {
            var conditions: [JSONValue] = []
            for _ in 0..<Int.random(in: 1...3, using: &random) {
                var condition: JSONObject = [:]
                for key in groups where Bool.random(using: &random) {
                    condition[key] = JSONValue(Int.random(in: 1...3, using: &random))
                }
                if let person = people.randomElement(using: &random), condition.isEmpty || Bool.random(using: &random) {
                    condition["\(person)@example.com"] = 1
                }
                conditions.append(.object(condition))
            }
            let policy = try policy(.array(conditions))
            let signers = people.shuffled(using: &random).prefix(Int.random(in: 0...5, using: &random))
            let signatures = signers.map { signature($0, groups.randomElement(using: &random)) }
            let quorum = Quorum(policy, signatures)
            let expected = policy.conditions.contains { condition in
                canFill(condition.flatMap { Array(repeating: $0.key, count: $0.count) }, signatures, condition)
            }
            #expect(quorum.isMet == expected, "\(policy.json) \(signatures)")
            #expect(Quorum(policy, signatures.shuffled(using: &random)).isMet == expected)
            // Signing twice changes nothing, and another signature never makes less of it.
            #expect(Quorum(policy, signatures + signatures).isMet == expected)
            let more = signatures + [signature("q", "g")]
            #expect(!expected || Quorum(policy, more).isMet)
            // A signature is refused only if it fills nothing anywhere.
            let before = quorum.missing.map { $0.reduce(0) { $0 + $1.count } }
            let after = Quorum(policy, more).missing.map { $0.reduce(0) { $0 + $1.count } }
            #expect(quorum.needs(signature("q", "g")) == zip(before, after).contains { $1 < $0 })
        }
    }
}
