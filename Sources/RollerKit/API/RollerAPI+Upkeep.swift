// SPDX-License-Identifier: MPL-2.0

import APIServer
import JSON
import Schedules

/// What operators need now and then: broken locks, secrets, host keys, and what looks wrong.
extension RollerAPI {
    /// Takes a lock from its holder.
    func breakLock(_ request: RollerRequest, _ caller: Caller) async throws -> RawResponse {
        let body = try await request.json()
        var problems = JSONObject()
        func text(_ field: String, limit: Int) -> String {
            let text = body[field]?.string ?? ""
            if text.allSatisfy(\.isWhitespace) { problems[field] = ["This field may not be blank."] }
            if text.utf8.count > limit { problems[field] = ["This value is too long."] }
            return text
        }
        let resource = text("resource", limit: 4096)
        let reason = text("reason", limit: 1024)
        guard problems.isEmpty else { throw Refusal(400, .object(problems)) }
        let options = options(request, caller, verb: "lock.break")
        guard let broken = try await jobs.breakLock(resource, reason: reason, options) else { throw Refusal.notFound }
        return Self.json(
            200,
            [
                "resource": .string(resource), "job": JobView.text(broken.job?.id),
                "status": JobView.text(broken.job?.status.rawValue),
            ]
        )
    }

    /// What looks wrong in the inventory as it is.
    func lint() async throws -> RawResponse {
        let (problems, warnings) = try await inventory.lint(credentials)
        return Self.json(200, ["errors": .array(problems.map(\.json)), "warnings": JSONValue(warnings)])
    }

    /// The host keys that are accepted of machines which are reached by SSH.
    func hostKeys(_ request: RollerRequest) async throws -> RawResponse {
        var machines: [MachineDetail] = []
        if let name = request.option("machine") {
            guard let machine = try await find(name) else { throw Refusal.notFound }
            machines = [machine]
        } else {
            machines = try await inventory.details(
                where: """
                    exists (select 1 from roller.machine_controls mc join roller.controllers c on c.id = mc.controller
                        where mc.machine = m.id and c.kind = \(ControllerKind.ssh.rawValue))
                    """
            )
        }
        return Self.json(200, ["machines": .array(machines.map(Self.keys))])
    }

    private static func keys(_ machine: MachineDetail) -> JSONValue {
        let own = HostKey.pinned(machine.properties)
        let shared = machine.controls.filter { $0.controller.kind == .ssh }.flatMap { control in
            HostKey.list(control.locator["host_keys"] ?? control.controller.options["host_keys"])
        }
        let source = own.isEmpty ? "controller" : "machine"
        return [
            "machine": .string(machine.machine.name),
            "keys": .array(
                (own.isEmpty ? shared : own).map { key in
                    ["type": .string(key.type), "fingerprint": .string(key.fingerprint), "source": .string(source)]
                }
            ),
        ]
    }

    // MARK: - Credentials

    /// Which credentials there are; never what is in them.
    func listCredentials() async throws -> RawResponse {
        let uses = try await inventory.credentialUses()
        let files: [CredentialStore.Facts]
        do {
            files = try credentials.list()
        } catch {
            throw Refusal.detail(409, error.description)
        }
        let known = Set(files.map(\.name))
        let views = files.map { facts -> JSONValue in
            [
                "name": .string(facts.name), "members": JSONValue(facts.members),
                "modified_at": .string(facts.modified.iso8601), "problem": JobView.text(facts.problem),
                "shared_with": JSONValue(facts.twins), "controllers": JSONValue(uses[facts.name] ?? []),
            ]
        }
        let missing = uses.filter { !known.contains($0.key) }.sorted { $0.key < $1.key }.map { name, controllers in
            ["name": .string(name), "controllers": JSONValue(controllers)] as JSONValue
        }
        return Self.json(200, ["credentials": .array(views), "missing": .array(missing)])
    }

    /// Stores a credential in the place of the one of its name.
    func setCredential(_ name: String, _ request: RollerRequest, _ caller: Caller) async throws -> RawResponse {
        try gate.require("inventory:secrets", of: caller)
        guard let members = try await request.json(limit: 1 << 15).object, !members.isEmpty else {
            throw Refusal.detail(400, "The body must be an object with at least one member.")
        }
        let existed = credentials.contains(name)
        do {
            try await inventory.saveCredential(
                Credential(members),
                as: name,
                in: credentials,
                options(request, caller, verb: "credential.put")
            )
        } catch let problem as CredentialStore.Problem {
            throw Refusal.detail(409, problem.description)
        }
        return Self.json(existed ? 200 : 201, ["name": .string(name), "members": JSONValue(members.keys.sorted())])
    }

    /// Removes a credential that no controller needs.
    func removeCredential(_ name: String, _ request: RollerRequest, _ caller: Caller) async throws -> RawResponse {
        try gate.require("inventory:secrets", of: caller)
        let outcome: (existed: Bool, users: [String])
        do {
            outcome = try await inventory.removeCredential(
                name,
                from: credentials,
                options(request, caller, verb: "credential.delete")
            )
        } catch let problem as CredentialStore.Problem {
            throw Refusal.detail(409, problem.description)
        }
        guard outcome.users.isEmpty else {
            throw Refusal.detail(409, "Needed by \(outcome.users.joined(separator: ", ")).")
        }
        guard outcome.existed else { throw Refusal.notFound }
        return RawResponse(status: 204)
    }
}
