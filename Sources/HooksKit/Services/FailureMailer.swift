// SPDX-License-Identifier: MPL-2.0

import Core
import Logging
package import Schedules

/// Tells owners of schedules that fail for good: at most one letter in twelve hours for each hook and reason.
package struct FailureMailer: Sendable {
    let store: FailureMailStore
    let sender: any LetterSender
    let now: @Sendable () -> Timestamp

    package init(
        store: FailureMailStore,
        sender: any LetterSender,
        now: @escaping @Sendable () -> Timestamp = { .now() }
    ) {
        self.store = store
        self.sender = sender
        self.now = now
    }

    /// Attempts after which a letter is given up: about a day's worth.
    private static let mostAttempts = 100

    /// Sends the letters that may go, a bounded number at a time, and answers how many there were.
    @discardableResult
    package func sendDue() async throws -> Int {
        let letters = try await store.take(now: now(), limit: 20)
        for letter in letters where letter.isWanted { try await send(letter) }
        for letter in letters where !letter.isWanted { try await store.finish(letter, now: now()) }
        return letters.count
    }

    private func send(_ letter: FailureMailStore.Letter) async throws {
        do {
            try await sender.send(
                Letter(
                    address: letter.owner,
                    subject: "[Taskcluster Hooks] Scheduled Hook failure: \(letter.name)",
                    text: Self.text(of: letter),
                    date: letter.last,
                    id: "\(letter.last.milliseconds)-\(letter.failures)-\(letter.taskID)"
                )
            )
        } catch {
            try Task.checkCancellation()
            Logger.current.warning(
                "hook failure mail was not sent",
                metadata: ["hook": "\(letter.name)", "error": "\(error)", "attempts": "\(letter.attempts)"]
            )
            if error.isTransient, letter.attempts < Self.mostAttempts {
                let pause = RetryPolicy(attempts: .max, base: .seconds(5), maximum: .seconds(900), jitter: 0)
                    .delay(before: letter.attempts + 1)
                return try await store.postpone(letter, until: now() + pause)
            }
        }
        try await store.finish(letter, now: now())
    }

    /// What a letter says: it depends on nothing but the letter, so that it is the same whenever it is sent.
    static func text(of letter: FailureMailStore.Letter) -> String {
        let count =
            letter.failures == 1
            ? "at \(letter.last.iso8601)"
            : "\(letter.failures) times, first at \(letter.first.iso8601) and last at \(letter.last.iso8601)"
        return """
            The schedule of the hook `\(letter.name)` came due, but no task could be created: \(count). The last one \
            would have been `\(letter.taskID)`.

            Reason: \(letter.reason)

            ```
            \(letter.error)
            ```

            The schedule goes on. You get a letter about this hook and this reason at most once in twelve hours, and \
            each counts all failures since the one before. Set `emailOnError` to false to get none.
            """
    }
}
