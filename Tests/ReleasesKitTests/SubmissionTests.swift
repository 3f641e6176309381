// SPDX-License-Identifier: MPL-2.0

import HTTPClient
import JSON
import Schedules
import Taskcluster
import TestSupport
import Testing

@testable import ReleasesKit

/// The form of the first version, and the calls of its release runner.
@Suite(.timeLimit(.minutes(15)))
struct SubmissionTests {
    private static let name = "Firefox-60.0b9-build1"
    private static let account = "Basic \(Base64.encoded(Array("release-runner:secret".utf8)))"

    private static func form(_ fields: [(String, String)]) -> [UInt8] {
        let pairs = fields.map { name, value in
            let escaped = value.map { $0 == "#" ? "%23" : $0 == " " ? "+" : $0 == "/" ? "%2F" : String($0) }.joined()
            return "\(name)=\(escaped)"
        }
        return Array(pairs.joined(separator: "&").utf8)
    }

    private static func post(
        _ world: ReleaseWorld,
        _ path: String,
        _ fields: [(String, String)],
        token: String? = nil
    ) async throws -> (status: Int, body: JSONValue, headers: HTTPHeaders) {
        var token = token
        if token == nil {
            token = try await world.call("GET", "/v1/csrf_token", as: account).headers["X-CSRF-Token"]
        }
        return try await world.call(
            "POST",
            path,
            as: account,
            headers: ["Content-Type": "application/x-www-form-urlencoded"],
            bytes: form(fields + [("csrf_token", token ?? "")])
        )
    }

    private static let fields = [
        ("firefox-product", "firefox"), ("firefox-version", "60.0b9"), ("firefox-buildNumber", "1"),
        ("firefox-branch", "releases/mozilla-beta"), ("firefox-mozillaRevision", "abc"),
        ("firefox-l10nChangesets", "de default"), ("firefox-comment", "one more"),
    ]

    @Test func `a release comes by the form, its runner starts it, and its tasks become a step`() async throws {
        try await ReleaseWorld.with { world in
            #expect(try await world.call("GET", "/v1/releases").status == 401)
            #expect(
                try await world.call("GET", "/v1/releases", as: "Basic \(Base64.encoded(Array("a:b".utf8)))").status
                    == 401
            )
            #expect(try await Self.post(world, "/v1/submit_release.html", Self.fields, token: "x").status == 400)
            let submitted = try await Self.post(world, "/v1/submit_release.html", Self.fields)
            #expect(submitted.status == 302)
            #expect(submitted.headers["Location"] == "/v1/releases/\(Self.name)")
            // The same form once more is the same release, another one of its name is refused.
            let again = try await Self.post(world, "/v1/submit_release.html", Self.fields)
            #expect(again.status == 302)
            #expect(again.headers["Location"] == submitted.headers["Location"])
            let changed = Self.fields.map { ($0.0, $0.0 == "firefox-mozillaRevision" ? "def" : $0.1) }
            let refused = try await Self.post(world, "/v1/submit_release.html", changed)
            #expect(refused.status == 400)
            #expect(refused.body["code"] == "duplicate_release")
            #expect(try await world.pool.query("select * from shipit_releases.submissions").count == 1)

            // The names of the fields without the product do as well.
            let bare = Self.fields.map { ($0.0.split(separator: "-").last.map(String.init) ?? "", $0.1) }
                .map { ($0.0, $0.0 == "version" ? "60.0b10" : $0.1) }
            #expect(try await Self.post(world, "/v1/submit_release.html", bare).status == 302)

            let waiting = "/v1/releases?ready=1&complete=0"
            #expect(try await world.call("GET", waiting, as: Self.account).body == ["releases": []])
            let path = "/v1/releases/\(Self.name)"
            #expect(try await Self.post(world, path, [("ready", "True")]).status == 200)
            #expect(try await world.call("GET", waiting, as: Self.account).body == ["releases": [.string(Self.name)]])
            let row = try await world.call("GET", path, as: Self.account).body
            #expect(row["version"] == "60.0b9")
            #expect(row["buildNumber"] == 1)
            #expect(row["branch"] == "releases/mozilla-beta")
            #expect(row["comment"] == "one more")
            #expect(row["starter"] == "release-runner")

            #expect(try await Self.post(world, path, [("ready", "False"), ("complete", "True")]).status == 400)
            let long = String(repeating: "x", count: 300)
            #expect(try await Self.post(world, path, [("status", long)]).body["status"]?.string?.count == 250)
            let graph = "fN1SbArXTPSVFUUvaOlinQ"
            let started = [("complete", "True"), ("status", "Started"), ("taskGroupId", graph)]
            #expect(try await Self.post(world, path, started).body["pipeline_pending"] == true)
            // Once more, as after a lost answer.
            #expect(try await Self.post(world, path, started).status == 200)
            #expect(try await Self.post(world, path, [("ready", "False")]).status == 400)
            let other = [("taskGroupId", "aN1SbArXTPSVFUUvaOlinQ")]
            #expect(try await Self.post(world, path, other).status == 409)

            try await world.service.makePipelines()
            try await world.service.makePipelines()
            #expect(try await world.call("GET", path, as: Self.account).body["pipeline_pending"] == false)
            try await eventually("the tasks are followed") { world.around.puts("\(Self.name).build") > 0 }
            #expect(world.around.body("\(Self.name).build")?["taskGroupId"] == .string(graph))
        }
    }

    @Test func `the release script's form has the token under its product, and its time of shipping no zone`()
        async throws
    {
        try await ReleaseWorld.with { world in
            let given = try await world.call("GET", "/v1/csrf_token", as: Self.account).headers["X-CSRF-Token"]
            let token = try #require(given)
            // It asks for another token when this one's date is over.
            let now = Timestamp.now().iso8601.filter { $0.isNumber }.prefix(14)
            #expect(token.prefix(14) > now)
            #expect(token.dropFirst(14).prefix(2) == "##")
            func submit(_ name: String) async throws -> Int {
                try await world.call(
                    "POST",
                    "/v1/submit_release.html",
                    as: Self.account,
                    headers: ["Content-Type": "application/x-www-form-urlencoded"],
                    bytes: Self.form(Self.fields + [(name, token)])
                ).status
            }
            #expect(try await submit("fennec-csrf_token") == 400)
            #expect(try await submit("firefox-csrf_token") == 302)
            let path = "/v1/releases/\(Self.name)"
            let row = try await world.call("GET", path, as: Self.account).body
            #expect(row["csrf_token"] == nil)
            #expect(row["shippedAt"] == .null)
            let shipped = [("status", "shipped"), ("shippedAt", "2026-01-02 03:04:05")]
            #expect(try await Self.post(world, path, shipped).body["shippedAt"] == "2026-01-02T03:04:05.000Z")
            #expect(try await Self.post(world, path, [("shippedAt", "soon"), ("status", "x")]).status == 400)
            #expect(try await world.call("GET", path, as: Self.account).body["status"] == "shipped")
        }
    }

    @Test func `a pipeline that cannot be made yet is made later, and the first version keeps what it was told`()
        async throws
    {
        var catalogue = ReleaseWorld.catalogue
        var firefox = catalogue["products"]?["firefox"] ?? [:]
        firefox["pipeline-template"] = "beta"
        var products = catalogue["products"] ?? [:]
        products["firefox"] = firefox
        catalogue["products"] = products
        let changed = catalogue
        try await ReleaseWorld.with(catalogue: changed) { world in
            _ = try await Self.post(world, "/v1/submit_release.html", Self.fields)
            let path = "/v1/releases/\(Self.name)"
            let started = [("ready", "1"), ("complete", "1"), ("taskGroupId", "fN1SbArXTPSVFUUvaOlinQ")]
            #expect(try await Self.post(world, path, started).status == 200)
            try await world.service.makePipelines()
            let row = try await world.call("GET", path, as: Self.account).body
            #expect(row["complete"] == true)
            #expect(row["pipeline_pending"] == true)
            #expect(row["pipeline_problem"] == "There is no template beta")

            let step: JSONValue = [
                "uid": "build", "api_url": .string("\(world.aroundURL)/steps"),
                "parameters": ["taskGroupId": "${parameters.taskGroupId}", "revision": "$${pipeline.uid}"],
            ]
            let template: JSONValue = [
                "version": "3", "definition": ["namespace_steps": true, "parameters": ["steps": [step]]],
                "schema": ["type": "object", "required": ["taskGroupId"]],
            ]
            #expect(try await world.call("PUT", "/templates/beta", template, as: ReleaseWorld.script).status == 200)
            try await world.service.makePipelines()
            #expect(try await world.call("GET", path, as: Self.account).body["pipeline_pending"] == false)
            try await eventually("the tasks are followed") { world.around.puts("\(Self.name).build") > 0 }
            #expect(world.around.body("\(Self.name).build")?["revision"] == .string(Self.name))
            let definition = try await world.call("GET", "/\(Self.name)/definition", as: ReleaseWorld.script).body
            #expect(definition["template"] == ["name": "beta", "version": "3"])
        }
    }

    @Test func `84: what is disabled for scripts is not submitted by the form, and rows have every member`()
        async throws
    {
        try await ReleaseWorld.with { world in
            let body: JSONValue = ["product": "firefox", "branch": "releases/mozilla-beta"]
            #expect(try await world.call("POST", "/disabled-products", body, as: ReleaseWorld.script).status == 200)
            let refused = try await Self.post(world, "/v1/submit_release.html", Self.fields)
            #expect(refused.status == 401)
            #expect(refused.body["code"] == "product_disabled")
            let query = "?product=firefox&branch=releases/mozilla-beta"
            #expect(try await world.call("DELETE", "/disabled-products\(query)", as: ReleaseWorld.script).status == 200)
            let form = Self.fields + [("firefox-promptWaitTime", "60"), ("firefox-isSecurityDriven", "true")]
            #expect(try await Self.post(world, "/v1/submit_release.html", form).status == 302)
            let row = try await world.call("GET", "/v1/releases/\(Self.name)", as: Self.account).body
            for name in ["partials", "description", "mh_changeset", "release_eta", "starter", "shippedAt"] {
                #expect(row[name] == .null, "\(name)")
            }
            #expect(row["promptWaitTime"] == 60)
            #expect(row["isSecurityDriven"] == true)
            #expect(row["comment"] == "one more")
        }
    }

    /// The products, with a way to begin releases of Firefox here.
    private static func catalogue(_ runner: JSONValue) -> JSONValue {
        var catalogue = ReleaseWorld.catalogue
        var products = catalogue["products"] ?? [:]
        var firefox = products["firefox"] ?? [:]
        firefox["release-runner"] = runner
        products["firefox"] = firefox
        catalogue["products"] = products
        return catalogue
    }

    private static let planning: JSONValue = [
        "task": [
            "taskGroupId": "${taskGroupId}", "created": ["$fromNow": "0 seconds"],
            "payload": ["revision": "${release.mozillaRevision}", "release": "${release.name}"],
        ],
        "checks": ["l10n_changesets", "partial_updates", "check_allowed_branches"],
        "allowed-branches": ["releases/*"],
    ]

    @Test func `88: a runner that dies when its graph is made leaves one graph, and the next makes the pipeline`()
        async throws
    {
        try await ReleaseWorld.with(catalogue: Self.catalogue(Self.planning)) { world in
            _ = try await Self.post(world, "/v1/submit_release.html", Self.fields)
            let path = "/v1/releases/\(Self.name)"
            func row() async throws -> JSONValue { try await world.call("GET", path, as: Self.account).body }
            #expect(try await Self.post(world, path, [("ready", "1")]).status == 200)
            // The graph is made, and whoever made it dies before anybody says so.
            world.around.state.withLock { $0.isMute = true }
            let first = Task { try await ReleaseRunner(service: world.service).runOnce() }
            try await eventually("the graph is made") { world.around.state.withLock { $0.tasks.count } == 1 }
            first.cancel()
            _ = await first.result
            let left = try await row()
            #expect(left["complete"] == false)
            #expect(left["status"] == "Submitting tasks")
            try await world.service.makePipelines()
            #expect(try await world.call("GET", "/\(Self.name)/status", as: ReleaseWorld.script).status == 404)

            // It starts again, here twice at the same time.
            world.around.state.withLock { $0.isMute = false }
            async let second: Void = ReleaseRunner(service: world.service).runOnce()
            async let third: Void = ReleaseRunner(service: world.service).runOnce()
            _ = try await (second, third)
            let done = try await row()
            #expect(done["complete"] == true)
            #expect(done["status"] == "Started")
            let (tasks, puts) = world.around.state.withLock { ($0.tasks, $0.taskPuts) }
            #expect(tasks.count == 1)
            let graph = try #require(tasks.first)
            #expect(puts[graph.key] ?? 0 >= 2)
            #expect(graph.value["taskGroupId"] == .string(graph.key))
            #expect(graph.value["payload"] == ["revision": "abc", "release": .string(Self.name)])
            #expect(done["taskGroupId"] == .string(graph.key))
            try await world.service.makePipelines()
            try await eventually("the graph is followed") { world.around.puts("\(Self.name).build") > 0 }
            #expect(world.around.body("\(Self.name).build")?["taskGroupId"] == .string(graph.key))
            // What is done is done.
            try await ReleaseRunner(service: world.service).runOnce()
            #expect(world.around.state.withLock { $0.tasks.count } == 1)
            #expect(try await row()["pipeline_pending"] == false)
        }
    }

    @Test func `a task that the queue refuses is planned anew, one that it has is not`() async throws {
        try await ReleaseWorld.with(catalogue: Self.catalogue(Self.planning)) { world in
            _ = try await Self.post(world, "/v1/submit_release.html", Self.fields)
            let path = "/v1/releases/\(Self.name)"
            let runner = ReleaseRunner(service: world.service)
            func row() async throws -> JSONValue { try await world.call("GET", path, as: Self.account).body }
            func beReady() async throws {
                #expect(try await Self.post(world, path, [("ready", "1")]).status == 200)
                try await runner.runOnce()
            }
            world.around.state.withLock { $0.refusesTasks = true }
            try await beReady()
            #expect(try await row()["ready"] == false)
            #expect(try await row()["status"]?.string?.hasPrefix("the queue answered 400") == true)
            let refused = try #require(world.around.state.withLock { $0.taskPuts.keys.first })

            // The reason is removed, but whoever makes the next one never hears of it, and then the queue refuses again.
            world.around.state.withLock { ($0.refusesTasks, $0.isMute) = (false, true) }
            #expect(try await Self.post(world, path, [("ready", "1")]).status == 200)
            let unheard = Task { try await runner.runOnce() }
            try await eventually("a task is made") { world.around.state.withLock { $0.tasks.count } == 1 }
            unheard.cancel()
            _ = await unheard.result
            world.around.state.withLock { ($0.refusesTasks, $0.isMute) = (true, false) }
            try await runner.runOnce()
            let made = try #require(world.around.state.withLock { $0.tasks.keys.first })
            #expect(made != refused)
            #expect(try await row()["taskGroupId"] == .string(made))
            #expect(try await row()["complete"] == true)
        }
    }

    @Test func `a release that makes no sense is made unready and says why, another one is begun all the same`()
        async throws
    {
        try await ReleaseWorld.with(catalogue: Self.catalogue(Self.planning)) { world in
            func submit(_ version: String, _ changes: [String: String]) async throws -> String {
                let fields = Self.fields.map { name, value -> (String, String) in
                    let bare = String(name.dropFirst("firefox-".count))
                    return (name, bare == "version" ? version : changes[bare] ?? value)
                }
                let more = changes["partials"].map { [("firefox-partials", $0)] } ?? []
                #expect(try await Self.post(world, "/v1/submit_release.html", fields + more).status == 302)
                let path = "/v1/releases/Firefox-\(version)-build1"
                #expect(try await Self.post(world, path, [("ready", "1")]).status == 200)
                return path
            }
            let bad = [
                try await submit("60.0b1", ["branch": "try"]),
                try await submit("60.0b2", ["l10nChangesets": "de"]),
                try await submit("60.0b3", ["partials": "59.0"]),
                try await submit("60.0", ["partials": "59.0build1"]),
                try await submit("60.0b6", ["partials": "60.0b1build2,60.0b3build1"]),
                try await submit("60.0b7", ["partials": "60.0b1build3"]),
                try await submit("60.0b8", ["partials": "60.0b2build2"]),
            ]
            let early = try await submit("60.0b4", ["mozillaRevision": "def"])
            let good = try await submit("60.0b5", ["partials": "60.0b1build2, 60.0b3build2"])
            try await ReleaseRunner(service: world.service).runOnce()
            let words = [
                "check_allowed_branches: ", "l10n_changesets: ", "partial_updates: ", "partial_updates: ",
                "partial_updates: the build 1 of 60.0b3 is not what was released", "http", "http",
            ]
            for (path, word) in zip(bad, words) {
                let row = try await world.call("GET", path, as: Self.account).body
                #expect(row["ready"] == false)
                #expect(row["status"]?.string?.hasPrefix(word) == true, "\(path): \(row["status"] ?? .null)")
            }
            let waiting = try await world.call("GET", early, as: Self.account).body
            #expect(waiting["ready"] == true)
            #expect(waiting["status"] == "Waiting for builds to be completed")
            #expect(try await world.call("GET", good, as: Self.account).body["status"] == "Started")
            #expect(world.around.state.withLock { $0.tasks.count } == 1)
        }
    }

    @Test func `while its builds are waited for the archive is asked in the beginning and in the end`() async throws {
        try await ReleaseWorld.with(catalogue: Self.catalogue(Self.planning)) { world in
            let fields = Self.fields.map { ($0.0, $0.0 == "firefox-mozillaRevision" ? "def" : $0.1) }
            let form = fields + [("firefox-partials", "59.0b5build2")]
            #expect(try await Self.post(world, "/v1/submit_release.html", form).status == 302)
            let path = "/v1/releases/\(Self.name)"
            #expect(try await Self.post(world, path, [("ready", "1")]).status == 200)
            let runner = ReleaseRunner(service: world.service)
            for _ in 0..<5 { try await runner.runOnce() }
            func row() async throws -> JSONValue { try await world.call("GET", path, as: Self.account).body }
            #expect(try await row()["status"] == "Waiting for builds to be completed")
            #expect(world.around.state.withLock { $0.sums["59.0b5"] } == 1)
            world.around.state.withLock { _ = $0.planned.insert("def") }
            try await runner.runOnce()
            #expect(try await row()["status"] == "Started")
            #expect(world.around.state.withLock { $0.sums["59.0b5"] } == 2)
        }
    }

    @Test func `a version that is not the source's own is not begun`() async throws {
        var runner = Self.planning
        runner["checks"] = ["display_version"]
        try await ReleaseWorld.with(catalogue: Self.catalogue(runner)) { world in
            for version in ["60.0b9", "60.0b8"] {
                let fields = Self.fields.map { ($0.0, $0.0 == "firefox-version" ? version : $0.1) }
                #expect(try await Self.post(world, "/v1/submit_release.html", fields).status == 302)
                let path = "/v1/releases/Firefox-\(version)-build1"
                #expect(try await Self.post(world, path, [("ready", "1")]).status == 200)
            }
            try await ReleaseRunner(service: world.service).runOnce()
            func status(_ version: String) async throws -> String? {
                let path = "/v1/releases/Firefox-\(version)-build1"
                return try await world.call("GET", path, as: Self.account).body["status"]?.string
            }
            #expect(try await status("60.0b9") == "Started")
            #expect(try await status("60.0b8") == "display_version: the source says that it is 60.0b9")
            let elsewhere = Self.fields.map { name, value in
                let astray = ["firefox-version": "60.0b7", "firefox-mozillaRevision": "../../other/raw-file/abc"]
                return (name, astray[name] ?? value)
            }
            #expect(try await Self.post(world, "/v1/submit_release.html", elsewhere).status == 302)
            let path = "/v1/releases/Firefox-60.0b7-build1"
            #expect(try await Self.post(world, path, [("ready", "1")]).status == 200)
            try await ReleaseRunner(service: world.service).runOnce()
            #expect(try await status("60.0b7")?.hasPrefix("There is no revision ../../other") == true)
        }
    }
}
