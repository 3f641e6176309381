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

/// `reimage`, `return_loan`: boots the machine once from the network, and waits until it has become another one.
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
        for action in try Self.steps(target) { lines += try action.plan(job, target, settings) }
        if let command = Self.command(target) {
            lines.append(try SSHClient.plan(command, target.control(.ssh), target))
        }
        return lines + ["wait until the machine answers again as another installation"]
    }

    /// Boots from the network and waits.
    package func run(_ context: ActionContext) async throws(ActionError) -> ActionResult {
        guard context.job.params["confirm"]?.string?.lowercased() == context.target.name.lowercased() else {
            throw ActionError(.config, "the parameter confirm must repeat the name of the machine")
        }
        var limits = RebootLimits(context.target, context.settings)
        limits.up = context.settings.reimageTimeout
        let verifier = RebootVerifier(context: context, limits: limits)
        let mark = try await verifier.mark()
        if let command = Self.command(context.target) {
            try await ask(command, context)
        } else {
            for action in try Self.steps(context.target) { _ = try await action.run(context) }
        }
        let finding = try await verifier.verify(mark, method: description.name)
        return ActionResult(
            "the machine was installed anew, verified by \(finding.evidence)",
            ["verification": JSONValue(finding.evidence)],
            isVerified: finding.isVerified
        )
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
