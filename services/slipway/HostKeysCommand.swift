// SPDX-License-Identifier: MPL-2.0

import ArgumentParser
import JSON

/// Commands about the keys by which machines prove at SSH who they are.
struct HostKeysCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "hostkeys",
        abstract: "See with which SSH keys machines answer, and accept one.",
        discussion: """
            Nothing is accepted by itself. Compare a fingerprint with one that you got in a way that you trust, for example from \
            the machine's console: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub. The service is named by ROLLER_URL.
            """,
        subcommands: [Scan.self, Accept.self, List.self]
    )

    struct Scan: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Show the keys with which a machine answers a worker now.",
            discussion: "Example:\n  slipway hostkeys scan t-linux64-ms-001"
        )

        @Argument(help: "The machine, by any of its names.")
        var name: String

        @OptionGroup var output: OutputOptions

        func run() async throws {
            let keys = try await HostKeysCommand.scan(name, RollerSession())
            output.print(.array(keys), text: HostKeysCommand.table(keys))
        }
    }

    struct Accept: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Accept keys of a machine, and no others from then on.",
            discussion: """
                The machine is scanned again; the keys with the fingerprints that you name take the place of those that were \
                accepted before.

                Example:
                  slipway hostkeys accept t-linux64-ms-001 SHA256:Q2c…
                """
        )

        @Argument(help: "The machine, by any of its names.")
        var name: String

        @Argument(help: "Fingerprints.")
        var fingerprints: [String] = []

        @Flag(help: "Accept all that the machine shows, without having compared anything.")
        var unseen = false

        @OptionGroup var output: OutputOptions

        func run() async throws {
            guard unseen != !fingerprints.isEmpty else { throw Failure(usage: "name fingerprints, or say --unseen") }
            let session = try RollerSession()
            let keys = try await HostKeysCommand.scan(name, session)
            for wanted in fingerprints where !keys.contains(where: { $0["fingerprint"]?.string == wanted }) {
                throw Failure("\(name) does not show a key of fingerprint \(wanted); nothing was accepted")
            }
            let accepted = keys.filter { unseen || fingerprints.contains($0["fingerprint"]?.string ?? "") }
            let lines = accepted.compactMap { $0["key"]?.string }
            let machine = try await session.call(
                "PATCH",
                ["machines", name],
                body: ["properties": ["ssh.host_keys": JSONValue(lines)]]
            )
            let own = machine["name"]?.string ?? name
            let answer = try await session.call("GET", ["hostkeys"], query: [("machine", own)])
            output.print(answer, text: "\(own) is known by\n" + HostKeysCommand.table(accepted, state: false))
        }
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List the accepted keys of machines that are reached by SSH.",
            discussion: "Examples:\n  slipway hostkeys list\n  slipway hostkeys list t-linux64-ms-001 --json"
        )

        @Argument(help: "A machine; without it all.")
        var name: String?

        @OptionGroup var output: OutputOptions

        func run() async throws {
            let query = name.map { [("machine", $0)] } ?? []
            let answer = try await RollerSession().call("GET", ["hostkeys"], query: query)
            var rows: [[String]] = []
            for machine in answer["machines"]?.array ?? [] {
                let name = machine["machine"]?.string ?? "?"
                let keys = machine["keys"]?.array ?? []
                if keys.isEmpty { rows.append([name, "-", "none accepted", "-"]) }
                for key in keys {
                    rows.append([name] + ["type", "fingerprint", "source"].map { key[$0]?.string ?? "-" })
                }
            }
            output.print(answer, text: Columns.text(rows, nothing: "no machine is reached by SSH"))
        }
    }

    /// The keys that a machine shows to a worker.
    private static func scan(_ name: String, _ session: RollerSession) async throws -> [JSONValue] {
        let job = try await session.look("ssh_host_keys", at: name)
        guard job["status"]?.string == "COMPLETE", let keys = job["result"]?["keys"]?.array else {
            throw Failure(remote: "\(name) shows no key: \(JobCommand.ending(job))")
        }
        return keys
    }

    private static func table(_ keys: [JSONValue], state: Bool = true) -> String {
        let rows = keys.map { key in
            let words = [key["type"]?.string ?? "?", key["fingerprint"]?.string ?? "?"]
            return state ? words + [key["accepted"]?.bool == true ? "accepted" : "unknown"] : words
        }
        return Columns.text(rows, nothing: "no keys")
    }
}
