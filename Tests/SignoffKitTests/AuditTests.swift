// SPDX-License-Identifier: MPL-2.0

import APIServer
import JSON
import Postgres
import StepKit
import StepTestSupport
import Testing
import TestSupport

@testable import SignoffKit

/// Everything that changes something is in an audit, committed with what it says.
@Suite(.timeLimit(.minutes(15)))
struct AuditTests {
    /// The transactions that have written to an audit.
    private static func transactions(_ world: SignoffWorld) async throws -> Set<String> {
        let rows = try await world.pool.query(
            "select xmin::text as id from shipit_signoff.events union select xmin::text from shipit_people.revocations"
        )
        return Set(try rows.map { try $0.string("id") })
    }

    @Test func `whatever changes sign-offs is in an audit, in the transaction that has changed them`() async throws {
        try await SignoffWorld.with { world in
            let person = try world.bearer("releng1")
            let group: JSONValue = ["group": "releng"]
            let because: JSONValue = ["reason": "a mistake"]
            let policy: JSONObject = ["method": "local", "definition": ["releng": 2], "allow_reject": true]
            let step: JSONValue = ["policy": .object(policy), "parameters": [:]]
            let steps = "shipit_signoff.steps"
            let signatures = "shipit_signoff.signatures"
            let people = "shipit_people.revocations"
            let client = StepServers.client
            var seen: Set<String> = []
            for base in ["", "/step"] {
                let suffix = base.isEmpty ? "" : "Alias"
                let uid = "\(base)/audit\(suffix)"
                var calls:
                    [(name: String, method: String, path: String, body: JSONValue?, who: String, table: String)] = [
                        ("create\(suffix)", "PUT", uid, step, client, steps),
                        ("sign\(suffix)", "PUT", "\(uid)/sign", group, person, signatures),
                        ("unsign\(suffix)", "DELETE", "\(uid)/sign", group, person, signatures),
                        ("sign\(suffix)", "PUT", "\(uid)/sign", group, person, signatures),
                        (
                            "revoke\(suffix)", "POST", "\(uid)/signatures/\(base.isEmpty ? 2 : 4)/revoke", because,
                            client,
                            signatures
                        ),
                        (
                            "reject\(suffix)", "POST", "\(uid)/reject", ["group": "releng", "reason": "no"], person,
                            steps
                        ),
                        ("delete\(suffix)", "DELETE", uid, nil, client, steps),
                        ("create\(suffix)", "PUT", "\(uid)-2", step, client, steps),
                        ("cancel\(suffix)", "POST", "\(uid)-2/cancel", nil, client, steps),
                    ]
                if !base.isEmpty {
                    let revocation: JSONValue = ["sub": "nobody", "reason": "left"]
                    calls.append(("revocations", "POST", "/admin/revocations", revocation, client, people))
                }
                for call in calls {
                    let before = try await Self.transactions(world)
                    let answer = try await world.call(call.method, call.path, call.body, as: call.who)
                    #expect((200..<300).contains(answer.status), "\(call.name): \(answer.status) \(answer.body)")
                    let written = Array(try await Self.transactions(world).subtracting(before))
                    let rows = try await world.pool.query(
                        "select 1 from \(unsafe: call.table) where xmin::text = any(\(written)) limit 1"
                    )
                    #expect(!rows.isEmpty, "\(call.name) was not written down with what it has changed")
                    seen.insert(call.name)
                }
            }
            let api = SignoffAPI(
                service: world.service,
                tokens: TokenVerifier(
                    rules: TokenRules(issuer: "", audience: ""),
                    keysURL: "",
                    transport: world.keys
                ),
                isPublic: false
            )
            let all = api.api(schemas: try SchemaStore.locate()).endpoints
                .filter { $0.method != .get && $0.method != .head }
                .map(\.name)
            // To check a policy changes nothing.
            #expect(Set(all).symmetricDifference(seen) == ["validatePolicy"])
        }
    }
}
