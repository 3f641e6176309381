// SPDX-License-Identifier: MPL-2.0

import Core
import HTTPClient
import JSON
import Logging
import Postgres
import Schedules
import Synchronization
import Taskcluster
import TestSupport
import Testing

@testable import HooksKit

/// Fires that fail, for a while or for good, and who is told.
@Suite(.timeLimit(.minutes(8)))
struct FailureTests {
    private let hourly: JSONObject = ["schedule": ["0 0 * * * *"]]

    private func settled(_ world: HooksWorld) async throws {
        try await world.allEnded()
    }

    /// Lets the hook come due once an hour, each time refused.
    private func failHourly(_ world: HooksWorld, hours: Int) async throws {
        for _ in 0..<hours {
            world.queue.refuse(403, "InsufficientScopes")
            world.clock.advance(by: .seconds(3600))
            try await world.scheduler.fireDue()
            try await settled(world)
            try await world.mailer.sendDue()
        }
    }

    // MARK: - Errors that pass

    @Test(arguments: [(0, ""), (500, "InternalServerError"), (503, "Unavailable"), (200, ""), (429, "TooMany")])
    func `H49, H51: no answer, a broken one or an unwell queue is asked again with the same task`(
        _ status: Int,
        _ code: String
    ) async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create([:], hourly)
            world.queue.refuse(status, code, times: 2)
            world.clock.advance(by: .seconds(3600))
            try await world.scheduler.fireDue()
            try await settled(world)
            let calls = world.queue.state.withLock { $0.calls }
            #expect(calls.count == 3)
            #expect(Set(calls.map(\.taskID)).count == 1)
            #expect(Set(calls.map(\.definition)).count == 1)
            #expect(try await world.mailer.sendDue() == 0)
            let entry = try await world.call("GET", "/hooks/g/h/ledger").body["entries"]?[0]
            #expect(entry?["outcome"] == "created")
            #expect(entry?["attempts"] == 3)
        }
    }

    @Test func `a conflict about an id nobody else knows means that the task exists`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create([:], hourly)
            let due = try #require(
                try await world.call("GET", "/hooks/g/h/status").body["nextScheduledDate"]?.string.flatMap {
                    Timestamp($0)
                }
            )
            let hook = try await world.pool.transaction { connection in
                try await world.schedules.lock(HookName(group: "g", hook: "h"), on: connection)
            }
            let seed = try #require(hook?.seed ?? nil)
            let id = ScheduledTask.id(seed: seed, name: HookName(group: "g", hook: "h"), due: due)
            world.queue.state.withLock { $0.tasks[id] = ["made": "by an attempt whose answer was lost"] }
            world.clock.advance(by: .seconds(3600))
            try await world.scheduler.fireDue()
            try await settled(world)
            #expect(world.queue.tasks.count == 1)
            #expect(try await world.history().first?["result"] == "success")
        }
    }

    @Test func `H49: nothing advances while an instant is repeated, and the schedule goes on afterwards`() async throws
    {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create([:], ["schedule": ["0 * * * * *"]])
            let first = try await world.call("GET", "/hooks/g/h/status").body["nextScheduledDate"]
            world.queue.refuse(500, "InternalServerError", times: 10_000)
            try await world.passNextInstant()
            try await world.scheduler.fireDue()
            try await eventually("an attempt failed") {
                try await !world.pool.query("select from hooks.hooks where waits_for is not null").isEmpty
            }
            world.clock.advance(by: .seconds(180))
            #expect(try await world.scheduler.fireDue() == 0)
            #expect(try await world.call("GET", "/hooks/g/h/status").body["nextScheduledDate"] == first)
            world.queue.state.withLock { $0.refusals = [] }
            try await settled(world)
            try await eventually("the missed instants were passed over") {
                let entries = try await world.call("GET", "/hooks/g/h/ledger").body["entries"]?.array ?? []
                return entries.contains { $0["reason"] == "missed while an earlier fire was repeated" }
            }
            #expect(world.queue.tasks.count == 1)
            world.clock.advance(by: .seconds(60))
            #expect(try await world.scheduler.fireDue() == 1)
        }
    }

    @Test func `a queue that stays unwell is given up at the deadline of the task`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            let template: JSONValue = ["deadline": ["$fromNow": "2 hours"]]
            try await world.create(template, ["schedule": ["0 0 0 * * *"]])
            world.queue.refuse(500, "InternalServerError", times: 10_000)
            let due = try #require(
                try await world.call("GET", "/hooks/g/h/status").body["nextScheduledDate"]?.string.flatMap {
                    Timestamp($0)
                }
            )
            world.clock.advance(by: due - world.clock.now() + .seconds(1))
            try await world.scheduler.fireDue()
            try await eventually("an attempt failed") { world.queue.state.withLock { $0.calls.count > 1 } }
            #expect(try await world.openFires() == 1)
            world.clock.advance(by: .seconds(2 * 3600))
            try await settled(world)
            let entry = try await world.call("GET", "/hooks/g/h/ledger").body["entries"]?[0]
            #expect(entry?["outcome"] == "failed")
            #expect(entry?["reason"] == "createTask InternalServerError, given up at the deadline")
            #expect(try await world.mailer.sendDue() == 1)
        }
    }

    // MARK: - Letters

    @Test func `H61: a hook that fails every hour of a day is told of twice, with the full count`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create([:], hourly)
            try await failHourly(world, hours: 24)
            let mails = world.queue.state.withLock { $0.mails }
            #expect(mails.count == 2)
            #expect(mails.first?["address"] == "owner@example.com")
            #expect(mails.first?["subject"] == "[Taskcluster Hooks] Scheduled Hook failure: g/h")
            #expect(mails.first?["content"]?.string?.contains("created: at ") == true)
            #expect(mails.last?["content"]?.string?.contains("created: 12 times, first at ") == true)
            #expect(try await world.history().count == 24)
        }
    }

    @Test func `what came after a letter is told twelve hours later, though nothing fails any more`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create([:], hourly)
            try await failHourly(world, hours: 4)
            #expect(world.queue.mails == 1)
            world.clock.advance(by: .seconds(9 * 3600 - 60))
            #expect(try await world.mailer.sendDue() == 0)
            world.clock.advance(by: .seconds(120))
            #expect(try await world.mailer.sendDue() == 1)
            let content = world.queue.state.withLock { $0.mails.last?["content"]?.string }
            #expect(content?.contains("3 times") == true)
            world.clock.advance(by: .seconds(24 * 3600))
            #expect(try await world.mailer.sendDue() == 0)
        }
    }

    @Test func `different reasons are told each for itself`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create([:], hourly)
            for code in ["InputError", "InsufficientScopes", "InputError"] {
                world.queue.refuse(400, code)
                world.clock.advance(by: .seconds(3600))
                try await world.scheduler.fireDue()
                try await settled(world)
                try await world.mailer.sendDue()
            }
            #expect(world.queue.mails == 2)
        }
    }

    @Test func `H50: a hook that wants no mail gets none`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            let metadata: JSONValue = [
                "name": "n", "description": "d", "owner": "owner@example.com", "emailOnError": false,
            ]
            try await world.create([:], ["schedule": ["0 0 * * * *"], "metadata": metadata])
            try await failHourly(world, hours: 2)
            #expect(world.queue.mails == 0)
            #expect(try await world.history().first?["result"] == "error")
        }
    }

    @Test func `H52: a refused or impossible letter is a warning and holds up nothing`() async throws {
        let lines = Mutex<[String]>([])
        let handler = LineLogHandler(service: "tests") { line in lines.withLock { $0.append(line) } }
        try await HooksWorld.with(logger: Logger(label: "tests") { _ in handler }) {
            (world: HooksWorld) async throws -> Void in
            try await world.create([:], hourly)
            world.queue.state.withLock { $0.mailRefusals = [(400, "DenylistedAddress")] }
            try await failHourly(world, hours: 2)
            #expect(world.queue.mails == 0)
            #expect(try await world.history().count == 2)
        }
        let told = lines.withLock { $0 }.filter { $0.contains("mail was not sent") }
        #expect(told.count == 1)
        #expect(told.first?.contains("\"severity\":\"WARNING\"") == true)
        #expect(told.first?.contains("DenylistedAddress") == true)
    }

    @Test func `H52: a letter waits for a mail service that is unwell, and stays the same`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create([:], hourly)
            world.queue.state.withLock { $0.mailRefusals = [(500, "InternalServerError")] }
            try await failHourly(world, hours: 1)
            #expect(world.queue.mails == 0)
            world.queue.refuse(403, "InsufficientScopes")
            world.clock.advance(by: .seconds(3600))
            try await world.scheduler.fireDue()
            try await settled(world)
            #expect(try await world.mailer.sendDue() == 1)
            let content = world.queue.state.withLock { $0.mails.last?["content"]?.string }
            #expect(content?.contains("created: at ") == true)
            world.clock.advance(by: .seconds(12 * 3600))
            #expect(try await world.mailer.sendDue() == 1)
        }
    }

    // MARK: - A mail server

    private func letter(_ text: String = "text") -> Letter {
        Letter(
            address: "owner@example.com",
            subject: "Schedule of größer/h",
            text: text,
            date: Timestamp(milliseconds: 1_707_568_496_789),
            id: "1-2-x"
        )
    }

    private func sender(_ sink: MailSink, _ transport: CurlTransport, tls: Bool = false) -> SMTPSender {
        SMTPSender(
            transport: transport,
            server: MailServer(url: sink.url, requiresTLS: tls, timeout: .seconds(60)),
            from: "hooks@example.org"
        )
    }

    @Test func `letters reach a mail server in the form of mail`() async throws {
        let sink = MailSink()
        let transport = CurlTransport()
        defer {
            sink.stop()
            transport.shutdown()
        }
        let text = "first line\n.\n" + String(repeating: "ä long text ", count: 20)
        try await sender(sink, transport).send(letter(text))
        let message = try #require(sink.messages.first)
        #expect(sink.state.withLock { $0.recipients } == ["RCPT TO:<owner@example.com>"])
        #expect(message.contains("From: Hooks <hooks@example.org>\n"))
        #expect(message.contains("To: <owner@example.com>\n"))
        #expect(message.contains("Subject: =?utf-8?B?"))
        #expect(message.contains("Date: Sat, 10 Feb 2024 12:34:56 +0000\n"))
        #expect(message.contains("Message-ID: <1-2-x@example.org>\n"))
        let parts = message.split(separator: "\n\n", maxSplits: 1)
        let body = parts.last?.filter { $0 != "\n" } ?? ""
        #expect(Base64.decoded(String(body)).map { String(decoding: $0, as: UTF8.self) } == text)
    }

    @Test(arguments: [("451 later", true), ("550 no such person", false)])
    func `a mail server's refusal is final or passes, as it says`(_ reply: String, _ isTransient: Bool) async throws {
        let sink = MailSink()
        let transport = CurlTransport()
        defer {
            sink.stop()
            transport.shutdown()
        }
        sink.state.withLock { $0.refusals = [reply] }
        let error = await #expect(throws: LetterError.self) { try await sender(sink, transport).send(letter()) }
        #expect(error?.isTransient == isTransient)
        #expect(error?.description == "the mail server answered \(reply.prefix(3))")
        #expect(sink.messages.isEmpty)
    }

    @Test func `nothing is said to a mail server that cannot encrypt, unless that is allowed`() async throws {
        let sink = MailSink()
        let transport = CurlTransport()
        defer {
            sink.stop()
            transport.shutdown()
        }
        await #expect(throws: LetterError.self) { try await sender(sink, transport, tls: true).send(letter()) }
        #expect(sink.messages.isEmpty)
    }

    @Test func `addresses cannot smuggle commands`() async throws {
        let sink = MailSink()
        let transport = CurlTransport()
        defer {
            sink.stop()
            transport.shutdown()
        }
        let bad = Letter(address: "a@b>\r\nRCPT TO:<c@d", subject: "s", text: "t", date: .now(), id: "i")
        let error = await #expect(throws: LetterError.self) { try await sender(sink, transport).send(bad) }
        #expect(error?.isTransient == false)
        #expect(sink.state.withLock { $0.recipients }.isEmpty)
    }
}
