// SPDX-License-Identifier: MPL-2.0

import APIServer
import Crypto
import JSON
import Schedules
import StepKit
import Taskcluster

/// The first version's form and the calls of its release runner, below `/v1`.
///
/// User and password are a client's name and access token of Taskcluster.
extension ReleasesAPI {
    var submissions: [Endpoint] {
        [
            make.open(
                .get,
                "/v1/releases",
                name: "submissions",
                query: ["ready": "^[01]$", "complete": "^[01]$"],
                title: "List submitted releases"
            ) { request in
                _ = try await basic(request)
                let ready = request.query["ready"].map { $0 == "1" }
                let complete = request.query["complete"].map { $0 == "1" }
                let names = try await service.submissions.list(ready: ready, complete: complete)
                return .json(["releases": JSONValue(names)])
            },
            make.open(.get, "/v1/releases/<name>", name: "submission", title: "Read a release") { request in
                _ = try await basic(request)
                return .json(try await submission(request).json)
            },
            make.open(.get, "/v1/releases/<name>/l10n", name: "l10n", title: "Read the locales") { request in
                _ = try await basic(request)
                let text = try await submission(request).fields["l10nChangesets"]?.string ?? ""
                return .text(text, contentType: "text/plain; charset=utf-8")
            },
            make.open(
                .post,
                "/v1/releases/<name>",
                name: "updateSubmission",
                title: "Say how far it is",
                handler: update
            ),
            make.open(.get, "/v1/csrf_token", name: "token", title: "Get a token for forms", handler: formToken),
            make.open(.head, "/v1/csrf_token", name: "tokenHead", title: "Get a token for forms", handler: formToken),
            make.open(.post, "/v1/submit_release.html", name: "submit", title: "Submit a release", handler: submit),
        ]
    }

    // MARK: - Who asks

    /// Somebody with user and password.
    private struct Account: Sendable {
        let caller: Caller
        let password: String
    }

    /// Checks user and password as a client's name and token.
    private func basic(_ request: APIRequest) async throws -> Account {
        let refusal = StepProblem(
            401,
            "authorization_header_missing",
            "This needs a user and a password",
            headers: ["WWW-Authenticate": "Basic realm=\"shipit\""]
        )
        let parts = (request.header("authorization") ?? "").split(separator: " ", maxSplits: 1)
        guard parts.count == 2, parts[0].lowercased() == "basic", let decoded = Base64.decoded(parts[1]) else {
            throw refusal
        }
        let pair = String(decoding: decoded, as: UTF8.self)
            .split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        guard pair.count == 2 else { throw refusal }
        let (user, password) = (String(pair[0]), String(pair[1]))
        let asked = request.authenticationRequest
        let header = Hawk.authorization(
            for: asked.method,
            url: Hawk.Target(host: asked.host, port: asked.port, resource: asked.resource),
            credentials: Hawk.Credentials(clientID: user, accessToken: password),
            authorizedScopes: nil,
            payload: nil,
            now: .now()
        )
        let signed = AuthenticationRequest(
            method: asked.method,
            resource: asked.resource,
            host: asked.host,
            port: asked.port,
            authorization: header,
            sourceIP: asked.sourceIP
        )
        guard case .success(let client, _, let scopes, _) = try await authenticator.authenticate(signed) else {
            throw refusal
        }
        return Account(caller: .client(name: client, scopes: scopes), password: password)
    }

    // MARK: - Tokens of forms

    private func formToken(_ request: APIRequest) async throws -> APIResponse {
        let account = try await basic(request)
        let token = Self.token(Self.digits(service.now() + .seconds(86_400)), account)
        return .json("", headers: ["X-CSRF-Token": token])
    }

    private static func digits(_ moment: Timestamp) -> String {
        String(moment.iso8601.filter { $0.isNumber }.prefix(14))
    }

    /// A token that is good until a date, which senders read to know when they need another one.
    private static func token(_ date: String, _ account: Account) -> String {
        let key = SymmetricKey(data: Array(account.password.utf8))
        let code = HMAC<SHA256>.authenticationCode(for: Array("form \(date)".utf8), using: key)
        return "\(date)##\(Hexadecimal.encoded(code))"
    }

    /// Refuses a form without the token that its sender was given within a day; a product's form has it under its name.
    private func check(_ form: FormBody, of product: String? = nil, _ account: Account) throws(StepProblem) {
        let token = form.fields["csrf_token"] ?? product.flatMap { form.fields["\($0)-csrf_token"] } ?? ""
        let date = String(token.prefix(14))
        guard Self.isSame(token, Self.token(date, account)), date >= Self.digits(service.now()) else {
            throw StepProblem.invalid("csrf_token is missing or old", code: "csrf")
        }
    }

    /// Whether two texts are the same, found out in a time that tells nothing about where they differ.
    private static func isSame(_ first: String, _ second: String) -> Bool {
        let (first, second) = (Array(first.utf8), Array(second.utf8))
        return first.count == second.count && zip(first, second).reduce(0) { $0 | ($1.0 ^ $1.1) } == 0
    }

    // MARK: - Submitting

    private func submission(_ request: APIRequest) async throws -> Submission {
        guard let found = try await service.submissions.find(request.parameter("name")) else {
            throw StepProblem(404, "not_found", "There is no release \(request.parameter("name"))")
        }
        return found
    }

    private func submit(_ request: APIRequest) async throws -> APIResponse {
        let account = try await basic(request)
        let form = FormBody(request.rawBody)
        let named = form.fields.first { $0.key.hasSuffix("-product") && !$0.value.isEmpty }?.value
        let chosen = form.fields["product"] ?? named
        try check(form, of: chosen, account)
        guard let product = chosen else { throw StepProblem.invalid("product is missing") }
        try account.caller.require("add_release", product, groups: groups(product))
        var fields = form.fields(of: product)
        let missing = ["version", "buildNumber", "branch", "mozillaRevision"].filter { fields[$0, default: ""].isEmpty }
        guard missing.isEmpty else { throw StepProblem.invalid("missing: \(missing.joined(separator: ", "))") }
        guard let number = Int(fields["buildNumber"] ?? ""), number > 0, let version = fields["version"],
            ReleaseVersion(version) != nil
        else { throw StepProblem.invalid("version and buildNumber have to be a version and a number") }
        try await checkEnabled(product, fields["branch"] ?? "", for: account.caller)
        for name in ["product", "csrf_token"] { fields[name] = nil }
        let sorted = fields.sorted { $0.key < $1.key }
        var json = JSONObject(sorted.map { (key: $0.key, value: .string($0.value)) })
        json["buildNumber"] = JSONValue(number)
        let submission = Submission(
            name: "\(product.prefix(1).uppercased())\(product.dropFirst())-\(version)-build\(number)",
            product: product,
            fields: json,
            submitter: account.caller.name,
            submitted: service.now()
        )
        if let problem = StepUID.problem(with: submission.name) { throw StepProblem.invalid(problem) }
        if try await !service.submissions.add(submission) {
            // A script whose answer was lost, or that was run again, sends the same form once more.
            let known = try await service.submissions.find(submission.name)
            guard let known, known.product == product, known.fields == submission.fields else {
                throw StepProblem.invalid("There is a release \(submission.name) already", code: "duplicate_release")
            }
        }
        return .bodyless(302, headers: ["Location": "/v1/releases/\(submission.name)"])
    }

    private func update(_ request: APIRequest) async throws -> APIResponse {
        let account = try await basic(request)
        let form = FormBody(request.rawBody)
        try check(form, account)
        let known = try await submission(request)
        try account.caller.require("update_release_status", groups: groups(known.product))
        let shipped = try Self.moment(form.fields["shippedAt"] ?? "")
        let starter = account.caller.name
        let changed = try await service.submissions.change(known.name, by: starter) { submission in
            let ready = form.flag("ready")
            let complete = form.flag("complete")
            if ready == false, complete == true {
                throw StepProblem.invalid("A release that is not ready cannot be complete")
            }
            if ready == false, submission.isComplete {
                throw StepProblem.invalid("A complete release cannot be made unready")
            }
            if let ready {
                submission.isReady = ready
                if ready { submission.starter = submission.starter ?? starter }
            }
            if let complete { submission.isComplete = complete }
            if let status = form.fields["status"] { submission.status = String(status.prefix(250)) }
            if let shipped { submission.shipped = shipped }
            if let graph = form.fields["taskGroupId"], !graph.isEmpty {
                guard Slugid.isValid(graph) else { throw StepProblem.invalid("taskGroupId has to be a task's id") }
                guard submission.graph == nil || submission.graph == graph else {
                    throw StepProblem.conflict("graph_differs", "The release has another group of tasks")
                }
                if submission.graph == nil { submission.isPending = true }
                submission.graph = graph
            }
        }
        guard let changed else { throw StepProblem(404, "not_found", "There is no release \(known.name)") }
        return .json(changed.json)
    }

    /// The moment that a field names: in UTC if it does not say where, as scripts write it; nil if it is empty.
    private static func moment(_ text: String) throws(StepProblem) -> Timestamp? {
        guard !text.isEmpty else { return nil }
        guard let moment = Timestamp(text) ?? Timestamp("\(text)Z") else {
            throw StepProblem.invalid("shippedAt has to be a date and a time")
        }
        return moment
    }
}
