// SPDX-License-Identifier: MPL-2.0

import Crypto
import JSON
import Postgres

extension JobStore {
    // MARK: - Being told by what was installed

    /// What a machine that was installed anew had to say.
    package struct InstallationReport: Sendable, Hashable {
        /// Whether it went well.
        package var isGood: Bool
        /// In its own words.
        package var message: String?

        package init(isGood: Bool, message: String? = nil) {
            self.isGood = isGood
            self.message = message
        }
    }

    /// What telling led to.
    enum CallbackOutcome: Sendable, Hashable {
        /// The report was taken down, now or before: the first one counts.
        case taken
        /// The job is over.
        case tooLate
        /// There is no such job, it expects nobody, or the token is another one.
        case unknown
    }

    /// Makes the token with which somebody may tell a running job that an installation has ended; nil if the claim is not
    /// the last one any more.
    package func openCallback(_ id: String, fence: Int) async throws -> String? {
        var generator = SystemRandomNumberGenerator()
        let token = (0..<32).map { _ in
            let byte = UInt8.random(in: .min ... .max, using: &generator)
            return String(byte >> 4, radix: 16) + String(byte & 15, radix: 16)
        }.joined()
        let opened = try await pool.execute(
            """
            insert into roller.callbacks as c (job, token_hash)
            select id, \(Self.hash(token)) from roller.jobs
            where id = \(id)::uuid and fence = \(fence) and state in ('claimed', 'running', 'verifying')
            on conflict (job) do update set token_hash = excluded.token_hash where c.called is null
            """
        )
        return opened == 1 ? token : nil
    }

    /// What was told so far.
    package func installationReport(_ id: String) async throws -> InstallationReport? {
        let row = try await pool.query(
            "select ok, message from roller.callbacks where job = \(id)::uuid and called is not null"
        ).first
        guard let row else { return nil }
        return InstallationReport(isGood: try row.bool("ok"), message: try row.optionalString("message"))
    }

    /// Takes a report down, if the token is the one that was given out for the job.
    func report(
        _ report: InstallationReport,
        of id: String,
        token: String,
        sourceAddress: String?,
        requestID: String
    ) async throws -> CallbackOutcome {
        try await pool.transaction { connection in
            let row = try await connection.query(
                """
                select c.called is not null as was_called, j.state from roller.callbacks c
                join roller.jobs j on j.id = c.job
                where c.job = \(id)::uuid and c.token_hash = \(Self.hash(token)) for update of c
                """
            ).first
            guard let row else { return .unknown }
            guard try !row.bool("was_called") else { return .taken }
            guard try JobState(rawValue: row.string("state"))?.isTerminal == false else { return .tooLate }
            let message = report.message.map { Self.storable($0, limit: 1000) }
            _ = try await connection.execute(
                """
                update roller.callbacks set called = clock_timestamp(), source_ip = \(sourceAddress),
                    ok = \(report.isGood), message = \(message)
                where job = \(id)::uuid
                """
            )
            var data: JSONObject = ["ok": JSONValue(report.isGood)]
            if let message { data["message"] = .string(message) }
            try await note(id, "callback", data, on: connection)
            let entry = AuditEntry(
                clientID: "callback",
                sourceAddress: sourceAddress,
                verb: "job.callback",
                object: "job:\(id)",
                after: .object(data),
                requestID: requestID
            )
            try await AuditStore.add(entry, on: connection)
            return .taken
        }
    }

    private static func hash(_ token: String) -> [UInt8] { Array(SHA256.hash(data: Array(token.utf8))) }
}
