// SPDX-License-Identifier: MPL-2.0

import JSON
import Schedules

/// The definitions that a service is tried with.
struct Subject: Sendable {
    let definition: JSONObject
    let other: JSONObject
    let succeeding: JSONObject?
    let invalid: JSONObject?
    let patience: Duration
}

/// Whether a rule holds.
struct Outcome: Sendable {
    enum Verdict: String, Sendable {
        case kept
        case broken
        /// It could not be tried with the definitions given.
        case skipped
    }

    let rule: String
    let text: String
    let verdict: Verdict
    let detail: String

    var line: String {
        switch verdict {
        case .kept: "kept     \(rule): \(text)"
        case .skipped: "skipped  \(rule): \(detail)"
        case .broken: "BROKEN   \(rule): \(text)\n           \(detail)"
        }
    }

    var json: JSONValue {
        [
            "rule": .string(rule), "text": .string(text), "verdict": .string(verdict.rawValue),
            "detail": .string(detail),
        ]
    }
}

/// A rule that does not hold, and what came instead.
struct Broken: Error {
    let detail: String
}

/// A rule that cannot be tried.
struct Skipped: Error {
    let detail: String
}

/// Tries the rules of the contract one after the other, each with steps of its own.
struct Checker: Sendable {
    let session: Session
    let subject: Subject
    private let stamp = String(UInt64.random(in: 0..<1 << 40), radix: 36)

    init(session: Session, subject: Subject) {
        self.session = session
        self.subject = subject
    }

    typealias Rule = (name: String, text: String, body: @Sendable (Checker, String) async throws -> Void)

    /// Tries everything; what was created is removed in the end.
    func run(_ report: (Outcome) -> Void) async -> [Outcome] {
        var outcomes: [Outcome] = []
        for (number, rule) in Self.rules.enumerated() {
            let uid = "check-\(stamp)-\(number)"
            var verdict = Outcome.Verdict.kept
            var detail = ""
            do {
                try await rule.body(self, uid)
            } catch let broken as Broken {
                (verdict, detail) = (.broken, broken.detail)
            } catch let skipped as Skipped {
                (verdict, detail) = (.skipped, skipped.detail)
            } catch {
                (verdict, detail) = (.broken, "\(error)")
            }
            // What a service leaves behind that does not even delete is its own affair.
            _ = try? await session.call("DELETE", "/\(uid)?force=true")
            let outcome = Outcome(rule: rule.name, text: rule.text, verdict: verdict, detail: detail)
            outcomes.append(outcome)
            report(outcome)
        }
        return outcomes
    }

    // MARK: - Parts of rules

    func expect(_ condition: Bool, _ detail: @autoclosure () -> String) throws {
        if !condition { throw Broken(detail: detail()) }
    }

    /// A request whose answer has a certain status.
    @discardableResult
    func expect(_ status: Int, _ what: String, _ reply: Reply) throws -> Reply {
        try expect(reply.status == status, "\(what) was answered with \(reply.description), not with \(status)")
        return reply
    }

    /// Creates a step.
    func create(_ uid: String, _ definition: JSONObject) async throws {
        try expect(200, "PUT /\(uid)", try await session.send("PUT", "/\(uid)", definition))
    }

    /// The status of a step, which has to make sense.
    @discardableResult
    func status(_ uid: String) async throws -> JSONObject {
        let reply = try expect(200, "GET /\(uid)/status", try await session.call("GET", "/\(uid)/status"))
        guard let status = reply.body?.object else { throw Broken(detail: "the status is no object") }
        return status
    }

    /// Waits for something the service does by itself.
    func wait(_ uid: String, _ what: String, until done: (JSONObject) -> Bool) async throws -> JSONObject {
        let limit = ContinuousClock.now + subject.patience
        while true {
            let status = try await status(uid)
            if done(status) { return status }
            guard ContinuousClock.now < limit else {
                throw Broken(detail: "\(what) did not happen within \(subject.patience); it is \(Self.word(status))")
            }
            try await Task.sleep(for: .milliseconds(200))
        }
    }

    static func word(_ status: JSONObject) -> String {
        status["state"]?.string ?? status["status"]?.string ?? "nothing"
    }

    static func isOver(_ status: JSONObject) -> Bool {
        status["status"].map { $0 != "in_progress" }
            ?? ["completed", "failed", "exception", "cancelled"].contains(word(status))
    }

    /// Cancels a step and waits for its end.
    func cancel(_ uid: String) async throws -> JSONObject {
        let reply = try await session.send("POST", "/\(uid)/cancel", ["reason": "a check"])
        try expect(200, "POST /\(uid)/cancel", reply)
        return try await wait(uid, "its end") { Self.isOver($0) }
    }

    /// A refusal has to be a problem document.
    func refusal(_ status: Int, _ what: String, _ reply: Reply) throws {
        try expect(status, what, reply)
        guard let body = reply.body?.object else { throw Broken(detail: "the refusal of \(what) is no JSON object") }
        try expect(body["status"]?.int == status, "the refusal of \(what) does not repeat its status \(status)")
        try expect(
            body["code"]?.string?.isEmpty == false && body["detail"]?.string?.isEmpty == false,
            "the refusal of \(what) has no code and detail: \(reply.description)"
        )
    }
}
