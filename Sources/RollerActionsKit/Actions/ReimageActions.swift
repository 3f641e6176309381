// SPDX-License-Identifier: MPL-2.0

import JSON
package import RollerKit

/// An action after which a machine may be in other hands.
protocol LendingAction: RollerAction {
    /// What is written down once the action has succeeded.
    var lending: Lending { get }
}

/// Which way a machine goes.
enum Lending: Hashable {
    /// To a borrower.
    case out
    /// Back to us.
    case back
    /// It stays where it is.
    case stays
}

/// `reimage`, `return_loan`: boots the machine once from the network, and waits until it is told that it has become another
/// one, or until it is back.
package struct ReimageAction: RollerAction, LendingAction {
    /// The name in requests and the text of the button.
    package let description: ActionDescription
    let returns: Bool

    var lending: Lending { returns ? .back : .stays }

    private init(_ name: String, returns: Bool, _ title: String, _ summary: String) {
        self.returns = returns
        description = ActionDescription(
            name,
            title: title,
            summary: summary,
            isDestructive: true,
            controls: [.ipmi, .redfish, .ssh],
            needsConfirmation: true,
            parameters: ["type": "object", "properties": ["confirm": ["type": "string"]]]
        )
    }

    /// Both of them.
    package static let all = [
        ReimageAction(
            "reimage",
            returns: false,
            "Reimage",
            "Installs the machine anew from the network. **Erases it.**"
        ),
        ReimageAction(
            "return_loan",
            returns: true,
            "Return loan",
            "Takes a lent machine back and installs it anew. **Erases it.**"
        ),
    ]

    /// The steps.
    package func plan(_ job: ActionJob, _ target: ActionTarget, _ settings: ActionSettings) throws(ActionError)
        -> [String]
    {
        var lines: [String] = []
        let hook = try Self.hook(job, target, settings)
        if let hook { lines.append(hook.joined(separator: " ")) }
        for action in try Self.steps(target) { lines += try action.plan(job, target, settings) }
        if let command = Self.command(target) {
            lines.append(try SSHClient.plan(command, target.control(.ssh), target))
        }
        let end =
            hook != nil && settings.publicURL != nil
            ? "wait until the installation calls back" : "wait until the machine answers again"
        return lines + [end]
    }

    /// An installation takes longer than other work.
    package func extraTime(_ settings: ActionSettings) -> Duration { settings.reimageTimeout }

    /// Prepares the installation, boots from the network and waits.
    package func run(_ context: ActionContext) async throws(ActionError) -> ActionResult {
        guard context.job.params["confirm"]?.string?.lowercased() == context.target.name.lowercased() else {
            throw ActionError(.config, "the parameter confirm must repeat the name of the machine")
        }
        // What is wrong with the inventory shows before anything is touched.
        let steps = try Self.steps(context.target)
        var expectsCall = false
        if let hook = try Self.hook(context.job, context.target, context.settings) {
            expectsCall = try await prepare(hook, context)
        }
        var limits = RebootLimits(context.target, context.settings)
        limits.up = context.settings.reimageTimeout
        let verifier = RebootVerifier(context: context, limits: limits)
        let mark = try await verifier.mark()
        let greeting = await Self.greeting(context.target)
        if let command = Self.command(context.target) {
            try await ask(command, context)
        } else {
            for action in steps { try await carryOut(action, context) }
        }
        if expectsCall { return try await waitForCall(context) }
        let finding = try await verifier.verify(mark, method: description.name)
        if let greeting, let now = await Self.greeting(context.target), now != greeting {
            return ActionResult("the machine was installed anew, verified by ssh-banner", Self.details("ssh-banner"))
        }
        let summary = "the machine booted anew, verified by \(finding.evidence); whether it was installed nobody told"
        return ActionResult(summary, Self.details(finding.evidence), isVerified: false)
    }

    private func carryOut(_ action: any RollerAction, _ context: ActionContext) async throws(ActionError) {
        do throws(ActionError) {
            _ = try await action.run(context)
        } catch {
            // The command may have arrived although its answer has not; the machine will show it.
            guard error.outcome == .unverified, !error.endsJob else { throw error }
        }
    }

    private static func details(_ evidence: String) -> JSONObject { ["verification": JSONValue(evidence)] }

    // MARK: - Being told

    /// Has the operator's program prepare the installation; answers whether it was told where to call back.
    private func prepare(_ hook: [String], _ context: ActionContext) async throws(ActionError) -> Bool {
        var invocation = ToolInvocation(hook, limit: .seconds(60))
        invocation.environment["ROLLER_JOB_ID"] = context.job.id
        var expectsCall = false
        if let url = context.settings.publicURL, let token = try await context.conduct.openCallback() {
            context.tools.redactor.learn([token])
            let base = url.hasSuffix("/") ? String(url.dropLast()) : url
            // Whoever knows the token may speak for the machine: it is in no argument.
            invocation.environment["ROLLER_CALLBACK_URL"] =
                "\(base)/api/v1/jobs/\(context.job.id)/callback?token=\(token)"
            expectsCall = true
        }
        let ready = invocation
        try await context.attempt("reimage_hook", nil, changes: true, arguments: hook) {
            () async throws(ActionError) -> (Void, AttemptEnd) in
            let output = try await context.tools.run(ready)
            if output.timedOut { throw ActionError(.timeout, "the hook did not end in time") }
            guard output.code == 0 else { throw ActionError(.other, "the hook ended with status \(output.code)") }
            return ((), AttemptEnd(.ok, exitCode: 0, summary: "the installation is prepared", output: output.text))
        }
        return expectsCall
    }

    /// Waits for the installation's own word: that a machine answers again would say nothing about it.
    private func waitForCall(_ context: ActionContext) async throws(ActionError) -> ActionResult {
        try await context.conduct.beginVerifying()
        let limit = context.settings.reimageTimeout
        let end = ContinuousClock.now + limit
        let number = try await context.conduct.begin("callback", control: nil, arguments: [])
        do throws(ActionError) {
            while ContinuousClock.now < end {
                try await context.conduct.checkpoint()
                if let report = try await context.conduct.installationReport() {
                    let words = context.tools.redactor.clean(report.message.map { ": \($0)" } ?? "")
                    guard report.isGood else {
                        throw ActionError(.other, "the installation reports a failure\(words)")
                    }
                    await context.conduct.end(number, AttemptEnd(.ok, summary: "the installation called\(words)"))
                    let summary = "the machine was installed anew, verified by callback\(words)"
                    return ActionResult(summary, Self.details("callback"))
                }
                try await context.pause(.seconds(1))
            }
            throw ActionError(
                .timeout,
                "the installation did not call back within \(limit.settingsText)",
                outcome: .unverified
            )
        } catch {
            await context.conduct.end(
                number,
                AttemptEnd(error.outcome, errorClass: error.kind.name, summary: error.message)
            )
            throw error
        }
    }

    /// The program that prepares an installation, such as one that writes a configuration for the boot server.
    private static func hook(
        _ job: ActionJob,
        _ target: ActionTarget,
        _ settings: ActionSettings
    ) throws(ActionError) -> [String]? {
        guard let value = target.properties["reimage_hook"] else { return nil }
        let template = value.array?.compactMap(\.string) ?? value.string.map { [$0] } ?? []
        return try PlugIn(template, of: "the property reimage_hook").words(job, target, settings)
    }

    /// How the SSH server introduces itself; another installation mostly has another one.
    private static func greeting(_ target: ActionTarget) async -> String? {
        guard let control = target.controls(.ssh).first, let host = try? target.host() else { return nil }
        return await TCPPort.greeting(host, control.port ?? 22, within: .seconds(5))
    }

    private func ask(_ command: String, _ context: ActionContext) async throws(ActionError) {
        let control = try context.target.control(.ssh)
        let client = SSHClient(context: context, control: control)
        let shown = ["ssh", "-l", try SSHClient.login(control), "--", try context.target.host(), command]
        try await context.attempt(description.name, control, changes: true, arguments: shown) {
            () async throws(ActionError) -> (Void, AttemptEnd) in
            let (ending, output) = try await client.run(command)
            switch ending {
            case .exited(0), .broken:
                return ((), AttemptEnd(.ok, summary: "the machine accepted the command", output: output.text))
            default:
                throw ActionError(.other, "the machine did not accept the command (\(ending))")
            }
        }
    }

    /// A command of the inventory that lets the machine install itself, such as a netboot.
    private static func command(_ target: ActionTarget) -> String? { target.properties["reimage_command"]?.string }

    /// Boot device and power cycle by the best control.
    private static func steps(_ target: ActionTarget) throws(ActionError) -> [any RollerAction] {
        if command(target) != nil { return [] }
        let family = target.controls(.redfish).isEmpty ? "ipmi" : "redfish"
        let names = ["\(family)_bootdev_pxe", "\(family)_cycle"]
        let actions = names.compactMap { ActionRegistry.standard[$0] }
        guard actions.count == 2, !target.controls(family == "ipmi" ? .ipmi : .redfish).isEmpty else {
            throw ActionError(
                .config,
                "the machine has no control that lets it boot from the network",
                outcome: .skipped
            )
        }
        return actions
    }
}

/// `loan`: notes that a machine is lent, so that nobody reboots it under its borrower.
package struct LoanAction: RollerAction, LendingAction {
    /// The name in requests and the text of the button.
    package let description = ActionDescription(
        "loan",
        title: "Lend",
        summary: "Lends the machine to somebody: it takes no tasks and is left alone until it is returned.",
        isDestructive: true,
        needsConfirmation: true,
        parameters: [
            "type": "object",
            "properties": [
                "confirm": ["type": "string"], "borrower": ["type": "string"], "bug": ["type": "string"],
                "until": ["type": "string", "format": "date-time"],
            ],
        ]
    )

    var lending: Lending { .out }

    /// An action without settings of its own.
    package init() {}

    /// What is written down.
    package func plan(_ job: ActionJob, _ target: ActionTarget, _ settings: ActionSettings) throws(ActionError)
        -> [String]
    {
        let until = try QuarantineAction.until(job)
        return [
            "quarantine the workers of \(target.name) until \(until.iso8601)",
            "lend \(target.name) to \(try borrower(job))",
        ]
    }

    /// Keeps the workers of the machine from taking tasks; that it is lent is written down afterwards.
    package func run(_ context: ActionContext) async throws(ActionError) -> ActionResult {
        guard context.job.params["confirm"]?.string?.lowercased() == context.target.name.lowercased() else {
            throw ActionError(.config, "the parameter confirm must repeat the name of the machine")
        }
        let job = context.job
        let borrower = try borrower(job)
        let until = try QuarantineAction.until(job)
        let bug = job.params["bug"]?.string.map { ", bug \($0)" } ?? ""
        let gate = try context.gate()
        let change = try await context.attempt(
            "quarantine",
            nil,
            changes: true,
            arguments: gate.workers.map(\.description)
        ) { () async throws(ActionError) -> (WorkerGate.Change, AttemptEnd) in
            let change = try await gate.close(until: until, because: "roller: lent to \(borrower)\(bug), job \(job.id)")
            let summary = (change.done + change.skipped).joined(separator: "; ")
            return (change, AttemptEnd(change.done.isEmpty ? .skipped : .ok, summary: summary))
        }
        var details: JSONObject = ["borrower": JSONValue(borrower), "quarantine": .object(change.json)]
        if !change.done.isEmpty { details["quarantined_until"] = JSONValue(until.iso8601) }
        return ActionResult("\(context.target.name) is lent to \(borrower)", details)
    }

    private func borrower(_ job: ActionJob) throws(ActionError) -> String {
        guard let borrower = job.params["borrower"]?.string ?? (job.clientID.isEmpty ? nil : job.clientID) else {
            throw ActionError(.config, "the parameter borrower is missing")
        }
        return borrower
    }
}
