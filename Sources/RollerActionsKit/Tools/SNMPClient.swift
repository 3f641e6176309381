// SPDX-License-Identifier: MPL-2.0

import JSON
import RollerKit

/// One outlet of a power distribution unit, as the unit's tables call it.
struct Outlet: Hashable {
    /// What a unit understands.
    struct Profile: Hashable {
        var control: String
        var state: String
        var on = 1
        var off = 2
        var reboot: Int? = 3
        var stateOn: Set<Int> = [1]
        var stateOff: Set<Int> = [2]
    }

    var profile: Profile

    /// Reads the profile and the place from a control.
    init(_ control: Control) throws(ActionError) {
        let place = control.locator["outlet"]?.string ?? control.locator["outlet"]?.int.map { "\($0)" } ?? ""
        switch control.setting("profile")?.string ?? control.type ?? "sentry3" {
        case "sentry3":
            let base = "1.3.6.1.4.1.1718.3.2.3.1"
            let index = try Self.sentryIndex(place)
            profile = Profile(control: "\(base).11.\(index)", state: "\(base).5.\(index)", stateOff: [0])
        case "apc_rpdu", "apc":
            let oid = "1.3.6.1.4.1.318.1.1.12.3.3.1.1.4.\(try Self.number(place))"
            profile = Profile(control: oid, state: oid)
        case "apc_masterswitch":
            let oid = "1.3.6.1.4.1.318.1.1.4.4.2.1.3.\(try Self.number(place))"
            profile = Profile(control: oid, state: oid)
        case "raritan_pdu2":
            let oid = "1.3.6.1.4.1.13742.6.4.1.2.1.2.1.\(try Self.number(place))"
            profile = Profile(control: oid, state: oid, on: 1, off: 0, reboot: 2, stateOff: [0])
        case "custom":
            profile = try Self.custom(control, place)
        default:
            throw ActionError(.config, "the outlet profile of \(control.name) is unknown")
        }
    }

    /// `ba6` is tower 2, infeed 1, outlet 6.
    static func sentryIndex(_ text: String) throws(ActionError) -> String {
        let letters = text.lowercased().utf8.prefix(2).map { Int($0) - 96 }
        let number = text.dropFirst(2)
        guard letters.count == 2, letters.allSatisfy({ (1...3).contains($0) }), let outlet = Int(number),
            (1...64).contains(outlet), number.allSatisfy({ ("0"..."9").contains($0) })
        else { throw ActionError(.config, "the outlet is not of the form aa1") }
        return "\(letters[0]).\(letters[1]).\(outlet)"
    }

    private static func number(_ text: String) throws(ActionError) -> Int {
        guard let number = Int(text), (1...1000).contains(number) else {
            throw ActionError(.config, "the outlet is not a number")
        }
        return number
    }

    private static func custom(_ control: Control, _ place: String) throws(ActionError) -> Profile {
        func oid(_ name: String) throws(ActionError) -> String? {
            guard let template = control.setting(name)?.string else { return nil }
            let oid = template.replacing("{outlet}", with: place)
            guard !oid.isEmpty, oid.allSatisfy({ $0 == "." || ("0"..."9").contains($0) }) else {
                throw ActionError(.config, "the object identifier \(name) of \(control.name) is not well formed")
            }
            return oid
        }
        guard let set = try oid("control_oid") else {
            throw ActionError(.config, "the controller \(control.name) lacks control_oid")
        }
        let values = control.setting("values")
        let states = control.setting("states")
        let on = values?["on"]?.int ?? 1
        let off = values?["off"]?.int ?? 2
        return Profile(
            control: set,
            state: try oid("state_oid") ?? set,
            on: on,
            off: off,
            reboot: values?["reboot"]?.int,
            stateOn: [states?["on"]?.int ?? on],
            stateOff: [states?["off"]?.int ?? off]
        )
    }

    func power(_ value: Int) -> PowerState {
        profile.stateOn.contains(value) ? .on : profile.stateOff.contains(value) ? .off : .unknown
    }
}

/// Talks to power distribution units through the programs of net-snmp; the secrets travel in a private file.
struct SNMPClient {
    var context: ActionContext
    let control: Control
    let outlet: Outlet

    init(_ context: ActionContext, _ control: Control) throws(ActionError) {
        self.context = context
        self.control = control
        outlet = try Outlet(control)
    }

    /// What is asked of an outlet.
    enum Verb: String { case on, off, reboot }

    private func value(_ verb: Verb) throws(ActionError) -> Int {
        switch verb {
        case .on: return outlet.profile.on
        case .off: return outlet.profile.off
        case .reboot:
            guard let value = outlet.profile.reboot else {
                throw ActionError(.unsupported, "the outlet of \(control.name) cannot reboot by itself")
            }
            return value
        }
    }

    /// The command line of a change.
    static func plan(_ verb: Verb, _ control: Control) throws(ActionError) -> String {
        let outlet = try Outlet(control)
        let value = verb == .on ? outlet.profile.on : verb == .off ? outlet.profile.off : outlet.profile.reboot ?? 3
        let retries = verb == .reboot ? 0 : 2
        return try arguments("snmpset", control, retries: retries, [outlet.profile.control, "i", "\(value)"])
            .joined(separator: " ")
    }

    /// Changes the outlet as an attempt of its own.
    func set(_ verb: Verb, method: String) async throws(ActionError) {
        let value = try value(verb)
        // The unit may have acted although its answer was lost, so what is not harmless twice is sent once.
        let retries = verb == .reboot ? 0 : 2
        let arguments = try Self.arguments(
            "snmpset",
            control,
            retries: retries,
            [outlet.profile.control, "i", "\(value)"]
        )
        try await context.attempt(method, control, changes: true, arguments: arguments, limit: .seconds(240)) {
            () async throws(ActionError) -> (Void, AttemptEnd) in
            let output = try await run(arguments)
            if let failure = Self.failure(output) { throw verb == .reboot ? failure.asUnverified : failure }
            return ((), AttemptEnd(.ok, exitCode: 0, summary: "outlet set to \(verb.rawValue)"))
        }
    }

    /// What the outlet shows.
    func power() async throws(ActionError) -> PowerState {
        let arguments = try Self.arguments("snmpget", control, retries: 2, [outlet.profile.state])
        let output = try await run(arguments)
        if let failure = Self.failure(output) { throw failure }
        let text = output.text.split { $0.isWhitespace || $0 == "\"" }.last ?? ""
        return Int(text).map(outlet.power) ?? .unknown
    }

    /// What the outlet shows, as an attempt of its own.
    func verify(_ wanted: PowerState, method: String) async throws(ActionError) {
        let arguments = try Self.arguments("snmpget", control, retries: 2, [outlet.profile.state])
        try await context.attempt(method, control, changes: false, arguments: arguments, limit: .seconds(240)) {
            () async throws(ActionError) -> (Void, AttemptEnd) in
            var seen = PowerState.unknown
            // Units switch their relays one after the other, so the state may lag behind.
            for attempt in 1...8 {
                seen = try await power()
                if seen == wanted { break }
                if attempt < 8 { try await context.pause(.milliseconds(500)) }
            }
            guard seen == wanted else {
                throw ActionError(.unverifiedOutlet, "the outlet shows \(seen.rawValue)", outcome: .unverified)
            }
            return ((), AttemptEnd(.ok, exitCode: 0, summary: "the outlet shows \(seen.rawValue)"))
        }
    }

    // MARK: - The programs

    private static func arguments(
        _ program: String,
        _ control: Control,
        retries: Int,
        _ rest: [String]
    ) throws(ActionError) -> [String] {
        let host = HostName.inURL(try control.host())
        let transport = host.hasPrefix("[") ? "udp6" : "udp"
        return [
            program, "-t", "\(seconds(control))", "-r", "\(retries)", "-Oqn",
            "\(transport):\(host):\(control.port ?? 161)",
        ] + rest
    }

    /// How long a unit may take to answer.
    private static func seconds(_ control: Control) -> Int {
        min(max(control.setting("timeout")?.int ?? 3, 1), 60)
    }

    private func run(_ arguments: [String]) async throws(ActionError) -> ToolOutput {
        let files = try SecretFiles()
        defer { files.remove() }
        _ = try files.write("snmp.conf", try configuration())
        return try await context.tools.run(
            ToolInvocation(
                arguments,
                environment: [
                    "MIBS": "", "MIBDIRS": files.directory, "SNMPCONFPATH": files.directory,
                    "SNMP_PERSISTENT_DIR": files.directory,
                ],
                limit: .seconds(Self.seconds(control) * 3 + 10)
            )
        )
    }

    /// The private file of net-snmp: version and secrets.
    private func configuration() throws(ActionError) -> String {
        let credential = try context.credential(of: control)
        if let user = credential.object("snmpV3") { return try configuration(user) }
        guard let community = credential.community ?? credential.password else {
            throw ActionError(.config, "the credential of \(control.name) has no community")
        }
        let version = control.setting("version")?.string == "1" ? "1" : "2c"
        return "defVersion \(version)\ndefCommunity \(try quoted(community))\n"
    }

    private func configuration(_ user: JSONObject) throws(ActionError) -> String {
        let (auth, privacy) = (user["authPassphrase"]?.string, user["privPassphrase"]?.string)
        let level = privacy != nil ? "authPriv" : auth != nil ? "authNoPriv" : "noAuthNoPriv"
        var lines = [
            "defVersion 3", "defSecurityName \(try quoted(user["username"]?.string ?? ""))",
            "defSecurityLevel \(level)",
        ]
        if let auth {
            lines.append("defAuthType \(try Self.algorithm(user["authProtocol"]?.string ?? "SHA", control))")
            lines.append("defAuthPassphrase \(try quoted(auth))")
        }
        if let privacy {
            lines.append("defPrivType \(try Self.algorithm(user["privProtocol"]?.string ?? "AES", control))")
            lines.append("defPrivPassphrase \(try quoted(privacy))")
        }
        return lines.joined(separator: "\n") + "\n"
    }

    /// The name of an algorithm, which may not be quoted.
    private static func algorithm(_ name: String, _ control: Control) throws(ActionError) -> String {
        guard !name.isEmpty,
            name.utf8.allSatisfy({
                $0 == UInt8(ascii: "-") || Character(Unicode.Scalar($0)).isLetter
                    || Character(Unicode.Scalar($0)).isNumber
            }), name.allSatisfy(\.isASCII)
        else { throw ActionError(.config, "the credential of \(control.name) names an algorithm that is none") }
        return name
    }

    /// A value in the configuration language of net-snmp.
    private func quoted(_ text: String) throws(ActionError) -> String {
        guard text.utf8.allSatisfy({ $0 >= 0x20 }) else {
            throw ActionError(.config, "the credential of \(control.name) contains control characters")
        }
        return "\"" + text.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"") + "\""
    }

    static func failure(_ output: ToolOutput) -> ActionError? {
        let text = output.text
        if output.timedOut || text.contains("Timeout") {
            return ActionError(.pduUnreachable, "the power distribution unit does not answer")
        }
        let denials = [
            "Authentication failure", "Unknown user name", "noAccess", "authorizationError", "Decryption error",
            "Unsupported security level", "incorrect password",
        ]
        if denials.contains(where: { text.contains($0) }) {
            return ActionError(.credentials, "the power distribution unit does not accept our credentials")
        }
        guard output.code == 0 else {
            let reason =
                text.split(separator: "\n").first { $0.contains("Reason") } ?? text.split(separator: "\n").last ?? ""
            return ActionError(.other, "the power distribution unit refused: \(reason.prefix(120))")
        }
        if text.contains("No Such") {
            return ActionError(.unverifiedOutlet, "there is no such outlet", outcome: .unverified)
        }
        return nil
    }
}
