// SPDX-License-Identifier: MPL-2.0

import Core
import Glibc
import HTTPClient
package import JSON
import Postgres
package import RollerKit

/// Runs actions for somebody at a terminal: the same actions as in jobs, with the attempts in the answer.
package struct ActionDesk {
    /// Where the machine is described.
    package enum Source: Sendable {
        /// A JSON file; `-` is standard input.
        case file(String)
        /// The inventory, by name.
        case inventory(String)
    }

    /// What came of it.
    package struct Answer: Sendable {
        /// For programs.
        package var json: JSONValue
        /// The exit status.
        package var status: Int32
    }

    private let registry = ActionRegistry.standard

    /// A desk with all actions.
    package init() {}

    /// What may be asked for.
    package var actions: [ActionDescription] { registry.actions.map(\.description) }

    /// Runs an action to its end.
    package func run(
        _ name: String,
        _ source: Source,
        parameters: JSONObject,
        dryRun: Bool,
        show: @escaping @Sendable (String) -> Void
    ) async throws -> Answer {
        guard let action = registry[name] else {
            return Self.refusal(ActionError(.config, "there is no action \(name)"))
        }
        let settings = Settings()
        let actionSettings = ActionSettings(settings: settings)
        let store = CredentialStore(directory: settings.optional("credentials.dir", "the folder of credentials"))
        let target: ActionTarget
        do throws(ActionError) { target = try await self.target(source, settings) } catch { return Self.refusal(error) }
        try settings.check()
        let job = ActionJob(
            id: JobID.make(),
            taskName: name,
            params: parameters,
            clientID: "cli",
            workerID: target.name
        )
        let conduct = LocalConduct(show: show)
        let transport = CurlTransport()
        defer { transport.shutdown() }
        let context = ActionContext(
            job: job,
            target: target,
            settings: actionSettings,
            tools: ToolRunner(redactor: Redactor()),
            transport: transport,
            credentials: { try store.load($0) },
            conduct: conduct,
            registry: registry,
            memory: ControllerMemory()
        )
        do throws(ActionError) {
            if dryRun {
                let plan = try action.plan(job, target, actionSettings)
                return Answer(json: ["state": "succeeded", "dry_run": true, "plan": JSONValue(plan)], status: 0)
            }
            let result = try await action.run(context)
            var json: JSONObject = ["state": "succeeded", "summary": JSONValue(result.summary)]
            json["result"] = .object(result.details)
            json["verified"] = JSONValue(result.isVerified)
            json["attempts"] = Self.attempts(conduct)
            return Answer(json: .object(json), status: 0)
        } catch {
            var answer = Self.refusal(error)
            answer.json["attempts"] = Self.attempts(conduct)
            answer.json["notes"] = .array(conduct.notes)
            return answer
        }
    }

    private static func refusal(_ error: ActionError) -> Answer {
        var json: JSONObject = [
            "state": "failed", "error_class": JSONValue(error.kind.name), "summary": JSONValue(error.message),
            "outcome": JSONValue(error.outcome.rawValue),
        ]
        if !error.details.isEmpty { json["result"] = .object(error.details) }
        if let url = error.bugURL { json["bug_url"] = JSONValue(url) }
        let status: Int32 =
            switch error.kind {
            case .config, .tooling: 1
            case .unsupported: 3
            default: 2
            }
        return Answer(json: .object(json), status: status)
    }

    private static func attempts(_ conduct: LocalConduct) -> JSONValue {
        .array(
            conduct.attempts.enumerated().map { index, attempt in
                var json: JSONObject = ["n": JSONValue(index + 1), "method": JSONValue(attempt.method)]
                if let control = attempt.control { json["control"] = JSONValue(control) }
                json["arguments"] = JSONValue(attempt.arguments)
                if let end = attempt.end {
                    json["outcome"] = JSONValue(end.outcome.rawValue)
                    json["summary"] = JSONValue(end.summary)
                    if let name = end.errorClass { json["error_class"] = JSONValue(name) }
                    if let output = end.output { json["output"] = JSONValue(output) }
                }
                return .object(json)
            }
        )
    }

    // MARK: - The machine

    private func target(_ source: Source, _ settings: Settings) async throws(ActionError) -> ActionTarget {
        switch source {
        case .file(let path):
            guard let bytes = Self.contents(path), let json = try? JSONValue(parsing: bytes) else {
                throw ActionError(.config, "the description of the machine cannot be read")
            }
            return try ActionTarget(json: json)
        case .inventory(let name):
            let pool = PostgresPool(PostgresConfiguration(settings: settings, applicationName: "roller-worker"))
            defer { pool.close() }
            let detail: MachineDetail?
            do { detail = try await InventoryStore(pool: pool).machine(name: name) } catch {
                throw ActionError(.other, "the inventory cannot be read: \(error)")
            }
            guard let detail else { throw ActionError(.config, "the inventory knows no machine \(name)") }
            return ActionTarget(detail)
        }
    }

    private static func contents(_ path: String) -> [UInt8]? {
        guard let file = fopen(path == "-" ? "/dev/stdin" : path, "re") else { return nil }
        defer { fclose(file) }
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while bytes.count < 4 << 20 {
            let count = fread(&buffer, 1, buffer.count, file)
            guard count > 0 else { return bytes }
            bytes += buffer[..<count]
        }
        return nil
    }
}

extension ActionTarget {
    /// The machine as a file describes it: the members are called as in the inventory's API.
    package init(json: JSONValue) throws(ActionError) {
        guard let name = json["name"]?.string else { throw ActionError(.config, "the machine has no name") }
        var controls: [Control] = []
        for (index, item) in (json["controls"]?.array ?? []).enumerated() {
            guard let kind = item["kind"]?.string.flatMap(ControllerKind.init(rawValue:)) else {
                throw ActionError(.config, "control \(index) is of an unknown kind")
            }
            controls.append(
                Control(
                    controllerID: item["id"]?.string ?? item["name"]?.string ?? "\(kind.rawValue)-\(index)",
                    name: item["name"]?.string ?? "\(kind.rawValue)-\(index)",
                    kind: kind,
                    address: item["address"]?.string,
                    port: item["port"]?.int,
                    type: item["type"]?.string,
                    options: item["options"]?.object ?? [:],
                    locator: item["locator"]?.object ?? [:],
                    credential: item["credential"]?.string
                )
            )
        }
        self.init(
            name: name,
            fqdn: json["fqdn"]?.string,
            address: json["ip"]?.string,
            mac: json["mac"]?.string,
            bugCC: json["bugCc"]?.string,
            bootTime: json["bootSeconds"]?.int.map { .seconds($0) },
            properties: json["properties"]?.object ?? [:],
            controls: controls
        )
    }
}
