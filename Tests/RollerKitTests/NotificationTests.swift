// SPDX-License-Identifier: MPL-2.0

import Crypto
import HTTPClient
import JSON
import Notices
import Synchronization
import Taskcluster
import TaskclusterClient
import TestSupport
import Testing

@testable import RollerKit

/// A notify service and a webhook that remember what they got, and can be away.
private final class Inbox: HTTPTransport {
    private let state = Mutex((requests: [HTTPRequest](), isDown: false))

    var requests: [HTTPRequest] { state.withLock { $0.requests } }

    func setDown(_ isDown: Bool) { state.withLock { $0.isDown = isDown } }

    /// The bodies sent to addresses with an ending.
    func bodies(_ ending: String) -> [JSONValue] {
        requests.filter { $0.url.hasSuffix(ending) }.compactMap { request in
            guard case .bytes(let bytes) = request.body else { return nil }
            return try? JSONValue(parsing: bytes)
        }
    }

    func send(_ request: HTTPRequest) async throws(HTTPClientError) -> HTTPResponse {
        let isDown = state.withLock { state in
            if !state.isDown { state.requests.append(request) }
            return state.isDown
        }
        return HTTPResponse(status: isDown ? 503 : 200, headers: [:], body: Array("{}".utf8))
    }
}

@Suite(.timeLimit(.minutes(5)))
struct NotificationTests {
    private static let everything: NotificationSettings = {
        var settings = NotificationSettings()
        settings.email = "relops@example.com"
        settings.matrixRoom = "!room:example.com"
        settings.slackChannel = "C123"
        settings.webhookURL = "http://hook.example/roller"
        return settings
    }()

    private func courier(_ world: RollerWorld, _ inbox: Inbox) -> NoticeCourier {
        let credentials = Hawk.Credentials(clientID: "roller", accessToken: "t")
        let client = TaskclusterClient(
            rootURL: "http://tc.example",
            credentials: { credentials },
            transport: inbox,
            retry: .init(attempts: 1, base: .zero, maximum: .zero)
        )
        return NoticeCourier(
            store: NotificationStore(pool: world.pool),
            sender: RollerFoundation.sender(client, inbox, webhookSecret: "key")
        )
    }

    private func job(_ world: RollerWorld, _ action: ActionDescription, machine: String) async throws -> Job {
        var new = NewJob(
            action,
            machine: machine,
            worker: WorkerName("t-linux64-ms-001", group: "mdc1", provisionerID: "p", workerType: "w"),
            clientID: APIWorld.sheriff,
            source: .api
        )
        new.origin = "https://tools.example"
        guard case .created(let job) = try await world.jobs.create(new) else { throw Unexpected() }
        return job
    }

    @Test func `R70: a failure reaches everybody once, late if it must, and the job stays what it is`() async throws {
        try await RollerWorld.with { world in
            var world = world
            world.notifications = Self.everything
            let inbox = Inbox()
            let machine = try await world.machine()
            let job = try await job(world, .reboot, machine: machine)
            try await world.claim(job.id, fence: 1)
            let end = JobEnd(.failed, summary: "all methods failed\n```", errorClass: "unreachable")
            #expect(try await world.jobs.finish(job.id, fence: 1, end))
            inbox.setDown(true)
            let courier = courier(world, inbox)
            try await courier.deliverDue()
            #expect(inbox.requests.isEmpty)
            #expect(try await world.jobs.job(job.id)?.state == .failed)
            inbox.setDown(false)
            try await world.pool.execute("update roller.notifications set next_try = now() where state = 'pending'")
            // Two couriers, as two processes have them, and once more for nothing.
            async let first = courier.deliverDue()
            async let second = courier.deliverDue()
            _ = try await (first, second)
            #expect(try await courier.deliverDue() == 0)
            let mails = inbox.bodies("/notify/v1/email")
            #expect(mails.count == 2)
            #expect(Set(mails.compactMap { $0["address"]?.string }) == ["relops@example.com", "sheriff@mozilla.com"])
            let mail = try #require(mails.first)
            #expect(mail["subject"]?.string == "MDC1 t-linux64-ms-001[127.0.0.1] reboot")
            let content = try #require(mail["content"]?.string)
            #expect(content.hasPrefix("```\nFAILED: all methods failed\n'''\n```\n\n"))
            #expect(
                mail["link"]?["href"]?.string
                    == "https://tools.example/provisioners/p/worker-types/w/workers/mdc1/t-linux64-ms-001"
            )
            #expect(mail["link"]?["text"]?.string?.count ?? 99 <= 40)
            // One line when it was asked for, one when it ended.
            let room = inbox.bodies("/notify/v1/matrix").compactMap { $0["body"]?.string }
            #expect(room.count == 2 && room.contains { $0.contains("requested by sheriff") })
            #expect(room.contains { $0.contains("FAILED: all methods failed\t") })
            #expect(inbox.bodies("/notify/v1/slack").count == 2)
            let posts = inbox.requests.filter { $0.url == "http://hook.example/roller" }
            #expect(posts.count == 2 && Set(posts.compactMap { $0.headers["X-Roller-Delivery"] }).count == 2)
            let post = try #require(posts.first)
            guard case .bytes(let body) = post.body else { throw Unexpected() }
            let code = HMAC<SHA256>.authenticationCode(for: body, using: SymmetricKey(data: Array("key".utf8)))
            let text = code.map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined()
            #expect(post.headers["X-Hub-Signature-256"] == "sha256=\(text)")
        }
    }

    @Test func `what only looked and went well is told to who asked, by mail`() async throws {
        try await RollerWorld.with { world in
            var world = world
            world.notifications = Self.everything
            let inbox = Inbox()
            let job = try await job(world, .ping, machine: try await world.machine())
            try await world.claim(job.id, fence: 1)
            _ = try await world.jobs.finish(job.id, fence: 1, JobEnd(.succeeded, summary: "4 of 4"))
            try await courier(world, inbox).deliverDue()
            #expect(inbox.bodies("/notify/v1/email").compactMap { $0["address"]?.string } == ["sheriff@mozilla.com"])
            #expect(inbox.requests.count == 1)
        }
    }

    @Test func `many words about one machine become one`() async throws {
        try await RollerWorld.with { world in
            var world = world
            world.notifications.matrixRoom = "!room:example.com"
            let inbox = Inbox()
            let machine = try await world.machine()
            for index in 1...6 {
                let job = try await job(world, .reboot, machine: machine)
                try await world.claim(job.id, fence: index)
                _ = try await world.jobs.finish(job.id, fence: index, JobEnd(.failed, summary: "number \(index)"))
            }
            let courier = courier(world, inbox)
            while try await courier.deliverDue() > 0 {}
            #expect(inbox.bodies("/notify/v1/matrix").count == 3)
            try await world.pool.execute("update roller.notifications set next_try = now() where state = 'pending'")
            while try await courier.deliverDue() > 0 {}
            let all = inbox.bodies("/notify/v1/matrix").compactMap { $0["body"]?.string }
            // The ten minutes may have turned over in between, which makes two collections.
            #expect((4...5).contains(all.count))
            for index in 1...6 { #expect(all.filter { $0.contains("number \(index)") }.count == 1) }
        }
    }

    @Test func `the person behind a client id is found where it names one`() {
        let settings = NotificationSettings()
        #expect(settings.address("mozilla-auth0/ad|Mozilla-LDAP|jdoe") == "jdoe@mozilla.com")
        #expect(settings.address("mozilla-ldap/jdoe@mozilla.com") == "jdoe@mozilla.com")
        #expect(settings.address("mozilla-auth0/github|123") == nil)
        #expect(settings.address("static/nightly") == nil)
    }
}
