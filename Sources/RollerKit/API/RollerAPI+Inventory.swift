// SPDX-License-Identifier: MPL-2.0

import APIServer
import JSON
import Logging
import Schedules

extension RollerAPI {
    /// Answers requests about machines and what belongs to them.
    func handleInventory(
        _ request: RollerRequest,
        _ route: RollerRoute,
        _ method: String,
        _ caller: Caller
    ) async throws -> RawResponse {
        let scope: String
        switch route {
        case .machineImport: scope = "inventory:import"
        case .audit: scope = "audit:read"
        case .lockBreak: scope = "override"
        case .credentials: scope = "inventory:secrets"
        default: scope = method == "GET" ? "inventory:read" : "inventory:write"
        }
        try gate.require(scope, of: caller)
        switch route {
        case .machines: return try await listMachines(request)
        case .machine(let name): return try await machine(name, request, method, caller)
        case .machineImport: return try await importMachines(request, caller)
        case .machineExport: return try await exportMachines(request)
        case .groups: return Self.json(200, ["groups": .array(try await inventory.groups().map(JSONValue.object))])
        case .group(let name): return try await group(name, request, method, caller)
        case .controllers:
            return Self.json(200, ["controllers": .array(try await inventory.controllers().map(JSONValue.object))])
        case .controller(let name): return try await controller(name, request, method, caller)
        case .workers, .worker: return try await workers(request, route, method, caller)
        case .windows, .window: return try await windows(request, route, method, caller)
        case .audit: return try await listAudit(request)
        case .locks: return Self.json(200, ["locks": .array(try await jobs.locks().map(JSONValue.object))])
        case .lockBreak: return try await breakLock(request, caller)
        case .machineLint: return try await lint()
        case .hostKeys: return try await hostKeys(request)
        case .credentials: return try await listCredentials()
        case .credential(let name):
            return method == "DELETE"
                ? try await removeCredential(name, request, caller) : try await setCredential(name, request, caller)
        case .summary: return Self.json(200, .object(try await inventory.summary()))
        default: throw Refusal.notFound
        }
    }

    func options(_ request: RollerRequest, _ caller: Caller, verb: String) -> InventoryImport {
        var options = InventoryImport(clientID: caller.clientID)
        options.sourceAddress = request.sourceAddress
        options.requestID = request.id
        options.verb = verb
        return options
    }

    private func limit(_ request: RollerRequest) throws -> Int {
        let limit = Int(request.option("limit") ?? "100") ?? 0
        guard (1...1000).contains(limit) else { throw Refusal(400, ["limit": ["A whole number from 1 to 1000."]]) }
        return limit
    }

    /// Where a page begins; nil for the first one.
    private func pageStart<Value>(_ request: RollerRequest, _ member: (JSONValue) -> Value?) throws -> Value? {
        guard let token = request.option("continuationToken") else { return nil }
        guard let first = try? Continuation.decode(token).first, let value = member(first) else {
            throw Refusal(400, ["continuationToken": ["Not a token of an earlier page."]])
        }
        return value
    }

    // MARK: - Machines

    private func listMachines(_ request: RollerRequest) async throws -> RawResponse {
        var filter = InventoryStore.Filter()
        filter.group = request.option("group")
        filter.search = request.option("search")
        if let text = request.option("state") {
            guard let state = Machine.State(rawValue: text) else {
                throw Refusal(400, ["state": ["Not a state of machines."]])
            }
            filter.state = state
        }
        let limit = try limit(request)
        let after = try pageStart(request, \.string)
        let found = try await inventory.machines(filter, after: after, limit: limit + 1)
        let last = request.flag("last") ? try await inventory.last(found.prefix(limit).map(\.machine.id)) : [:]
        let views = found.prefix(limit).map { detail -> JSONValue in
            var view = Self.view(detail)
            for (key, value) in last[detail.machine.id] ?? [:] { view[key] = value }
            return .object(view)
        }
        var answer: JSONObject = ["machines": .array(views)]
        if found.count > limit, let last = found.prefix(limit).last {
            answer["continuationToken"] = .string(Continuation.encode([.string(last.machine.name)]))
        }
        return Self.json(200, .object(answer))
    }

    /// A machine as clients see it: the spelling of imports, and what only the service knows.
    static func view(_ detail: MachineDetail) -> JSONObject {
        var view: JSONObject = ["id": .string(detail.machine.id)]
        for (key, value) in InventoryStore.document(detail) { view[key] = value }
        view["control_kinds"] = JSONValue(Set(detail.controls.map(\.controller.kind.rawValue)).sorted())
        view["effective_properties"] = Mask.masked(.object(detail.properties))
        view["properties"] = Mask.masked(.object(detail.machine.properties))
        view["created_at"] = .string(detail.machine.created.iso8601)
        view["updated_at"] = .string(detail.machine.updated.iso8601)
        return view
    }

    /// A machine by id or any of its names.
    func find(_ name: String) async throws -> MachineDetail? {
        if JobID.isValid(name), let found = try await inventory.machine(id: name) { return found }
        return try await inventory.machine(name: name)
    }

    private func machine(
        _ name: String,
        _ request: RollerRequest,
        _ method: String,
        _ caller: Caller
    ) async throws -> RawResponse {
        let known = try await find(name)
        switch method {
        case "GET":
            guard let known else { throw Refusal.notFound }
            var view = Self.view(known)
            let obstacle = try await inventory.obstacle(machine: known.machine, at: request.time)
            view["obstacle"] = JobView.text(obstacle)
            return Self.json(200, .object(view))
        case "DELETE":
            guard let known else { throw Refusal.notFound }
            let active = try await jobs.list(.active(machine: known.machine.id), after: nil, limit: 1)
            guard active.isEmpty else { throw Refusal.detail(409, "A job is under way on this machine.") }
            let options = options(request, caller, verb: "machine.delete")
            guard try await inventory.remove(machine: known.machine.name, options) else { throw Refusal.notFound }
            return RawResponse(status: 204)
        default:
            if known == nil, method == "PATCH" || JobID.isValid(name) { throw Refusal.notFound }
            guard var members = try await request.json().object else {
                throw Refusal.detail(400, "The body must be an object.")
            }
            for name in ["id", "control_kinds", "effective_properties", "created_at", "updated_at", "obstacle"] {
                members.removeValue(forKey: name)
            }
            members["name"] = .string(known?.machine.name ?? members["name"]?.string ?? name)
            var document = InventoryDocument()
            document.machines = [InventoryDocument.Entry(row: 1, members)]
            let plan = try await applied(
                document,
                request,
                caller,
                verb: "machine.\(method.lowercased())",
                replaces: method == "PUT"
            )
            guard let now = try await find(members["name"]?.string ?? name) else { throw Refusal.notFound }
            return Self.json(plan.create.isEmpty ? 200 : 201, .object(Self.view(now)))
        }
    }

    /// Carries a document out; what is wrong with it is told by field.
    private func applied(
        _ document: InventoryDocument,
        _ request: RollerRequest,
        _ caller: Caller,
        verb: String,
        replaces: Bool
    ) async throws -> InventoryPlan {
        var options = options(request, caller, verb: verb)
        options.applies = true
        options.replaces = replaces
        let plan = try await inventory.apply(document, options)
        guard plan.isApplied else {
            var problems = JSONObject()
            for problem in plan.problems {
                let field = problem.field.split(separator: " ").last.map(String.init) ?? "detail"
                problems[field] = .array((problems[field]?.array ?? []) + [.string(problem.message)])
            }
            throw Refusal(400, .object(problems))
        }
        return plan
    }

    // MARK: - Groups and controllers

    private func group(
        _ name: String,
        _ request: RollerRequest,
        _ method: String,
        _ caller: Caller
    ) async throws -> RawResponse {
        let known = try await inventory.groups(named: name).first
        if known == nil, method != "PUT" { throw Refusal.notFound }
        switch method {
        case "GET":
            return Self.json(200, .object(known ?? [:]))
        case "DELETE":
            _ = try await inventory.remove(.groups, named: name, options(request, caller, verb: "group.delete"))
            return RawResponse(status: 204)
        default:
            var document = InventoryDocument()
            document.groups = [InventoryDocument.Entry(row: 1, try await named(name, request))]
            _ = try await applied(
                document,
                request,
                caller,
                verb: "group.\(method.lowercased())",
                replaces: method == "PUT"
            )
            return Self.json(known == nil ? 201 : 200, .object(try await inventory.groups(named: name).first ?? [:]))
        }
    }

    private func controller(
        _ name: String,
        _ request: RollerRequest,
        _ method: String,
        _ caller: Caller
    ) async throws -> RawResponse {
        let known = try await inventory.controllers(named: name).first
        if known == nil, method != "PUT" { throw Refusal.notFound }
        switch method {
        case "GET":
            return Self.json(200, .object(try view(known ?? [:], caller)))
        case "DELETE":
            let options = options(request, caller, verb: "controller.delete")
            let removed = try await inventory.remove(.controllers, named: name, options)
            guard removed != false else { throw Refusal.detail(409, "Machines hang on this controller.") }
            return RawResponse(status: 204)
        default:
            var document = InventoryDocument()
            document.controllers = [InventoryDocument.Entry(row: 1, try await named(name, request))]
            let verb = "controller.\(method.lowercased())"
            _ = try await applied(document, request, caller, verb: verb, replaces: method == "PUT")
            let now = try await inventory.controllers(named: name).first ?? [:]
            return Self.json(known == nil ? 201 : 200, .object(try view(now, caller)))
        }
    }

    /// A controller; whoever may know gets to know whether its credential is there, nobody what is in it.
    private func view(_ controller: JSONObject, _ caller: Caller) throws -> JSONObject {
        var view = controller
        if gate.may("inventory:secrets", caller), let name = controller["credential_ref"]?.string {
            view["credential_present"] = JSONValue(credentials.contains(name))
        }
        return view
    }

    private func named(_ name: String, _ request: RollerRequest) async throws -> JSONObject {
        guard var members = try await request.json().object else {
            throw Refusal.detail(400, "The body must be an object.")
        }
        members["name"] = .string(name)
        members.removeValue(forKey: "credential_present")
        return members
    }

    // MARK: - Import and export

    private func importMachines(_ request: RollerRequest, _ caller: Caller) async throws -> RawResponse {
        guard let format = InventoryFormat(rawValue: request.option("format") ?? "json") else {
            throw Refusal(400, ["format": ["One of json, csv, worker_config, fixtures."]])
        }
        let mode = request.option("mode") ?? "plan"
        guard ["plan", "apply"].contains(mode) else { throw Refusal(400, ["mode": ["plan or apply."]]) }
        if request.flag("prune"), request.option("group") == nil {
            throw Refusal(400, ["group": ["Name the group whose machines are to go."]])
        }
        var options = options(request, caller, verb: "inventory.import")
        options.allowsPartial = request.flag("partial")
        options.pruneGroup = request.flag("prune") ? request.option("group") : nil
        var document = format.read(try await request.body(limit: RequestGate.bodyLimit))
        if format == .workerConfiguration { document = settings.seeds.completed(document) }
        if mode == "apply" {
            var trial = options
            trial.applies = false
            let plan = try await inventory.apply(document, trial)
            guard plan.problems.isEmpty || options.allowsPartial else { return Self.json(400, plan.json) }
            // Secrets first: a controller whose secret is missing would be of no use.
            for (name, credential) in document.credentials {
                do {
                    try credentials.save(credential, as: name)
                } catch {
                    throw Refusal.detail(409, "\(error)")
                }
            }
            options.applies = true
        }
        let plan = try await inventory.apply(document, options)
        return Self.json(mode == "apply" && !plan.isApplied ? 400 : 200, plan.json)
    }

    private func exportMachines(_ request: RollerRequest) async throws -> RawResponse {
        let export: InventoryExport
        switch request.option("format") ?? "json" {
        case "json":
            return Self.json(200, try await inventory.export())
        case "csv":
            export = try await inventory.export { InventoryExport.csv(machines: $0, controllers: $1) }
        case "worker_config":
            export = try await inventory.export { InventoryExport.workerConfiguration(machines: $0, controllers: $1) }
        default:
            throw Refusal(400, ["format": ["One of json, csv, worker_config."]])
        }
        for line in export.omitted { Logger.current.notice("not exported", metadata: ["what": "\(line)"]) }
        return RawResponse(
            status: 200,
            headers: [
                (name: "Content-Type", value: export.contentType),
                (name: "X-Roller-Omitted", value: String(export.omitted.count)),
            ],
            body: .bytes(Array(export.text.utf8))
        )
    }

    // MARK: - Workers, windows, audit

    private func workers(
        _ request: RollerRequest,
        _ route: RollerRoute,
        _ method: String,
        _ caller: Caller
    ) async throws -> RawResponse {
        guard case .worker(let id) = route else {
            let limit = try limit(request)
            let after = try pageStart(request, \.int)
            let found = try await inventory.workers(
                id: nil,
                workerID: request.option("worker_id")?.lowercased(),
                after: after ?? 0,
                limit: limit + 1
            )
            var answer: JSONObject = ["workers": .array(found.prefix(limit).map(JSONValue.object))]
            if found.count > limit, let last = found.prefix(limit).last?["id"] {
                answer["continuationToken"] = .string(Continuation.encode([last]))
            }
            return Self.json(200, .object(answer))
        }
        if method == "DELETE" {
            let options = options(request, caller, verb: "worker.delete")
            guard try await inventory.removeWorker(id, options) else { throw Refusal.notFound }
            return RawResponse(status: 204)
        }
        guard let worker = try await inventory.workers(id: id, workerID: nil, after: 0, limit: 1).first else {
            throw Refusal.notFound
        }
        guard method != "GET" else { return Self.json(200, .object(worker)) }
        let change = try await workerChange(worker, request, method)
        switch try await inventory.change(
            worker: id,
            to: change,
            options(request, caller, verb: "worker.\(method.lowercased())")
        ) {
        case .noSuchWorker: throw Refusal.notFound
        case .noSuchMachines(let names):
            throw Refusal(400, ["machines": .array(names.map { .string("There is no machine \($0).") })])
        case .changed:
            let now = try await inventory.workers(id: id, workerID: nil, after: 0, limit: 1).first
            return Self.json(200, .object(now ?? [:]))
        }
    }

    /// What a request says of a worker; what a patch leaves out stays as it is.
    private func workerChange(
        _ known: JSONObject,
        _ request: RollerRequest,
        _ method: String
    ) async throws -> InventoryStore.WorkerChange {
        guard let body = try await request.json().object else {
            throw Refusal.detail(400, "The body must be an object.")
        }
        var problems = JSONObject()
        func name(_ field: String) -> String? {
            let value = body[field] ?? (method == "PATCH" ? known[field] : nil) ?? .null
            if value.isNull { return nil }
            if let text = value.string, Names.isWorkerWord(text), !text.hasPrefix("-") { return text }
            problems[field] = ["This value does not match the required pattern."]
            return nil
        }
        let worker = WorkerName(
            name("worker_id") ?? "",
            group: name("worker_group"),
            provisionerID: name("provisioner_id"),
            workerType: name("worker_type")
        )
        if worker.workerID.isEmpty, problems["worker_id"] == nil { problems["worker_id"] = ["This field is required."] }
        var machines: [String]? = method == "PUT" ? [] : nil
        if let list = body["machines"] {
            machines = list.array?.compactMap(\.string)
            if machines == nil || machines?.count != list.array?.count { problems["machines"] = ["A list of names."] }
        }
        guard problems.isEmpty else { throw Refusal(400, .object(problems)) }
        return InventoryStore.WorkerChange(worker: worker, machines: machines)
    }

    private func windows(
        _ request: RollerRequest,
        _ route: RollerRoute,
        _ method: String,
        _ caller: Caller
    ) async throws -> RawResponse {
        if case .window(let id) = route {
            guard method == "DELETE" else {
                let found = try await inventory.windows().first { $0["id"]?.int == id }
                guard let found else { throw Refusal.notFound }
                return Self.json(200, .object(found))
            }
            let options = options(request, caller, verb: "window.delete")
            guard try await inventory.removeWindow(id, options) else { throw Refusal.notFound }
            return RawResponse(status: 204)
        }
        guard method == "POST" else {
            return Self.json(200, ["windows": .array(try await inventory.windows().map(JSONValue.object))])
        }
        let body = try await request.json()
        var problems = JSONObject()
        let starts = body["starts"]?.string.flatMap { Timestamp($0) } ?? request.time
        let ends = body["ends"]?.string.flatMap { Timestamp($0) }
        if ends.map({ $0 <= starts }) ?? true { problems["ends"] = ["A moment after the start."] }
        let reason = body["reason"]?.string ?? ""
        if reason.isEmpty { problems["reason"] = ["This field may not be blank."] }
        var machine: Machine?
        if let name = body["machine"]?.string {
            machine = try await find(name)?.machine
            if machine == nil { problems["machine"] = ["There is no such machine."] }
        }
        let group = body["group"]?.string
        if let group, try await inventory.groups(named: group).isEmpty {
            problems["group"] = ["There is no such group."]
        }
        if machine != nil, group != nil { problems["group"] = ["Either a machine or a group."] }
        guard problems.isEmpty, let ends else { throw Refusal(400, .object(problems)) }
        let window = try await inventory.addWindow(
            machine: machine,
            group: group,
            starts: starts,
            ends: ends,
            reason: reason,
            options(request, caller, verb: "window.create")
        )
        return Self.json(201, .object(window))
    }

    private func listAudit(_ request: RollerRequest) async throws -> RawResponse {
        let limit = try limit(request)
        let before = try pageStart(request, \.int)
        let entries = try await audit.list(object: request.option("object"), before: before, limit: limit + 1)
        var answer: JSONObject = [
            "entries": .array(
                entries.prefix(limit).map { id, at, entry in
                    [
                        "id": JSONValue(id), "at": .string(at.iso8601), "client_id": .string(entry.clientID),
                        "source_ip": JobView.text(entry.sourceAddress), "verb": .string(entry.verb),
                        "object": .string(entry.object), "before": entry.before ?? .null,
                        "after": entry.after ?? .null, "request_id": JobView.text(entry.requestID),
                    ]
                }
            )
        ]
        if entries.count > limit, let last = entries.prefix(limit).last {
            answer["continuationToken"] = .string(Continuation.encode([JSONValue(last.id)]))
        }
        return Self.json(200, .object(answer))
    }
}
