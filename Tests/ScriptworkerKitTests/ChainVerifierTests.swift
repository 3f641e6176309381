// SPDX-License-Identifier: MPL-2.0

import Crypto
import HTTPClient
import JSON
import Schedules
import Taskcluster
import Testing
import WorkerKit

@testable import ScriptworkerKit

@Suite(.timeLimit(.minutes(5))) struct ChainVerifierTests {
    private let graph: ReleaseGraph

    init() throws {
        graph = try ReleaseGraph()
    }

    private func good() throws {
        graph.announce()
        try graph.attest()
    }

    private func refusal(
        _ change: (inout ChainPolicy) -> Void = { _ in },
        head: String? = nil
    ) async throws -> (code: Int32, text: String) {
        do {
            try await graph.verify(change, head: head)
        } catch let problem as ChainProblem {
            return (problem.code.number, problem.description)
        }
        return (0, "")
    }

    @Test func `S58: a valid chain is good and brings the inputs`() async throws {
        try good()
        let chain = try await graph.verify()
        #expect(Set(chain.links.map(\.taskID)) == [graph.decision, graph.image, graph.build])
        #expect(graph.hasInput(graph.build, "public/build/a.zip"))
        #expect(graph.hasInput(graph.build, "task.json"))
        #expect(graph.lines.withLock { $0.last } == "INFO Good.")
    }

    @Test func `what the queue hands out together is fetched with few requests`() async throws {
        try good()
        graph.state.withLock { $0.isGenerous = true }
        try await graph.verify()
        #expect(graph.hasInput(graph.build, "public/build/a.zip"))
        let requests = graph.state.withLock { $0.requests }
        #expect(requests.filter { $0.contains("/artifacts/public") } == [])
        #expect(requests.filter { $0.hasSuffix("/artifacts/read") }.count <= 3)
    }

    @Test(arguments: ["input", "statement", "signature", "packed", "garbage", "place"])
    func `what came together is checked like everything else`(_ what: String) async throws {
        try good()
        graph.state.withLock { $0.isGenerous = true }
        let (name, signature) = (ChainOfTrustArtifact.name, ChainOfTrustArtifact.signatureName)
        let gzip: HTTPHeaders = ["Content-Encoding": "gzip"]
        func content(_ name: String) -> [UInt8] {
            graph.state.withLock { $0.artifacts[graph.build]?[name]?.content ?? [] }
        }
        var change: (inout ChainPolicy) -> Void = { _ in }
        switch what {
        case "input": graph.artifact(graph.build, "public/build/a.zip", Array("the Product".utf8))
        case "statement": graph.artifact(graph.build, name, content(name) + [10])
        case "signature": graph.artifact(graph.build, signature, Array(content(signature).prefix(63)))
        case "packed": graph.artifact(graph.build, name, try packed(content(name)), headers: gzip)
        case "garbage": graph.artifact(graph.build, name, content(name), headers: gzip)
        default: change = { $0.artifactRules = [] }
        }
        let refused = try await refusal(change)
        #expect((refused.code == 0) == (what == "packed"), "\(refused.text)")
        #expect(graph.hasInput(graph.build, "public/build/a.zip") == (what == "packed"))
    }

    private func packed(_ bytes: [UInt8]) throws -> [UInt8] {
        let (plain, packed) = (try OpenFile.temporary(in: "/tmp"), try OpenFile.temporary(in: "/tmp"))
        try bytes.withUnsafeBytes { try plain.write($0) }
        try Gzip.compress(plain, to: packed)
        var result: [UInt8] = []
        try packed.forEachPiece { result += $0 }
        return result
    }

    @Test(arguments: [true, false])
    func `S60: a changed input is refused and never appears`(_ isCut: Bool) async throws {
        try good()
        graph.artifact(graph.build, "public/build/a.zip", Array((isCut ? "the produc" : "the Product").utf8))
        let refused = try await refusal()
        #expect(refused.code == 3)
        #expect(refused.text.contains("sha256"))
        #expect(!graph.hasInput(graph.build, "public/build/a.zip"))
    }

    @Test(arguments: [true, false])
    func `S61: a changed optional input is refused, or left out by those who insist`(_ isStrict: Bool) async throws {
        graph.change(graph.sign) { $0["payload"]?["upstreamArtifacts"] = [self.upstream(["public/build/a.zip"], true)] }
        try good()
        graph.artifact(graph.build, "public/build/a.zip", Array("the Product".utf8))
        #expect(try await refusal { $0.isStrict = isStrict }.code == (isStrict ? 3 : 0))
        #expect(!graph.hasInput(graph.build, "public/build/a.zip"))
    }

    private func upstream(_ paths: [String], _ isOptional: Bool = false) -> JSONValue {
        [
            "taskId": .string(graph.build), "taskType": "build", "paths": .init(paths), "formats": [],
            "optional": .init(isOptional),
        ]
    }

    @Test(arguments: [true, false])
    func `S62: a missing input matters unless it is optional`(_ isOptional: Bool) async throws {
        let inputs: JSONValue = [upstream(["public/build/a.zip"], isOptional)]
        graph.change(graph.sign) { $0["payload"]?["upstreamArtifacts"] = inputs }
        try good()
        graph.remove(graph.build, "public/build/a.zip")
        #expect(try await refusal().code == (isOptional ? 0 : 3))
    }

    @Test func `S63: one more byte in a statement breaks its signature`() async throws {
        try good()
        let text = graph.state.withLock { $0.artifacts[graph.build]?[ChainOfTrustArtifact.name]?.content ?? [] }
        graph.artifact(graph.build, ChainOfTrustArtifact.name, text + [10])
        #expect(try await refusal().code == 3)
        #expect(try await refusal { $0.checksSignatures = false }.code == 0)
    }

    @Test func `S64: a key counts only for the workers it is listed for`() async throws {
        graph.announce()
        try graph.attest(key: [graph.build: #require(graph.keys["generic-worker"])])
        let refused = try await refusal()
        #expect(refused.code == 3)
        #expect(refused.text.contains("no key of docker-worker"))
        let tried = try #require(graph.policy.keys["docker-worker"]?.first?.text)
        #expect(refused.text.contains(tried))
    }

    @Test func `S65: an old and a new key are good side by side`() async throws {
        graph.announce()
        let old = Curve25519.Signing.PrivateKey()
        try graph.attest(key: [graph.build: old])
        let text = Base64.encoded(Array(old.publicKey.rawRepresentation))
        let key = try #require(ChainPolicy.Key(text))
        #expect(try await refusal { $0.keys["docker-worker"]?.append(key) }.code == 0)
    }

    @Test(arguments: [(63, false, 3), (0, false, 3), (64, true, 0), (-1, false, 3)])
    func `S66: a signature is 64 bytes, however it travels`(_ size: Int, _ isPacked: Bool, _ code: Int32) async throws {
        try good()
        let name = ChainOfTrustArtifact.signatureName
        let signature = graph.state.withLock { $0.artifacts[graph.build]?[name]?.content ?? [] }
        if size < 0 {
            graph.remove(graph.build, name)
        } else if isPacked {
            graph.artifact(graph.build, name, try packed(signature), headers: ["Content-Encoding": "gzip"])
        } else {
            graph.artifact(graph.build, name, Array(signature.prefix(size)))
        }
        #expect(try await refusal().code == code)
    }

    @Test(arguments: ["taskId", "runId", "task", "artifacts", "md5", "version"])
    func `S67: a statement about something else is refused, however well signed`(_ what: String) async throws {
        graph.announce()
        try graph.attest()
        try graph.attest([graph.build]) { statement in
            switch what {
            case "taskId": statement["taskId"] = .string(graph.image)
            case "runId": statement["runId"] = 7
            case "task": statement["task"]?["payload"]?["maxRunTime"] = 61
            case "artifacts": statement["artifacts"]?["public/build/a.zip"] = [:]
            case "md5": statement["artifacts"]?["public/build/a.zip"] = ["md5": "d41d8cd98f00b204e9800998ecf8427e"]
            default: statement["chainOfTrustVersion"] = 2
            }
        }
        #expect(try await refusal().code == 3)
    }

    @Test func `S68: an input that nobody states has a hint`() async throws {
        try good()
        try graph.attest([graph.build]) { $0["artifacts"] = [:] }
        let refused = try await refusal()
        #expect(refused.code == 3)
        #expect(refused.text.contains("without having made that file"))
    }

    @Test(
        arguments: [
            ("scope", 3), ("payload", 3), ("dependency", 3), ("decision", 0), ("priority", 0), ("expires", 0),
        ] as [(String, Int32)]
    )
    func `S69: what a task may and may not differ in from its announcement`(_ what: String, _ code: Int32) async throws
    {
        try good()
        graph.change(graph.sign) { task in
            switch what {
            case "scope": task["scopes"] = ["queue:create-task:*"]
            case "payload": task["payload"]?["maxRunTime"] = 61
            case "dependency": task["dependencies"] = [.string(self.graph.image)]
            case "decision": task["dependencies"] = [.string(self.graph.build), .string(self.graph.decision)]
            case "priority": task["priority"] = "high"
            default: task["expires"] = "2026-03-05T10:00:00.000Z"
            }
        }
        #expect(try await refusal().code == code)
    }

    @Test(arguments: [("command", 3), ("pool", 3), ("tasks_for", 3), ("unreachable", 4)] as [(String, Int32)])
    func `S70: a decision task is what its tree defines`(_ what: String, _ code: Int32) async throws {
        graph.change(graph.decision) { task in
            switch what {
            case "command": task["payload"]?["command"] = ["curl", "evil.example.com"]
            case "pool": task["workerType"] = "else"
            case "tasks_for": task["extra"]?["tasks_for"] = "hg-push"
            default: break
            }
        }
        if what == "unreachable" {
            let url = "https://api.github.com/repos/acme/product/contents/.taskcluster.yml?ref=\(ReleaseGraph.revision)"
            graph.page(url, [:], status: 503)
        }
        try good()
        let refused = try await refusal()
        #expect(refused.code == code)
        if what == "command" { #expect(refused.text.contains("change payload.command")) }
    }

    @Test func `S71: relative dates of an announcement count from the task's creation`() async throws {
        graph.change(graph.build) {
            $0["payload"]?["artifacts"] = ["public/build": ["expires": ["relative-datestamp": "1 day"]]]
        }
        graph.announce()
        graph.change(graph.build) {
            $0["payload"]?["artifacts"] = ["public/build": ["expires": "2026-03-02T10:00:00.000Z"]]
        }
        try graph.attest()
        #expect(try await refusal().code == 0)
        graph.change(graph.build) {
            $0["payload"]?["artifacts"] = ["public/build": ["expires": "2026-03-03T10:00:00.000Z"]]
        }
        try graph.attest()
        #expect(try await refusal().code == 3)
    }

    @Test(arguments: ["hash", "inputs", "prebuilt", "indexed"])
    func `S72: an image is one that the chain made, or one that may be used`(_ what: String) async throws {
        graph.change(graph.build) { task in
            switch what {
            case "inputs":
                task["payload"]?["image"]?["taskId"] = .string(Slugid.make())
            case "prebuilt":
                task["payload"]?["image"] = "ubuntu@sha256:00"
            case "indexed":
                task["payload"]?["image"] = ["type": "indexed-image", "namespace": "n", "path": "p"]
            default: break
            }
        }
        if what == "indexed" { graph.change(graph.sign) { $0["scopes"] = ["project:acme:cert:release"] } }
        graph.announce()
        try graph.attest()
        if what == "hash" {
            try graph.attest([graph.build]) {
                $0["environment"]?["imageArtifactHash"] = .string("sha256:\(ReleaseGraph.digest([1]))")
            }
        }
        #expect(try await refusal { if what == "indexed" { $0.prebuiltImageTypes = nil } }.code == 3)
    }

    @Test(arguments: ["features", "env", "rdp", "scope"])
    func `S73: nobody may have had a hand in a task while it ran`(_ what: String) async throws {
        let other = Slugid.make()
        graph.add(other, "acme-3/win", ["mounts": [], "maxRunTime": 60])
        graph.change(graph.sign) { task in
            task["payload"]?["upstreamArtifacts"] = [
                ["taskId": .string(other), "taskType": "build", "paths": [], "formats": []],
                self.upstream(["public/build/a.zip"]),
            ]
        }
        graph.change(what == "rdp" || what == "scope" ? other : graph.build) { task in
            switch what {
            case "features": task["payload"]?["features"] = ["interactive": true]
            case "env": task["payload"]?["env"] = ["TASKCLUSTER_INTERACTIVE": "true"]
            case "rdp": task["payload"]?["rdpInfo"] = "login-identity/rdp.json"
            default: task["scopes"] = ["generic-worker:allow-rdp:acme-3/win"]
            }
        }
        try good()
        let refused = try await refusal()
        #expect(refused.code == 3)
        #expect(refused.text.contains("interactive"))
    }

    @Test(
        arguments: [
            ("listed", "project:acme:cert:release", 0), ("unlisted", "project:acme:cert:release", 3),
            ("fork", "project:acme:push:x", 3), ("fork", "project:acme:harmless", 0),
            ("pending", "project:acme:cert:release", 3),
        ] as [(String, String, Int32)]
    )
    func `S74: a restricted scope is for landed commits of listed trees`(
        _ origin: String,
        _ scope: String,
        _ code: Int32
    ) async throws {
        graph.change(graph.sign) { $0["scopes"] = [.string(scope)] }
        try good()
        if origin == "pending" {
            let page = "\(ReleaseGraph.repository)/branch_commits/\(ReleaseGraph.revision)"
            graph.state.withLock { $0.pages[page]?.body = Array("\n \n".utf8) }
        }
        let refused = try await refusal { policy in
            if origin == "unlisted" { policy.restrictedTrees["product-trees"] = ["/acme/glean"] }
            if origin == "fork" { policy.officialOwners = ["somebody"] }
        }
        #expect(refused.code == code)
    }

    @Test(arguments: ["/acme/product/../evil", "/acme/product%2f..%2fevil", "/acme/productXgit", "user@"])
    func `S75: a source that only looks like a trusted one is not`(_ path: String) async throws {
        let tail = "/raw/\(ReleaseGraph.revision)/x"
        let source = path == "user@" ? "https://user@github.com/acme/product" : "https://github.com\(path)"
        graph.change(graph.sign) { task in
            task["scopes"] = ["project:acme:cert:release"]
            task["metadata"]?["source"] = .string(source + tail)
        }
        try good()
        #expect(try await refusal().code == 3)
    }

    @Test func `S76: a chain has a depth, and going in circles ends`() async throws {
        let (first, second) = (Slugid.make(), Slugid.make())
        for (task, other) in [(first, second), (second, first)] {
            graph.add(
                task,
                "acme-3/build",
                ["mounts": []],
                extra: ["chainOfTrust": ["inputs": ["build": .string(other)]]]
            )
        }
        graph.change(graph.sign) { $0["extra"] = ["chainOfTrust": ["inputs": ["build": .string(first)]]] }
        try good()
        #expect(try await graph.verify().links.count == 5)
        #expect(try await refusal { $0.longestChain = 1 }.text.contains("deep"))
    }

    @Test(arguments: [(20, 0), (21, 3)] as [(Int, Int32)])
    func `S76: a chain may be nested twenty deep and no deeper`(_ depth: Int, _ code: Int32) async throws {
        let tasks = (0..<depth).map { _ in Slugid.make() }
        for (index, task) in tasks.enumerated() {
            let next: JSONValue =
                index + 1 < depth ? ["chainOfTrust": ["inputs": ["build": .string(tasks[index + 1])]]] : [:]
            graph.add(task, "acme-3/build", ["mounts": []], extra: next)
        }
        graph.change(graph.sign) { $0["extra"] = ["chainOfTrust": ["inputs": ["build": .string(tasks[0])]]] }
        try good()
        let refused = try await refusal()
        #expect(refused.code == code)
        if code == 3 { #expect(refused.text.contains("deep")) }
    }

    @Test func `S80: a name that leads out of the directory is not taken from a listing`() async throws {
        let names = ["public/../../../evil.zip", "public/%2e%2e/evil.zip", "/etc/evil.zip", "public//evil.zip"]
        for name in names { graph.artifact(graph.build, name, [1]) }
        graph.change(graph.sign) { $0["payload"]?["upstreamArtifacts"] = [self.upstream(["*.zip"], true)] }
        graph.announce()
        try graph.attest(nil) { statement in
            for name in names { statement["artifacts"]?[name] = nil }
        }
        #expect(try await refusal().code == 0)
        #expect(graph.hasInput(graph.build, "public/build/a.zip"))
        let asked = graph.state.withLock { $0.requests.filter { $0.contains("evil") } }
        #expect(asked.isEmpty)
    }

    @Test func `S76: five hundred links are verified`() async throws {
        var inputs = JSONObject()
        for index in 0..<500 {
            let task = Slugid.make()
            graph.add(task, "acme-3/build", ["mounts": []])
            inputs["build\(index)"] = .string(task)
        }
        let wanted = inputs
        graph.change(graph.sign) { $0["extra"] = ["chainOfTrust": ["inputs": .object(wanted)]] }
        try good()
        let chain = try await graph.verify { policy in
            for (name, _) in wanted { policy.kinds[name] = TaskKind(name: name, checks: .build) }
        }
        #expect(chain.links.count == 503)
    }

    @Test(arguments: ["wibble", "extra", "payload"])
    func `S77: what cannot be classified is refused`(_ what: String) async throws {
        try good()
        if what == "wibble" {
            var input = upstream(["public/build/a.zip"])
            input["taskType"] = "wibble"
            graph.change(graph.sign) { $0["payload"]?["upstreamArtifacts"] = [input] }
        } else {
            graph.change(graph.build) { task in
                var object = task.object ?? [:]
                object.removeValue(forKey: what)
                task = .object(object)
            }
        }
        #expect(try await refusal().code == 3)
    }

    @Test(arguments: [("cut", 4), ("tail", 0), ("xz", 0)] as [(String, Int32)])
    func `S78: an encoding is undone when it is one, and has to be complete`(_ what: String, _ code: Int32) async throws
    {
        let content = Array("the product".utf8)
        try good()
        let (plain, packed) = (try OpenFile.temporary(in: "/tmp"), try OpenFile.temporary(in: "/tmp"))
        try content.withUnsafeBytes { try plain.write($0) }
        try Gzip.compress(plain, to: packed)
        var bytes: [UInt8] = []
        try packed.forEachPiece { bytes += $0 }
        switch what {
        case "cut": bytes.removeLast(6)
        case "tail": bytes += Array("2026 INFO later\n".utf8)
        default: bytes = content
        }
        let encoding = what == "xz" ? "xz" : "gzip"
        graph.artifact(graph.build, "public/build/a.zip", bytes, headers: ["Content-Encoding": encoding])
        #expect(try await refusal().code == code)
    }

    @Test func `S80: a pattern is matched against every page, and what nobody states is skipped`() async throws {
        for index in 0..<2500 {
            graph.artifact(graph.build, "public/build/f\(index).zip", [UInt8(truncatingIfNeeded: index)])
        }
        graph.change(graph.sign) { $0["payload"]?["upstreamArtifacts"] = [self.upstream(["public/*"], true)] }
        try good()
        graph.artifact(graph.build, "public/logs/live_backing.log", [1])
        #expect(try await refusal().code == 0)
        #expect((0..<2500).allSatisfy { graph.hasInput(graph.build, "public/build/f\($0).zip") })
        #expect(!graph.hasInput(graph.build, "public/logs/live_backing.log"))
        #expect(graph.lines.withLock { $0.contains { $0.contains("live_backing.log") && $0.hasPrefix("WARNING") } })
    }

    @Test func `S81: artifacts come from places that the rules list`() async throws {
        try good()
        let refused = try await refusal { policy in policy.artifactRules = [] }
        #expect(refused.code == 3)
        #expect(refused.text.contains("no rule"))
    }

    @Test func `S89: neither tokens nor signed addresses are logged`() async throws {
        graph.change(graph.sign) { $0["payload"]?["upstreamArtifacts"] = [self.upstream(["private/a.zip"])] }
        graph.artifact(graph.build, "private/a.zip", [1, 2, 3])
        try good()
        #expect(try await refusal { $0.githubToken = "token-for-github" }.code == 0)
        #expect(graph.state.withLock { $0.requests.contains { $0.contains("bewit=") } })
        let text = graph.lines.withLock { $0.joined(separator: "\n") }
        for secret in ["bewit=", "secret-of-the-worker", "token-for-github"] { #expect(!text.contains(secret)) }
    }

    @Test func `what no task needs is not asked for, and a missing one is not waited for`() async throws {
        try good()
        var input = upstream(["public/build/a.zip"])
        input["taskId"] = .string(Slugid.make())
        graph.change(graph.sign) { $0["payload"]?["upstreamArtifacts"] = [input] }
        let refused = try await refusal()
        #expect(refused.code == 3)
        #expect(refused.text.contains("404"))
    }
}
