// SPDX-License-Identifier: MPL-2.0

/// What a path below `/api/v1/` means.
enum RollerRoute: Sendable, Hashable {
    case jobs
    case workerJobs(worker: String)
    case workerGroupJobs(worker: String, group: String)
    case job(String)
    case jobCancel(String)
    case jobLog(String)
    case jobCallback(String)
    case actions
    case caller
    case ping
    case machines
    case machine(String)
    case machineImport
    case machineExport
    case machineLint
    case groups
    case group(String)
    case controllers
    case controller(String)
    case workers
    case worker(Int)
    case windows
    case window(Int)
    case audit
    case locks
    case lockBreak
    case hostKeys
    case credentials
    case credential(String)
    case summary
    case slave(String)
    case slaveResults
    case slaveAction(String, action: String)

    /// Reads a path of the predecessor, which had them at the root; nil for one that means nothing.
    init?(predecessor segments: [String]) {
        switch segments.count {
        case 1 where segments[0] == "results": self = .slaveResults
        case 2 where segments[0] == "slaves" && Names.isInventoryName(segments[1]): self = .slave(segments[1])
        case 4 where segments[0] == "slaves" && Names.isInventoryName(segments[1]) && segments[2] == "actions":
            self = .slaveAction(segments[1], action: segments[3])
        default: return nil
        }
    }

    /// Reads a path; nil for one that means nothing.
    init?(_ segments: [String]) {
        switch segments.count {
        case 1:
            guard let route = Self.lists[segments[0]] else { return nil }
            self = route
        case 2:
            guard let route = Self.item(segments[0], segments[1]) else { return nil }
            self = route
        case 3:
            switch (segments[0], segments[1], segments[2]) {
            case ("jobs", let id, "cancel") where JobID.isValid(id): self = .jobCancel(id)
            case ("jobs", let id, "log") where JobID.isValid(id): self = .jobLog(id)
            case ("jobs", let id, "callback") where JobID.isValid(id): self = .jobCallback(id)
            case ("workers", let worker, "jobs") where Names.isWorkerWord(worker): self = .workerJobs(worker: worker)
            default: return nil
            }
        case 5:
            guard segments[0] == "workers", segments[2] == "group", segments[4] == "jobs",
                Names.isWorkerWord(segments[1]), Names.isWorkerWord(segments[3])
            else { return nil }
            self = .workerGroupJobs(worker: segments[1], group: segments[3])
        default:
            return nil
        }
    }

    private static let lists: [String: RollerRoute] = [
        "jobs": .jobs, "actions": .actions, "caller": .caller, "ping": .ping, "machines": .machines, "groups": .groups,
        "controllers": .controllers, "workers": .workers, "windows": .windows, "audit": .audit, "locks": .locks,
        "summary": .summary, "hostkeys": .hostKeys, "credentials": .credentials,
    ]

    private static func item(_ kind: String, _ name: String) -> RollerRoute? {
        switch kind {
        case "jobs" where JobID.isValid(name): .job(name)
        case "machines" where name == "import": .machineImport
        case "machines" where name == "export": .machineExport
        case "machines" where name == "lint": .machineLint
        case "locks" where name == "break": .lockBreak
        case "credentials" where CredentialName.isValid(name): .credential(name)
        case "machines" where Names.isInventoryName(name): .machine(name)
        case "groups" where Names.isInventoryName(name): .group(name)
        case "controllers" where Names.isInventoryName(name): .controller(name)
        case "workers": Int(name).flatMap { $0 > 0 ? .worker($0) : nil }
        case "windows": Int(name).flatMap { $0 > 0 ? .window($0) : nil }
        default: nil
        }
    }

    /// The methods the path answers, beside `OPTIONS`.
    func methods(strict: Bool) -> [String] {
        switch self {
        case .jobs, .workerJobs, .workerGroupJobs: strict ? ["POST"] : ["GET", "POST"]
        case .job, .jobLog, .actions, .caller, .ping, .audit, .locks, .summary, .machineExport, .machineLint, .hostKeys,
            .credentials, .slave, .slaveResults:
            ["GET"]
        case .slaveAction: ["GET", "POST"]
        case .jobCancel, .jobCallback, .machineImport, .lockBreak: ["POST"]
        case .credential: ["DELETE", "PUT"]
        case .machines, .groups, .controllers, .workers: ["GET"]
        case .windows: ["GET", "POST"]
        case .machine, .group, .controller, .worker: ["DELETE", "GET", "PATCH", "PUT"]
        case .window: ["DELETE", "GET"]
        }
    }

    /// Whether anybody may ask, without credentials; a callback brings a token of its own.
    var isPublic: Bool {
        switch self {
        case .actions, .ping, .jobCallback: true
        default: false
        }
    }

    /// Whether the answer may be a text rather than JSON.
    var answersText: Bool {
        switch self {
        case .jobLog, .machineExport: true
        default: false
        }
    }

    /// Whether a path creates jobs, whose historic clients see a method list of their own.
    var createsJobs: Bool {
        switch self {
        case .jobs, .workerJobs, .workerGroupJobs: true
        default: false
        }
    }
}
