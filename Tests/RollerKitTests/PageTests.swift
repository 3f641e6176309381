// SPDX-License-Identifier: MPL-2.0

import HTTPClient
import JSON
import Testing

@testable import RollerKit

@Suite(.timeLimit(.minutes(5)))
struct PageTests {
    private func get(_ api: APIWorld, _ path: String, _ headers: HTTPHeaders = [:]) async throws -> HTTPResponse {
        try await api.curl.send(
            HTTPRequest(
                method: "GET",
                url: "http://127.0.0.1:\(api.port)\(path)",
                headers: headers,
                timeout: .seconds(60)
            )
        )
    }

    @Test func `the page and its files are small, load nothing from elsewhere, and let no other script run`()
        async throws
    {
        try await APIWorld.with { api in
            let page = try await get(api, "/ui/")
            #expect(page.status == 200 && page.headers["Content-Type"] == "text/html; charset=utf-8")
            let html = String(decoding: page.body, as: UTF8.self)
            #expect(html.contains("<html lang=\"en\">") && html.contains("aria-live"))
            #expect(!html.contains("style=") && !html.contains("onclick"))
            // Every script is a file.
            #expect(html.split(separator: "<script").dropFirst().allSatisfy { $0.contains("src=\"") })
            var total = page.body.count
            for (name, file) in RollerPages.files where !name.isEmpty {
                let answer = try await get(api, "/ui/\(name)")
                #expect(answer.status == 200 && answer.headers["Content-Type"] == file.type, "\(name)")
                #expect(answer.headers["Content-Security-Policy"] == RollerPages.policy)
                #expect(answer.headers["X-Content-Type-Options"] == "nosniff")
                let text = String(decoding: answer.body, as: UTF8.self)
                for danger in [
                    "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function",
                    "localStorage", "sessionStorage", "indexedDB", "document.cookie", "http://", "//cdn",
                ] {
                    #expect(!text.contains(danger), "\(name): \(danger)")
                }
                // What a module imports is one of ours.
                for part in text.split(separator: " from '").dropFirst() {
                    let module = part.prefix { $0 != "'" }
                    #expect(
                        module.hasPrefix("./") && RollerPages.files[String(module.dropFirst(2))] != nil,
                        "\(module)"
                    )
                }
                total += answer.body.count
            }
            #expect(total < 100_000)
            let policy = try #require(page.headers["Content-Security-Policy"])
            for part in ["default-src 'none'", "script-src 'self'", "connect-src 'self'", "frame-ancestors 'none'"] {
                #expect(policy.contains(part))
            }
            #expect(!policy.contains("unsafe") && page.headers["Set-Cookie"] == nil)
            #expect(page.headers["Referrer-Policy"] == "no-referrer")
            #expect(api.auth.requests.isEmpty)
        }
    }

    @Test func `the page is found without its slash, is not sent twice, and has no other files`() async throws {
        try await APIWorld.with(settings: { $0.allowedHosts = ["127.0.0.1"] }) { api in
            let bare = try await get(api, "/ui")
            #expect(bare.status == 308 && bare.headers["Location"] == "ui/")
            let tag = try #require(try await get(api, "/ui/roller.js").headers["ETag"])
            let known = try await get(api, "/ui/roller.js", ["If-None-Match": tag])
            #expect(known.status == 304 && known.body.isEmpty)
            for path in ["/ui/nothing.js", "/ui/../etc/passwd", "/ui/index.html/x", "/uix"] {
                #expect(try await get(api, path).status == 404, "\(path)")
            }
            #expect(try await get(api, "/ui/", ["Host": "evil.example"]).status == 400)
        }
    }

    @Test func `callers learn what they may, and tables of machines show the last job and the last power`() async throws
    {
        try await APIWorld.with { api in
            try await api.managed()
            try await api.managed("t-linux64-ms-002")
            let me = try await api.call("GET", "caller", scopes: ["list-jobs"]).json
            #expect(me["client_id"]?.string == APIWorld.sheriff && me["prefix"]?.string == APIWorld.prefix)
            #expect(me["scopes"]?.array?.contains(.string(APIWorld.prefix + "list-jobs")) == true)
            #expect(try await api.call("GET", "caller", scopes: nil).status == 403)
            let names = ["ping", "reboot"]
            for (index, task) in names.enumerated() {
                let made = try await api.call("POST", "workers/t-linux64-ms-001/jobs?task_name=\(task)")
                let id = try #require(made.json["task_id"]?.string)
                try await api.world.claim(id, fence: index + 1)
                let end = JobEnd(
                    .succeeded,
                    summary: "done",
                    result: task == "ping" ? ["power": ["ipmi:x": "off", "pdu:y": "on"]] : [:]
                )
                #expect(try await api.world.jobs.finish(id, fence: index + 1, end))
            }
            let plain = try await api.call("GET", "machines", scopes: ["inventory:read"]).json["machines"]
            #expect(plain?[0]?["last_job"] == nil)
            let machines = try await api.call("GET", "machines?last=1", scopes: ["inventory:read"]).json["machines"]
            #expect(machines?[0]?["last_job"]?["task_name"] == "reboot" && machines?[0]?["last_power"] == "on")
            #expect(machines?[0]?["last_job"]?["status"] == "COMPLETE")
            #expect(machines?[1]?["last_job"] == .null && machines?[1]?["last_power"] == .null)
        }
    }
}
