// SPDX-License-Identifier: MPL-2.0

import JSON
import Schedules
import StepKit

@testable import ReleasesKit

/// Somebody of flesh and blood, who may come under several addresses.
struct Human: Sendable, Hashable {
    let number: Int
    let groups: Set<String>
    let addresses: [String]

    var subject: String { "ad|test|human-\(number)" }

    func signer(_ address: Int) -> Signer {
        Signer(subject: subject, email: address < addresses.count ? addresses[address] : nil, groups: groups)
    }

    static let all: [Human] = (0..<6).map { number in
        let groups: Set<String> =
            number % 3 == 0
            ? ["shipit_releng", "shipit_relman"]
            : number % 3 == 1 ? ["shipit_releng"] : ["shipit_relman"]
        return Human(
            number: number,
            groups: number == 5 ? [] : groups,
            addresses: ["human\(number)@example.com", "alias\(number)@example.com"]
        )
    }

    static func of(_ subject: String) -> Human? { all.first { $0.subject == subject } }
}

/// What is known of a phase if one only ever looks at the whole of what has happened.
///
/// It shares no code with what it is compared with: it keeps a diary and reads it from the beginning each time.
struct PhaseModel {
    enum Entry {
        case signed(slot: Int, human: Int, address: String?, version: Int)
        case tookBack(slot: Int)
        case revoked(subject: String?, address: String?)
        case changed(version: Int)
        case ran
    }

    /// The group of each slot.
    let slots: [String]
    var diary: [Entry] = []

    /// By slot, the human whose signature counts now.
    var holders: [Int: Int] {
        var version = 0
        var signatures: [Int: (human: Int, address: String?, version: Int)] = [:]
        for entry in diary {
            switch entry {
            case .signed(let slot, let human, let address, let version): signatures[slot] = (human, address, version)
            case .tookBack(let slot): signatures[slot] = nil
            case .revoked(let subject, let address):
                for (slot, signature) in signatures {
                    let isNamed = subject == "ad|test|human-\(signature.human)"
                    if isNamed || (address != nil && address == signature.address) { signatures[slot] = nil }
                }
            case .changed(let new): version = new
            case .ran: break
            }
            // Nothing of another version ever counts again, also not if that one comes back.
            signatures = signatures.filter { $0.value.version == version }
        }
        return signatures.mapValues(\.human)
    }

    /// Whether different people fill all slots, each of them one that they may fill.
    var isApproved: Bool {
        let holders = holders
        guard holders.count == slots.count, Set(holders.values).count == slots.count else { return false }
        return holders.allSatisfy { slot, human in Human.all[human].groups.contains(slots[slot]) }
    }

    func mayBeSigned(_ slot: Int, by human: Int) -> Bool {
        let holders = holders
        return holders[slot] == nil && !holders.values.contains(human)
            && Human.all[human].groups.contains(slots[slot])
    }
}
