// SPDX-License-Identifier: MPL-2.0

import JSON
import Schedules
public import StepKit

/// Steps that Balrog decides about.
extension SignoffService {
    /// How often Balrog is asked by itself.
    static let balrogPause: Duration = .seconds(60)
    /// How old what is known may be when somebody asks.
    static let balrogAge: Duration = .seconds(5)

    /// What asking Balrog came to.
    enum BalrogAnswer: Sendable {
        case state(BalrogState)
        case unknown
        case failure(String)
    }

    func ask(_ wanted: BalrogChange) async -> BalrogAnswer {
        guard let balrog else { return .failure("no Balrog is configured") }
        do {
            guard let state = try await balrog.state(of: wanted) else { return .unknown }
            return .state(state)
        } catch {
            return .failure("\(error)")
        }
    }

    /// Refuses a step about a change that does not exist; a step that is there already stays as it is.
    func checkExists(_ wanted: BalrogChange, _ uid: String) async throws {
        guard try await store.find(uid) == nil else { return }
        switch await ask(wanted) {
        case .state: return
        case .unknown:
            throw StepProblem.invalid("Balrog knows no change \(wanted.id) of \(wanted.object)", code: "unknown_change")
        case .failure(let text): throw Self.unavailable(text)
        }
    }

    private static func unavailable(_ text: String) -> StepProblem {
        StepProblem(503, "balrog_unavailable", "Balrog: \(text)", headers: ["Retry-After": "30"])
    }

    /// Writes down what Balrog says; it completes a step on Balrog's word alone.
    func apply(_ answer: BalrogAnswer, _ change: inout StepTransaction) throws {
        guard !change.step.state.isTerminal else { return }
        change.step.nextCheck = change.now + Self.balrogPause
        switch answer {
        case .failure(let text):
            guard change.step.info["stale_since"] == nil else { return }
            change.step.info["stale_since"] = .string(change.now.iso8601)
            change.record("unreachable", ["error": .string(text)])
        case .unknown:
            change.move(to: .exception, message: "the change is gone from Balrog")
        case .state(let state):
            let version = state.version.map { JSONValue($0) } ?? .null
            if let known = change.step.info["sc_data_version"], known != version {
                change.record("balrog_changed", ["from": known, "to": version])
            }
            let people = state.signoffs.sorted { $0.key < $1.key }
            let missing = state.isComplete ? [] : state.missing.sorted { $0.key < $1.key }
            change.step.info = [
                "sc_data_version": version,
                "signees": JSONValue(people.map(\.key)),
                "signatures": .array(people.map { ["name": .string($0.key), "group": .string($0.value)] }),
                "missing": [.object(JSONObject(missing.map { (key: $0.key, value: JSONValue($0.value)) }))],
            ]
            guard state.isApproved else { return }
            change.step.output = [
                "signees": JSONValue(people.map(\.key)),
                "digest": .string(Hexadecimal.encoded(change.step.digest)),
            ]
            change.move(to: .completed, message: "signed at Balrog")
        }
    }

    /// The step with what Balrog says now, unless that is known well enough.
    public func refreshed(_ step: Step) async throws -> Step {
        guard balrog != nil, !step.state.isTerminal, let next = step.nextCheck,
            Self.balrogPause - (next - store.now()) > Self.balrogAge,
            let full = try await store.load(step.uid), full.id == step.id,
            let policy = try? policy(of: full), let wanted = policy.balrog
        else { return step }
        let answer = await ask(wanted)
        return try await store.change(step.uid, actor: store.announcement.actor) { change in
            guard change.step.id == step.id else { return }
            try apply(answer, &change)
        }.step
    }

    /// Where a person who holds a role signs a step that Balrog decides about; nil for other steps.
    func balrogURL(_ uid: String, role: String, _ person: Person) async throws -> String? {
        guard let balrog, let step = try await store.load(uid), let wanted = try policy(of: step).balrog else {
            return nil
        }
        guard !step.state.isTerminal else {
            throw StepProblem.conflict("step_closed", "The step is \(step.state.rawValue)")
        }
        guard let email = person.email else {
            throw StepProblem(403, "not_in_group", "Balrog knows people by their verified address, which you lack")
        }
        let roles: Set<String>
        do {
            roles = try await balrog.roles(of: email)
        } catch {
            throw Self.unavailable("\(error)")
        }
        guard roles.contains(role) else {
            throw StepProblem(403, "not_in_group", "You do not hold the role \(role) at Balrog")
        }
        return balrog.signoffsURL(wanted)
    }
}
