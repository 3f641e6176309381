// SPDX-License-Identifier: MPL-2.0

import ArgumentParser
import Core
import JSON

/// Commands about releases and their phases.
struct ReleaseCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "release",
        abstract: "Make releases, call for their phases, and sign them.",
        discussion: """
            The service is at SHIPIT_PIPELINE_URL; the credentials are those of the other commands, or your token in SHIPIT_TOKEN, \
            which signing needs. A release is a pipeline of its name: slipway pipeline watch, explain and show know it, too.
            """,
        subcommands: [
            List.self, Show.self, Create.self, Call.self, Sign.self, Ship.self, Abandon.self, Disabled.self,
            Disable.self, Enable.self,
        ]
    )

    static func session() throws -> StepSession { try StepSession("SHIPIT_PIPELINE_URL") }

    /// Sends a request as the person, where there is a token, and otherwise with the credentials.
    static func call(
        _ method: String,
        _ path: [String],
        query: [(String, String)] = [],
        body: JSONValue? = nil
    ) async throws -> JSONValue {
        let token = ServiceSession.value("SHIPIT_TOKEN")
        return try await session().call(method, path, query: query, body: body, token: token).json
    }

    /// A release in a few lines: how it stands, and each phase with the signatures it needs.
    static func text(_ release: JSONValue, _ signoffs: [String: [JSONValue]] = [:]) -> String {
        let head = [
            release["name"]?.string ?? "?", release["status"]?.string ?? "?", release["branch"]?.string ?? "",
            release["revision"]?.string ?? "",
        ]
        let rows = (release["phases"]?.array ?? []).map { phase -> [String] in
            let name = phase["name"]?.string ?? ""
            let slots = signoffs[name] ?? []
            let missing = slots.filter { $0["signed"] != true }.compactMap { $0["permissions"]?.string }
            let signed = slots.isEmpty ? "" : missing.isEmpty ? "signed" : "missing: \(missing.joined(separator: ", "))"
            return ["  \(name)", word(phase), phase["actionTaskId"]?.string ?? "", signed]
        }
        return ([head.filter { !$0.isEmpty }.joined(separator: "  ")] + [Columns.text(rows, nothing: "")])
            .filter { !$0.isEmpty }.joined(separator: "\n")
    }

    /// How a phase stands; one that nobody has called for waits.
    static func word(_ phase: JSONValue) -> String {
        if phase["skipped"] == true { return "skipped" }
        if phase["scheduled_at"] == "" { return "-" }
        return phase["state"]?.string ?? "?"
    }

    /// The signatures that the phases of a release need.
    static func signoffs(_ release: JSONValue) async throws -> [String: [JSONValue]] {
        var found: [String: [JSONValue]] = [:]
        for phase in release["phases"]?.array ?? [] {
            guard let release = release["name"]?.string, let name = phase["name"]?.string else { continue }
            found[name] = try await call("GET", ["signoff", release, name])["signoffs"]?.array
        }
        return found
    }
}

/// The release a command is about.
struct ReleaseOptions: ParsableArguments {
    @Argument(help: "The name, as Firefox-130.0b3-build1.")
    var name: String

    @OptionGroup var output: OutputOptions

    /// Sends what is decided about the release, and prints it as it is then.
    func decide(_ method: String, _ path: [String] = [], _ body: JSONValue? = nil) async throws {
        _ = try await ReleaseCommand.call(method, ["releases", name] + path, body: body)
        try await show()
    }

    /// Prints the release as it is now.
    func show() async throws {
        let release = try await ReleaseCommand.call("GET", ["releases", name])
        let signoffs = try await ReleaseCommand.signoffs(release)
        output.print(release, text: ReleaseCommand.text(release, signoffs))
    }
}

extension ReleaseCommand {
    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List releases by product and version.",
            discussion:
                "Examples:\n  slipway release list\n  slipway release list --product firefox --status shipped,aborted"
        )

        @Option(help: "A product.")
        var product: String?
        @Option(help: "A branch.")
        var branch: String?
        @Option(help: "A version.")
        var version: String?
        @Option(help: "scheduled, shipped or aborted; several with commas.")
        var status = "scheduled"
        @OptionGroup var output: OutputOptions

        func run() async throws {
            var query = [("status", status)]
            for (name, value) in [("product", product), ("branch", branch), ("version", version)] {
                if let value { query.append((name, value)) }
            }
            let found = try await ReleaseCommand.call("GET", ["releases"], query: query)
            let rows = (found.array ?? []).map { release -> [String] in
                let phases = (release["phases"]?.array ?? []).map { phase in
                    "\(phase["name"]?.string ?? "") \(ReleaseCommand.word(phase))"
                }
                return [
                    release["name"]?.string ?? "", release["status"]?.string ?? "", release["branch"]?.string ?? "",
                    phases.joined(separator: ", "),
                ]
            }
            output.print(found, text: Columns.text(rows, nothing: "no release is \(status)"))
        }
    }

    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Show how the phases of a release stand, and whose signatures are missing.",
            discussion: "Examples:\n  slipway release show Firefox-130.0b3-build1"
        )

        @OptionGroup var release: ReleaseOptions

        func run() async throws { try await release.show() }
    }

    struct Create: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Make a release of a revision.",
            discussion: """
                Examples:
                  slipway release create firefox 130.0b3 --branch releases/mozilla-beta --revision abc123
                  slipway release create firefox 130.0b3 --branch releases/mozilla-beta --revision abc123 --build 2 --partials auto
                """
        )

        @Argument(help: "The product.")
        var product: String
        @Argument(help: "The version.")
        var version: String
        @Option(help: "The branch.")
        var branch: String
        @Option(help: "The revision.")
        var revision: String
        @Option(help: "The number of the build.")
        var build = 1
        @Option(help: "auto, or the earlier versions to update from, as JSON.")
        var partials: String?
        @Option(help: "When it is to be released.")
        var eta: String?
        @OptionGroup var output: OutputOptions

        func run() async throws {
            var body: JSONValue = [
                "product": .string(product), "version": .string(version), "branch": .string(branch),
                "revision": .string(revision), "build_number": JSONValue(build),
            ]
            if let eta { body["release_eta"] = .string(eta) }
            if let partials { body["partial_updates"] = try Self.partials(partials) }
            let made = try await ReleaseCommand.call("POST", ["releases"], body: body)
            let warnings = made["warnings"]?.array?.compactMap(\.string) ?? []
            let text = ReleaseCommand.text(made, try await ReleaseCommand.signoffs(made))
            output.print(made, text: ([text] + warnings.map { "warning: \($0)" }).joined(separator: "\n"))
        }

        private static func partials(_ text: String) throws -> JSONValue {
            if text == "auto" { return "auto" }
            do {
                return try JSONValue(parsing: text)
            } catch {
                throw Failure(usage: "--partials is neither auto nor JSON: \(error)")
            }
        }
    }

    struct Call: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Call for a phase of a release.",
            discussion: "Examples:\n  slipway release call Firefox-130.0b3-build1 promote_firefox"
        )

        @OptionGroup var release: ReleaseOptions
        @Argument(help: "The phase.")
        var phase: String

        func run() async throws { try await release.decide("PUT", [phase]) }
    }

    struct Sign: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Sign a phase for one of your groups; the last signature calls for it.",
            discussion: "Examples:\n  slipway release sign Firefox-130.0b3-build1 ship_firefox --group releng"
        )

        @OptionGroup var release: ReleaseOptions
        @Argument(help: "The phase.")
        var phase: String
        @Option(help: "The group you sign for.")
        var group: String

        func run() async throws {
            let path = ["signoff", release.name, phase]
            let slots = try await ReleaseCommand.call("GET", path)["signoffs"]?.array ?? []
            let own = slots.filter { $0["permissions"]?.string == group }
            guard let slot = own.first(where: { $0["signed"] != true }) ?? own.first, let uid = slot["uid"] else {
                throw Failure("\(phase) of \(release.name) needs no signature of \(group)")
            }
            let token = try SignoffCommand.token()
            _ = try await ReleaseCommand.session().call("PUT", path, body: uid, token: token)
            try await release.show()
        }
    }

    struct Ship: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Say that a release is shipped.",
            discussion: "Examples:\n  slipway release ship Firefox-130.0b3-build1"
        )

        @OptionGroup var release: ReleaseOptions

        func run() async throws { try await release.decide("PATCH", [], ["status": "shipped"]) }
    }

    struct Abandon: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Give a release up; what goes on is cancelled.",
            discussion: "Examples:\n  slipway release abandon Firefox-130.0b3-build1"
        )

        @OptionGroup var release: ReleaseOptions

        func run() async throws { try await release.decide("DELETE") }
    }

    struct Disabled: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List the products that scripts may not release, with their branches.",
            discussion: "Examples:\n  slipway release disabled"
        )

        @OptionGroup var output: OutputOptions

        func run() async throws {
            let found = try await ReleaseCommand.call("GET", ["disabled-products"])
            let rows = (found.object ?? [:]).map { product in
                let branches = product.value.array?.compactMap(\.string) ?? []
                return [product.key, branches.map { $0.isEmpty ? "all branches" : $0 }.joined(separator: ", ")]
            }
            output.print(found, text: Columns.text(rows, nothing: "nothing is disabled"))
        }
    }

    struct Disable: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Keep scripts from releasing a product; people still may.",
            discussion:
                "Examples:\n  slipway release disable firefox\n  slipway release disable firefox --branch releases/mozilla-beta"
        )

        @Argument(help: "The product.")
        var product: String
        @Option(help: "The one branch; without, all of them.")
        var branch = ""

        func run() async throws {
            let body: JSONValue = ["product": .string(product), "branch": .string(branch)]
            _ = try await ReleaseCommand.call("POST", ["disabled-products"], body: body)
        }
    }

    struct Enable: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Let scripts release a product again.",
            discussion: "Examples:\n  slipway release enable firefox --branch releases/mozilla-beta"
        )

        @Argument(help: "The product.")
        var product: String
        @Option(help: "The one branch.")
        var branch = ""

        func run() async throws {
            let query = [("product", product), ("branch", branch)]
            _ = try await ReleaseCommand.call("DELETE", ["disabled-products"], query: query)
        }
    }
}
