// SPDX-License-Identifier: MPL-2.0

package import JSON
package import Schedules

/// A job that somebody asks for, with everything about it that was found out beforehand.
package struct NewJob: Sendable {
    /// The id it gets if it is a job of its own.
    package var id: String
    package var action: ActionDescription
    package var parameters: JSONObject
    /// The machine's id.
    package var machine: String?
    /// The machine itself, where it was read already.
    package var machineRecord: Machine?
    package var worker: WorkerName
    package var clientID: String
    package var origin: String?
    package var source: JobSource
    package var isDryRun = false
    /// 50 is usual; higher comes first.
    package var priority = 50
    package var pool = "default"
    package var deadline: Timestamp?
    package var idempotencyKey: String?
    package var parent: String?
    package var sourceAddress: String?
    package var requestID: String?

    package init(
        id: String = JobID.make(),
        _ action: ActionDescription,
        parameters: JSONObject = [:],
        machine: String?,
        worker: WorkerName,
        clientID: String,
        source: JobSource
    ) {
        self.id = id
        self.action = action
        self.parameters = parameters
        self.machine = machine
        self.worker = worker
        self.clientID = clientID
        self.source = source
    }

    /// Whether gentle reboots of the machine that are under way make no sense any more.
    var supersedesSoftReboots: Bool {
        action.name == "reboot" && parameters["mode"] == "hard" && machine != nil && !isDryRun
    }

    /// The same for requests that ask for the same thing.
    var duplicateKey: String {
        let target = machine ?? "worker:\(worker.workerGroup ?? ""):\(worker.workerID)"
        let trial = isDryRun ? "dry" : "wet"
        return "\(target)|\(action.name)|\(trial)|\(JSONValue.object(parameters).text(.sorted))"
    }
}

/// What happens to a second request for what is already under way.
package enum DuplicatePolicy: String, Sendable, Hashable, CaseIterable {
    /// The second request is answered with the first one's job.
    case join
    /// The second request is refused.
    case reject
    /// Both are jobs.
    case allow
}

/// How much one client may ask for, and how often one machine may be hit.
package struct JobLimits: Sendable, Hashable {
    /// Requests of one client in a minute.
    package var perClientAndMinute = 60
    /// Destructive jobs on one machine in an hour.
    package var perMachineAndHour = 6

    package init(perClientAndMinute: Int = 60, perMachineAndHour: Int = 6) {
        self.perClientAndMinute = perClientAndMinute
        self.perMachineAndHour = perMachineAndHour
    }
}

/// What a request for a job led to.
package enum JobCreation: Sendable {
    case created(Job)
    /// The same was asked for before and is not finished.
    case joined(Job)
    /// The same was asked for before, and the policy refuses to ask twice.
    case rejected(Job)
    /// The client has sent this very request before.
    case repeated(Job)
    /// The client has used this key for another request.
    case keyTaken(Job)
    /// Too often; the number of seconds until it makes sense to ask again.
    case throttled(seconds: Int)
}

/// Identifiers of jobs: version 4 UUIDs in lower case.
package enum JobID {
    /// A fresh id.
    package static func make() -> String {
        var numbers = SystemRandomNumberGenerator()
        let high = numbers.next() & ~0xF000 | 0x4000
        let low = numbers.next() & ~(3 << 62) | 2 << 62
        return String(unsafeUninitializedCapacity: 36) { text in
            var place = 0
            for index in 0..<32 {
                if [8, 12, 16, 20].contains(index) {
                    text[place] = UInt8(ascii: "-")
                    place += 1
                }
                let word = index < 16 ? high : low
                let digit = UInt8(truncatingIfNeeded: word >> (60 - 4 * (index & 15)) & 15)
                text[place] = digit < 10 ? digit + UInt8(ascii: "0") : digit - 10 + UInt8(ascii: "a")
                place += 1
            }
            return place
        }
    }

    /// Whether a text is an id as we make them.
    package static func isValid(_ text: String) -> Bool {
        let bytes = Array(text.utf8)
        guard bytes.count == 36 else { return false }
        return bytes.enumerated().allSatisfy { index, byte in
            switch index {
            case 8, 13, 18, 23: byte == UInt8(ascii: "-")
            case 14: byte == UInt8(ascii: "4")
            case 19: "89ab".utf8.contains(byte)
            default: "0123456789abcdef".utf8.contains(byte)
            }
        }
    }
}
