// SPDX-License-Identifier: MPL-2.0

import HooksKit
import JSON
import Outbox
import Postgres
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(8)))
struct SecretTests {
    private let name = HookName(group: "g", hook: "h")

    private func key(_ id: String, _ character: Character = "A") -> String {
        #"{"id":"\#(id)","algo":"aes-256","key":"\#(String(repeating: character, count: 43))="}"#
    }

    private func box(_ keys: String...) throws -> SecretBox {
        try SecretBox(configuration: "[\(keys.joined(separator: ","))]")
    }

    @Test func `the newest key encrypts and every key decrypts`() throws {
        let old = try box(key("old"))
        let both = try box(key("old"), key("new", "B"))
        let new = try box(key("new", "B"))
        #expect(try both.open(old.seal("secret", for: name), for: name) == "secret")
        #expect(try new.open(both.seal("secret", for: name), for: name) == "secret")
        #expect(throws: SecretBox.Failure.self) { try new.open(old.seal("secret", for: name), for: name) }
    }

    @Test func `a secret opens only for its own hook and only unchanged`() throws {
        let box = try box(key("k"))
        let sealed = try box.seal("secret", for: name)
        #expect(!sealed.contains("secret"))
        #expect(sealed != (try box.seal("secret", for: name)))
        #expect(throws: (any Error).self) { try box.open(sealed, for: HookName(group: "g", hook: "other")) }
        #expect(throws: (any Error).self) { try box.open(String(sealed.dropLast(4)) + "AAAA", for: name) }
        #expect(throws: SecretBox.Failure.self) { try box.open("no bar", for: name) }
    }

    @Test(
        arguments: [
            "", "{}", "[]", #"[{"id":"a"}]"#, #"[{"id":"a|b","algo":"aes-256","key":""}]"#,
            #"[{"id":"a","algo":"aes-256","key":"c2hvcnQ="}]"#,
        ]
    ) func `keys that cannot be used are refused without being repeated`(text: String) throws {
        let failure = #expect(throws: SecretBox.Failure.self) { try SecretBox(configuration: text) }
        #expect(failure?.description.contains("c2hvcnQ=") == false)
        let twice = #expect(throws: SecretBox.Failure.self) { try box(key("k"), key("k", "B")) }
        #expect(twice?.description == "key k is listed twice")
    }

    @Test func `after a rotation the old key is not needed any more, and tokens are what they were`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            var tokens: [JSONValue?] = []
            for index in 0..<5 {
                _ = try await world.call("PUT", "/hooks/g/h\(index)", HooksWorld.request())
                tokens.append(try await world.call("GET", "/hooks/g/h\(index)/token").body["token"])
            }
            func store(_ box: SecretBox) -> HookStore {
                HookStore(pool: world.pool, box: box, outbox: Outbox(schema: "hooks"), namespace: "taskcluster-hooks")
            }
            let newKey = key("new", "B")
            let rotating = store(try box(key("k"), newKey))
            async let first = rotating.rotateSecrets(batch: 2)
            async let second = rotating.rotateSecrets(batch: 2)
            let rotated = try await first + second
            #expect(rotated == 5)
            #expect(try await rotating.rotateSecrets() == 0)
            let rows = try await world.pool.query(
                "select hook_id, encrypted_trigger_token, encrypted_next_task_id from hooks.hooks order by hook_id"
            )
            let alone = try box(newKey)
            for (row, token) in zip(rows, tokens) {
                let name = HookName(group: "g", hook: try row.string("hook_id"))
                #expect(try alone.open(row.string("encrypted_trigger_token"), for: name) == token?.string)
                #expect(try alone.open(row.string("encrypted_next_task_id"), for: name).count == 22)
            }
        }
    }
}
