// SPDX-License-Identifier: MPL-2.0

import JSON
package import RollerKit
import Schedules

/// `file_bugzilla_bug`: asks people to look after a machine, once.
package struct FileBugzillaBug: RebootMethod {
    /// The name in requests and the text of the button.
    package let description = ActionDescription(
        "file_bugzilla_bug",
        title: "File a bug",
        summary:
            "Files a bug about the machine, or comments on the open one, and links it to the machine's tracking bug.",
        isDestructive: false,
        parameters: ["type": "object", "properties": ["log": ["type": "string"]]]
    )

    /// An action without settings of its own.
    package init() {}

    /// Nothing happens to the machine.
    package var isHard: Bool { false }

    /// The bugs.
    package func plan(_ job: ActionJob, _ target: ActionTarget, _ settings: ActionSettings) throws(ActionError)
        -> [String]
    {
        guard let bugzilla = settings.bugzilla else {
            throw ActionError(.config, "no Bugzilla is configured", outcome: .skipped)
        }
        return ["file or comment a bug about \(target.name) at \(bugzilla.url)"]
    }

    /// Files it.
    package func run(_ context: ActionContext) async throws(ActionError) -> ActionResult {
        try await file(context, log: context.job.params["log"]?.string ?? "")
    }

    /// Files it with an account of what was tried; this holds no more than names of methods and kinds of failure.
    func file(_ context: ActionContext, log: String) async throws(ActionError) -> ActionResult {
        guard let settings = context.settings.bugzilla else {
            throw ActionError(.config, "no Bugzilla is configured", outcome: .skipped)
        }
        context.tools.redactor.learn([settings.apiKey])
        let client = BugzillaClient(settings: settings, transport: context.transport)
        return try await context.attempt(
            description.name,
            nil,
            changes: true,
            arguments: ["bugzilla", context.target.name]
        ) {
            () async throws(ActionError) -> (ActionResult, AttemptEnd) in
            let (id, isNew) = try await Self.file(client, context, log: context.tools.redactor.clean(log))
            let page = client.page(of: id)
            let summary = isNew ? "filed \(page)" : "an open bug exists: \(page)"
            let details: JSONObject = ["bug_url": JSONValue(page), "bug_id": JSONValue(id), "new": JSONValue(isNew)]
            return (ActionResult(summary, details), AttemptEnd(.ok, summary: summary))
        }
    }

    private static func file(
        _ client: BugzillaClient,
        _ context: ActionContext,
        log: String
    ) async throws(ActionError) -> (Int, isNew: Bool) {
        var variables = variables(context, log: log)
        let tracker = try await trackingBug(client, variables)
        variables["blocks"] = "\(tracker)"
        let bug = BugTemplate.render(client.settings.rebootTemplate, variables)
        let summary = bug["summary"]?.string ?? "\(context.target.name) is unreachable"
        let open = try await client.openBug(
            summary: summary,
            product: bug["product"]?.string ?? "",
            component: bug["component"]?.string ?? ""
        )
        var change: JSONValue = ["blocks": ["add": [JSONValue(tracker)]]]
        guard let open else {
            let id = try await client.create(bug)
            try await client.update(id, change)
            return (id, true)
        }
        let text = bug["description"]?.string ?? log
        let start = String(text.prefix { $0 != "\n" })
        let last = try await client.lastComment(on: open.id, beginning: start)
        if last.map({ Timestamp.now() - $0 > .seconds(24 * 3600) }) ?? true {
            change["comment"] = ["body": JSONValue(text)]
        }
        try await client.update(open.id, change)
        return (open.id, false)
    }

    private static func trackingBug(_ client: BugzillaClient, _ variables: [String: String]) async throws(ActionError)
        -> Int
    {
        guard let bug = try await client.bug(alias: variables["alias"] ?? "") else {
            return try await client.create(BugTemplate.render(client.settings.trackerTemplate, variables))
        }
        if !bug.isOpen { try await client.update(bug.id, ["status": JSONValue(client.settings.reopenState)]) }
        return bug.id
    }

    static func variables(_ context: ActionContext, log: String) -> [String: String] {
        let (target, job) = (context.target, context.job)
        let full = target.fqdn ?? target.name
        let labels = full.split(separator: ".").map(String.init)
        var alias = labels.first ?? target.name
        // The development instance allows no dashes there.
        if context.settings.bugzilla?.url.contains("bugzilla-dev") == true { alias = alias.filter { $0 != "-" } }
        let centre = target.properties["datacenter"]?.string ?? (labels.count > 3 ? labels[3].uppercased() : "")
        return [
            "hostname": full, "alias": alias, "DC": centre, "ip": target.address ?? "", "client_id": job.clientID,
            "worker_id": job.workerID, "worker_group": job.workerGroup ?? "", "worker_type": job.workerType ?? "",
            "provisioner_id": job.provisionerID ?? "", "task_name": job.taskName, "http_origin": job.httpOrigin ?? "",
            "cc": target.bugCC ?? "", "log": log, "blocks": "",
        ]
    }
}
