// SPDX-License-Identifier: MPL-2.0

import APIServer
import JSON
import StepKit

/// What is small and belongs to products.
extension ReleasesAPI {
    var switches: [Endpoint] {
        let nightlyQuery: [String: QueryRule] = [
            "product": .any, "channel": .any, "before_buildid": "^[0-9]{1,20}$", "after_buildid": "^[0-9]{1,20}$",
            "order": "^(asc|desc)$", "limit": .limit,
        ]
        let productQuery: [String: QueryRule] = ["product": .any, "branch": .any]
        let version = "/versions/<product>/<channel>"
        return [
            make.open(.get, "/disabled-products", name: "disabledProducts", title: "List disabled products") { _ in
                let disabled = try await service.switches.disabled().sorted { $0.key < $1.key }
                return .json(.object(JSONObject(disabled.map { (key: $0.key, value: JSONValue($0.value)) })))
            },
            make.open(.post, "/disabled-products", name: "disable", title: "Disable a product", handler: disable),
            make.open(
                .delete,
                "/disabled-products",
                name: "enable",
                query: productQuery,
                title: "Enable a product",
                handler: enable
            ),
            make.open(.get, version, name: "version", title: "Read a version") { request in
                let (product, channel) = (request.parameter("product"), request.parameter("channel"))
                guard let version = try await service.switches.version(product, channel) else {
                    throw StepProblem(404, "not_found", "There is no version of \(product) \(channel)")
                }
                return .json(.string(version))
            },
            make.open(.post, version, name: "addVersion", title: "Add a version", handler: addVersion),
            make.open(.put, version, name: "setVersion", title: "Change a version", handler: setVersion),
            make.open(
                .get,
                "/nightly-release",
                name: "nightlies",
                query: nightlyQuery,
                title: "List nightly releases",
                handler: nightlies
            ),
            make.open(.post, "/nightly-release", name: "addNightly", title: "Add a nightly", handler: addNightly),
            make.open(.post, "/product-details", name: "rebuild", title: "Rebuild product details") { request in
                let caller = try await caller(request)
                try caller.require("rebuild_product_details")
                try await service.rebuildDetails(try request.jsonObject(), by: caller)
                return .json(["status": "ok"])
            },
            make.open(
                .get,
                "/decision-task/status",
                name: "decisionTask",
                query: ["product": .any, "branch": .any, "revision": .any],
                title: "Say whether a revision is planned",
                handler: decisionTask
            ),
            make.open(.get, "/__permissions__", name: "permissions", title: "Say who asks", handler: permissions),
        ]
    }

    // MARK: - Disabled products

    private func disable(_ request: APIRequest) async throws -> APIResponse {
        let caller = try await caller(request)
        let body = try request.jsonObject()
        guard let product = body["product"]?.string, let branch = body["branch"]?.string else {
            throw StepProblem.invalid("product and branch have to be texts; an empty branch is every branch")
        }
        try caller.require("disable_product", product, groups: groups(product))
        guard service.catalogue.product(product)?.canBeDisabled == true else {
            throw StepProblem.invalid("\(product) cannot be disabled")
        }
        try await service.switches.disable(product, branch, by: caller.name)
        return .json(200)
    }

    private func enable(_ request: APIRequest) async throws -> APIResponse {
        let caller = try await caller(request)
        guard let product = request.query["product"], let branch = request.query["branch"] else {
            throw StepProblem.invalid("product and branch are missing")
        }
        try caller.require("enable_product", product, groups: groups(product))
        guard try await service.switches.enable(product, branch, by: caller.name) else {
            throw StepProblem(404, "not_found", "\(product) is not disabled on \(branch)")
        }
        return .json(200)
    }

    // MARK: - Versions

    private typealias NewVersion = (product: String, channel: String, version: String, caller: Caller)

    private static func json(_ new: NewVersion, _ what: String) -> JSONValue {
        [
            "message": .string("The \(new.product) \(new.channel) version was \(what)"),
            "version": .string(new.version),
            "product": .string(new.product), "channel": .string(new.channel),
        ]
    }

    private func version(_ request: APIRequest, _ verb: String) async throws -> NewVersion {
        let caller = try await caller(request)
        let (product, channel) = (request.parameter("product"), request.parameter("channel"))
        try caller.require(verb, product, groups: groups(product))
        guard let version = try request.jsonObject()["version"]?.string, !version.isEmpty, version.utf8.count <= 100
        else { throw StepProblem.invalid("version has to be a text") }
        return (product, channel, version, caller)
    }

    private func addVersion(_ request: APIRequest) async throws -> APIResponse {
        let new = try await version(request, "create_product_channel_version")
        guard try await service.switches.create(new.product, new.channel, new.version, by: new.caller.name) else {
            throw StepProblem.conflict("exists", "\(new.product) \(new.channel) has a version already")
        }
        return .json(Self.json(new, "created"), status: 201)
    }

    private func setVersion(_ request: APIRequest) async throws -> APIResponse {
        let new = try await version(request, "update_product_channel_version")
        if try await !service.switches.update(new.product, new.channel, new.version, by: new.caller.name) {
            guard try await service.switches.version(new.product, new.channel) != nil else {
                throw StepProblem(404, "not_found", "There is no version of \(new.product) \(new.channel)")
            }
            throw StepProblem.conflict("unchanged", "\(new.product) \(new.channel) is \(new.version) already")
        }
        return .json(Self.json(new, "updated"))
    }

    // MARK: - Nightly releases

    private func nightlies(_ request: APIRequest) async throws -> APIResponse {
        var filter = SwitchStore.NightlyFilter()
        filter.product = request.query["product"]
        filter.channel = request.query["channel"]
        filter.before = request.query["before_buildid"]
        filter.after = request.query["after_buildid"]
        filter.isAscending = request.query["order"] == "asc"
        filter.limit = try request.pageSize()
        return .json(.array(try await service.switches.nightlies(filter).map(\.json)))
    }

    private func addNightly(_ request: APIRequest) async throws -> APIResponse {
        let caller = try await caller(request)
        let body = try request.jsonObject()
        guard let product = body["product"]?.string, let channel = body["channel"]?.string,
            let version = body["version"]?.string, let build = body["buildid"]?.string, let locales = body["locales"],
            (1...20).contains(build.utf8.count), build.utf8.allSatisfy({ (48...57).contains($0) })
        else { throw StepProblem.invalid("product, channel, version, buildid and locales are needed") }
        try caller.require("add_release", product, groups: groups(product))
        let nightly = SwitchStore.Nightly(
            product: product,
            channel: channel,
            version: version,
            buildID: build,
            locales: locales
        )
        guard try await service.switches.add(nightly, by: caller.name) else {
            throw StepProblem.conflict("exists", "There is a nightly release \(build) of \(product) \(channel)")
        }
        return .json(nightly.json, status: 201)
    }

    // MARK: - The rest

    private func decisionTask(_ request: APIRequest) async throws -> APIResponse {
        guard let name = request.query["product"], let branch = request.query["branch"],
            let revision = request.query["revision"], let product = service.catalogue.product(name)
        else { throw StepProblem.invalid("product, branch and revision are needed, of a product that is known") }
        let project = branch.split(separator: "/").last.map(String.init) ?? ""
        let domain = DecisionTasks.trustDomain(product, project: project)
        let task = try await service.decisions.task(domain, project: project, revision: revision)
        return .json(["status": task == nil ? "missing" : "ready"])
    }

    private func permissions(_ request: APIRequest) async throws -> APIResponse {
        switch try await caller(request) {
        case .client(let name, let scopes):
            return .json([
                "description": "A client of Taskcluster", "user_id": .string(name), "permissions": JSONValue(scopes),
                "groups": [],
            ])
        case .person(let person):
            return .json([
                "description": "A person", "user_id": .string(person.name), "permissions": [],
                "groups": JSONValue(person.groups.sorted()),
            ])
        }
    }
}
