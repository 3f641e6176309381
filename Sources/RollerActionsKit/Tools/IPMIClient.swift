// SPDX-License-Identifier: MPL-2.0

import JSON
import RollerKit

/// Talks to a baseboard management controller through `ipmitool`.
struct IPMIClient {
    let context: ActionContext
    let control: Control

    /// Suites without authentication, integrity or confidentiality.
    private static let weakSuites: Set<Int> = [0, 1, 2, 6, 7, 11, 15, 16]

    /// Sends a command as an attempt of its own and answers what was printed.
    func perform(_ command: IPMICommand, method: String) async throws(ActionError) -> ToolOutput {
        let known = context.memory.suite(of: control.controllerID) ?? control.learned[Self.suiteFact]?.int
        let suites = try Self.suites(control, context.settings, known: known)
        var rejected = 0
        for suite in suites {
            do throws(ActionError) {
                let output = try await attempt(command, suite: suite, method: method)
                if suite != known { await context.conduct.learn([Self.suiteFact: JSONValue(suite)], about: control) }
                context.memory.remember(suite: suite, of: control.controllerID)
                return output
            } catch  where error.kind == .unsupported && error.message == Self.suiteRejected {
                rejected += 1
            }
        }
        throw ActionError(.unsupported, "the controller accepts none of \(suites.count) cipher suites")
    }

    /// What the suite that works is called among the things learned about a controller.
    private static let suiteFact = "cipher_suite"

    private static let suiteRejected = "the controller does not know the cipher suite"

    private func attempt(
        _ command: IPMICommand,
        suite: Int,
        method: String
    ) async throws(ActionError) -> ToolOutput {
        let invocation = try invocation(command, suite: suite)
        return try await context.attempt(
            method,
            control,
            changes: command.changes,
            arguments: invocation.arguments,
            limit: Self.limit(command, control) + .seconds(10)
        ) { () async throws(ActionError) -> (ToolOutput, AttemptEnd) in
            var output = try await context.tools.run(invocation)
            if output.code != 0, command.isIdempotent,
                IPMIReply.failure(output, interval: Self.interval(command, control)).isRetriable
            {
                try await context.pause(.seconds(5))
                output = try await context.tools.run(invocation)
            }
            guard output.code == 0, !output.timedOut else {
                if IPMIReply.rejectsSuite(output.text) { throw ActionError(.unsupported, Self.suiteRejected) }
                if IPMIReply.isWrongState(output.text) {
                    throw ActionError(.refused, Self.wrongState, outcome: .failed)
                }
                let failure = IPMIReply.failure(output, interval: Self.interval(command, control))
                // Nothing was sent when no session came about; later, one cannot know.
                let sent =
                    !command.isIdempotent && ![.credentialsOrSession, .config, .unsupported].contains(failure.kind)
                    && !output.text.contains("Unable to establish")
                throw sent ? failure.asUnverified : failure
            }
            let summary = IPMIReply.lines(output.text).last.map { String($0.prefix(160)) } ?? "done"
            return (output, AttemptEnd(.ok, exitCode: 0, summary: summary, output: output.text))
        }
    }

    /// What a failure says that means "the power is off".
    static let wrongState = "the command is not possible while the power is off"

    /// Whether the machine has power.
    func power(method: String = "ipmi_status") async throws(ActionError) -> PowerState {
        IPMIReply.power(try await perform(.status, method: method).text)
    }

    // MARK: - The command line

    /// The suites to try, in order: the one that worked last, then those of the controller, else of the settings.
    static func suites(
        _ control: Control,
        _ settings: ActionSettings,
        known: Int? = nil
    ) throws(ActionError) -> [Int] {
        let allowsWeak = control.setting("allow_weak")?.bool ?? false
        let configured = control.setting("cipher_suites")?.array?.compactMap(\.int) ?? settings.cipherSuites
        var suites = configured.filter { allowsWeak || !Self.weakSuites.contains($0) }
        if let known, suites.contains(known) { suites = [known] + suites.filter { $0 != known } }
        guard !suites.isEmpty else { throw ActionError(.config, "every cipher suite of \(control.name) is too weak") }
        return suites
    }

    func invocation(_ command: IPMICommand, suite: Int) throws(ActionError) -> ToolInvocation {
        let credential = try context.credential(of: control)
        guard let user = credential.username, let password = credential.password else {
            throw ActionError(.config, "the credential of \(control.name) lacks user or password")
        }
        guard password.utf8.count <= 20 else {
            throw ActionError(.config, "the password of \(control.name) is longer than IPMI allows")
        }
        var arguments = try Self.arguments(command, control, suite: suite, user: user, hasKey: credential.kgKey != nil)
        arguments.removeAll { $0.isEmpty }
        var environment = ["IPMITOOL_PASSWORD": password, "IPMI_PASSWORD": password]
        if let key = credential.kgKey { environment["IPMI_KGKEY"] = key }
        return ToolInvocation(arguments, environment: environment, limit: Self.limit(command, control))
    }

    static func arguments(
        _ command: IPMICommand,
        _ control: Control,
        suite: Int,
        user: String,
        hasKey: Bool = false
    ) throws(ActionError) -> [String] {
        var bridge: [String] = []
        for token in control.setting("bridge")?.array?.compactMap(\.string) ?? [] {
            // Old tables keep two words in one element.
            bridge += token.split(separator: " ").map(String.init)
        }
        guard bridge.allSatisfy({ Self.isBridgeToken($0) }) else {
            throw ActionError(.config, "the bridging of \(control.name) is not well formed")
        }
        return [
            "ipmitool", "-I", control.setting("interface")?.string ?? "lanplus", "-C", "\(suite)",
            "-N", "\(interval(command, control))", "-R", "\(command.transmissions)",
            "-L", control.setting("privilege")?.string ?? "OPERATOR",
            "-H", try control.host(), "-p", "\(control.port ?? 623)", "-U", user, "-E",
        ] + (hasKey ? ["-K"] : []) + bridge + command.words
    }

    /// Seconds between transmissions; slow controllers want more.
    static func interval(_ command: IPMICommand, _ control: Control) -> Int {
        control.setting("interval")?.int.map { min(max($0, 1), 60) } ?? command.interval
    }

    private static func limit(_ command: IPMICommand, _ control: Control) -> Duration {
        max(command.limit, .seconds(interval(command, control) * (command.transmissions + 1) * 3))
    }

    private static func isBridgeToken(_ token: String) -> Bool {
        if ["-b", "-B", "-t", "-T"].contains(token) { return true }
        let digits = token.hasPrefix("0x") ? token.dropFirst(2) : Substring(token)
        return !digits.isEmpty && digits.count <= 3 && digits.allSatisfy(\.isHexDigit)
    }
}
