// SPDX-License-Identifier: MPL-2.0

import JSON
import PipelineKit
import Postgres
import Schedules
import StepTestSupport
import TestSupport
import Testing

@testable import ReleasesKit
@testable import StepKit

/// Whatever people, revocations and changes come in whatever order: nothing runs without a quorum of different people on
/// exactly what runs.
///
/// `SHIPIT_SCHEDULES` says how many orders are tried in memory, and a fiftieth of them on the database.
@Suite(.timeLimit(.minutes(30)))
struct PhasePropertyTests {
    // MARK: - In memory

    /// A phase as the service keeps it, with what is decided under its locks one after the other.
    private struct Machine {
        let slots: [Signoff]
        let groups: [String]
        var signatures: [PhaseSignature] = []
        var version = 0
        var revocations = 0
        var hasRun = false

        var approval: PhaseApproval { PhaseApproval(slots, digest, PhaseRules(), signatures) }
        var digest: [UInt8] { [UInt8(truncatingIfNeeded: version)] }

        mutating func open() -> PhaseApproval {
            var approval = approval
            _ = approval.dropFlawed()
            signatures = approval.signatures
            return approval
        }

        mutating func sign(_ slot: Int, _ signer: Signer) throws {
            guard !hasRun else { throw StepProblem.conflict("step_closed", "") }
            var approval = open()
            let now = Timestamp(milliseconds: 0)
            _ = try approval.sign(slots[slot].uid, by: signer, members: [groups[slot]], at: now)
            signatures = approval.signatures
            if approval.isGiven { hasRun = true }
        }

        mutating func takeBack(_ slot: Int, _ subject: String) -> Bool {
            guard !hasRun else { return false }
            var approval = open()
            let taken = approval.take(slots[slot].uid) { $0.subject == subject }
            signatures = approval.signatures
            return taken != nil
        }

        mutating func revoke(_ subject: String?, _ address: String?) {
            revocations += 1
            for index in signatures.indices where signatures[index].revocation == nil {
                let isNamed = signatures[index].subject == subject
                let isMeant = isNamed || (address != nil && signatures[index].email == address)
                if isMeant { signatures[index].revocation = revocations }
            }
        }
    }

    @Test func `55 and 63: no order of signing, taking back, revoking and changing runs a phase without its quorum`()
        throws
    {
        var ran = 0
        for seed in 0..<Dice.schedules {
            var dice = Dice(state: UInt64(seed))
            let groups = (0..<Int.random(in: 1...3, using: &dice)).map { _ in
                Bool.random(using: &dice) ? "shipit_releng" : "shipit_relman"
            }
            let slots = groups.indices.map {
                Signoff(uid: "slot-\($0)", phase: "ship", name: "", description: "", permissions: groups[$0])
            }
            var machine = Machine(slots: slots, groups: groups)
            var model = PhaseModel(slots: groups)
            for _ in 0..<24 where !machine.hasRun {
                try Self.act(&machine, &model, &dice, seed)
            }
            if machine.hasRun { ran += 1 }
        }
        // Orders that never come to anything prove nothing.
        #expect(ran > Dice.schedules / 10, "\(ran) of \(Dice.schedules) ran")
    }

    /// What an expectation would say, said only if there is something to say: there are very many of them.
    private static func compare(_ found: Bool, _ wanted: Bool, _ seed: Int, _ what: String) {
        if found != wanted { Issue.record("order \(seed), \(what): \(found), not \(wanted)") }
    }

    private static func act(
        _ machine: inout Machine,
        _ model: inout PhaseModel,
        _ dice: inout Dice,
        _ seed: Int
    ) throws {
        let slot = Int.random(in: 0..<model.slots.count, using: &dice)
        let human = Int.random(in: 0..<Human.all.count, using: &dice)
        let address = Int.random(in: 0...2, using: &dice)
        let person = Human.all[human]
        switch Int.random(in: 0..<20, using: &dice) {
        case 0..<12:
            let isAllowed = model.mayBeSigned(slot, by: human)
            let signer = person.signer(address)
            do {
                try machine.sign(slot, signer)
                compare(true, isAllowed, seed, "a signature is taken")
                model.diary.append(
                    .signed(slot: slot, human: human, address: signer.email, version: machine.version)
                )
            } catch {
                compare(false, isAllowed, seed, "a signature is taken")
            }
        case 12..<15:
            let isOwn = model.holders[slot] == human
            compare(machine.takeBack(slot, person.subject), isOwn, seed, "a signature is taken back")
            if isOwn { model.diary.append(.tookBack(slot: slot)) }
        case 15..<18:
            let byAddress = Bool.random(using: &dice) ? person.addresses[address % 2] : nil
            machine.revoke(byAddress == nil ? person.subject : nil, byAddress)
            model.diary.append(.revoked(subject: byAddress == nil ? person.subject : nil, address: byAddress))
        default:
            machine.version += 1
            model.diary.append(.changed(version: machine.version))
        }
        let isApproved = model.isApproved
        compare(machine.hasRun, isApproved, seed, "the phase runs")
        compare(machine.approval.isGiven, isApproved, seed, "the phase is approved")
        if machine.hasRun { model.diary.append(.ran) }
    }

    // MARK: - On the database

    private static let phase = "ship_firefox"

    private static var catalogue: JSONValue {
        let slot: JSONValue = ["name": "RelEng", "permissions": "releng"]
        let other: JSONValue = ["name": "RelMan", "permissions": "relman"]
        var catalogue = ReleaseWorld.catalogue
        catalogue["products"] = ["firefox": ["phases": [.string(phase)], "signoffs": ["ship_firefox": [slot, other]]]]
        return catalogue
    }

    @Test func `55 and 63: at the same moment on the database, nothing runs without its quorum either`() async throws {
        try await ReleaseWorld.with(catalogue: Self.catalogue, flavors: [Self.phase]) { world in
            var ran = 0
            let count = max(10, Dice.schedules / 50)
            for seed in 0..<count {
                let name = "Firefox-60.0b\(seed)-build1"
                try await Self.insert(name, seed, world)
                let slots = try await world.service.signoffs(Self.phase, of: name).signoffs.map(\.uid)
                try await withThrowingTaskGroup(of: Void.self) { group in
                    for worker in 0..<4 {
                        group.addTask {
                            var dice = Dice(state: UInt64(seed * 4 + worker) &* 0x2545_F491_4F6C_DD1D)
                            for _ in 0..<6 { try await Self.act(name, slots, &dice, world) }
                        }
                    }
                    try await group.waitForAll()
                }
                if try await Self.check(name, world) { ran += 1 }
            }
            #expect(ran > 0, "\(ran) of \(count) ran")
            try await world.service.writeDownRevocations()
        }
    }

    private static func insert(_ name: String, _ seed: Int, _ world: ReleaseWorld) async throws {
        let product = try #require(world.service.catalogue.product("firefox"))
        let release = Release(
            id: 0,
            name: name,
            product: "firefox",
            productKey: nil,
            branch: "releases/mozilla-beta",
            version: "60.0b\(seed)",
            buildNumber: 1,
            revision: "abc",
            repository: "",
            releaseETA: "",
            decisionTask: Surroundings.decision,
            input: ["edition": 0],
            status: .scheduled,
            created: .now(),
            phases: [Release.Phase(name: phase)],
            allowsSkipping: false
        )
        try await world.service.insert(release, product, by: .client(name: "script", scopes: ["*"]))
    }

    private static func person(_ human: Human, _ address: Int, at moment: Timestamp) -> Person {
        Person(
            subject: human.subject,
            email: human.signer(address).email,
            groups: human.groups,
            methods: ["pwd", "mfa"],
            usedSecondFactor: true,
            issued: moment,
            authenticated: moment,
            expires: moment + .seconds(3600),
            isMachine: false,
            issuer: "tests",
            tokenID: nil,
            tokenDigest: []
        )
    }

    private static func act(_ name: String, _ slots: [String], _ dice: inout Dice, _ world: ReleaseWorld) async throws {
        let human = Human.all[Int.random(in: 0..<Human.all.count, using: &dice)]
        let slot = slots[Int.random(in: 0..<slots.count, using: &dice)]
        let address = Int.random(in: 0...2, using: &dice)
        // Those who were revoked log in again at once, which is what the issuer would see.
        let person = person(human, address, at: .now() + .seconds(30))
        let choice = Int.random(in: 0..<20, using: &dice)
        do {
            switch choice {
            case 0..<11: _ = try await world.service.sign(slot, phase: phase, of: name, by: person)
            case 11:
                let old = Self.person(human, address, at: .now() - .seconds(86_400))
                _ = try await world.service.sign(slot, phase: phase, of: name, by: old)
                Issue.record("\(human.subject) has signed with a login of yesterday")
            case 12: _ = try await world.service.unsign(slot, phase: phase, of: name, by: person)
            case 13:
                _ = try await world.service.revoke(slot, phase: phase, of: name, by: "admin", reason: "a mistake")
            case 14..<16:
                let byAddress = choice == 14
                _ = try await world.service.revocations.add(
                    subject: byAddress ? nil : human.subject,
                    email: byAddress ? human.addresses[address % 2] : nil,
                    at: .now(),
                    by: "admin",
                    reason: "left"
                )
            case 16:
                try await world.pool.execute(
                    """
                    update shipit_releases.releases
                    set input = json_build_object('edition', (input ->> 'edition')::int + 1) where name = \(name)
                    """
                )
            case 17: try await world.service.writeDownRevocations()
            case 18: try await world.service.callForWaiting()
            default:
                _ = try await world.service.schedule(phase, of: name, by: .client(name: "script", scopes: ["*"]))
            }
        } catch let problem as StepProblem {
            // Refusals are what most of this comes to; faults are not.
            #expect((400..<500).contains(problem.status), "\(choice): \(problem.status) \(problem.detail)")
        }
    }

    /// Reads the audit of a release from its beginning: whoever had signed when the phase was called for has to be enough.
    ///
    /// - Returns: Whether the phase was called for.
    private static func check(_ name: String, _ world: ReleaseWorld) async throws -> Bool {
        let step = try #require(try await world.pipelines.pipelineStore.find(name))
        let events = try await world.pipelines.pipelineStore.events(of: step.id, limit: 500)
        let revocations = try await world.pool.query("select sequence, sub, email from shipit_people.revocations")
        var signatures: [String: (human: Human, digest: String, seen: Int, address: String?)] = [:]
        var approved: String?
        for event in events where event.subject == phase {
            let slot = event.data["slot"]?.string ?? ""
            switch event.kind {
            case "signed":
                let human = try #require(Human.of(event.data["sub"]?.string ?? ""))
                #expect(signatures[slot] == nil, "\(name): \(slot) was filled")
                let address = event.actor.contains("@") ? event.actor : nil
                let seen = try #require(event.data["revocations_seen"]?.int)
                signatures[slot] = (human, event.data["digest"]?.string ?? "", seen, address)
            case "unsigned", "revoked": signatures[slot] = nil
            case "phase_left": approved = nil
            case "phase_wanted":
                let digest = try #require(event.data["digest"]?.string)
                let seen = try #require(event.data["revocations_seen"]?.int)
                #expect(signatures.count == 2, "\(name)")
                #expect(Set(signatures.values.map(\.human)).count == 2, "\(name)")
                for signature in signatures.values {
                    #expect(signature.digest == digest, "\(name)")
                    let isRevoked = try revocations.contains { row in
                        let sequence = try row.int("sequence")
                        guard sequence > signature.seen, sequence <= seen else { return false }
                        let address = try row.optionalString("email")
                        let isMeant = address != nil && address == signature.address
                        return try row.optionalString("sub") == signature.human.subject || isMeant
                    }
                    #expect(!isRevoked, "\(name): \(signature.human.subject)")
                }
                let groups = signatures.values.map(\.human.groups)
                let fits = [0, 1].contains { first in
                    groups[first].contains("shipit_releng") && groups[1 - first].contains("shipit_relman")
                }
                #expect(fits, "\(name)")
                approved = digest
            case "call":
                let rows = try await world.pool.query(
                    """
                    select parameters from shipit_pipeline.pipeline_steps
                    where pipeline_id = \(step.id) and uid = \(phase)
                    """
                )
                var release = try await world.service.release(name)
                var input = try #require(rows.first?.optionalJSON("parameters")?["action"]?["input"]?.object)
                for own in ["release_promotion_flavor", "previous_graph_ids"] { input[own] = nil }
                release.input = input
                let slots = try await world.service.signatures.load(release.id, phase).slots
                let carried = Hexadecimal.encoded(release.digest(of: phase, slots))
                #expect(carried == approved, "\(name) carries out what nobody has signed")
            default: break
            }
        }
        let runs = try await world.pipelines.steps(ofPipelines: [name])[name] ?? []
        #expect(approved != nil || runs.allSatisfy { !$0.isCalledFor }, "\(name)")
        return approved != nil
    }
}
