// SPDX-License-Identifier: MPL-2.0

import ArgumentParser
import Core
import JSON
import TaskclusterClient

extension JobCommand {
    /// Makes buttons of roller's actions.
    struct Register: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "register",
            abstract: "Register roller's actions with a provisioner, so that its workers get buttons.",
            discussion: """
                The actions are those of ROLLER_URL; the buttons lead to BASE-URL, which is where browsers reach it. Newer
                queues know no actions: then they are printed and the exit status is 3. Exit status 1 is a mistake in the
                arguments, 2 a refusal of the deployment.

                Example:
                  slipway job register https://roller.example.com releng-hardware
                """
        )

        @Argument(help: "The address that browsers use, without a slash at its end.")
        var baseURL: String

        @Argument(help: "The provisioner.")
        var provisioner: String

        @Flag(help: "Print the actions and register none.")
        var dryRun = false

        func run() async throws {
            try Self.check(baseURL, provisioner)
            let answer = try await RollerSession().call("GET", ["actions"])
            let actions = JSONValue.array((answer["actions"]?.array ?? []).map(action))
            guard !dryRun else {
                print(actions.text(.pretty))
                return
            }
            if baseURL.hasPrefix("http:") {
                StandardError.write("slipway: browsers refuse to call an http address from an https page\n")
            }
            do {
                _ = try await Session().client.call(
                    "queue",
                    "PUT",
                    ["provisioners", provisioner],
                    body: ["actions": actions]
                )
            } catch let error as TaskclusterError where error.status == 404 || error.status == 405 {
                StandardError.write("slipway: this queue knows no actions; here they are\n")
                print(actions.text(.pretty))
                throw ExitCode(3)
            } catch let error as TaskclusterError {
                StandardError.write("slipway: \(Failure(error).message)\n")
                throw ExitCode(2)
            }
            print("\(actions.array?.count ?? 0) actions registered with \(provisioner)")
        }

        private func action(_ action: JSONValue) -> JSONValue {
            let name = action["name"]?.string ?? ""
            let isDestructive = action["destructive"]?.bool == true
            let warning = isDestructive ? "\n\n**Whoever works on the machine will notice.**" : ""
            return [
                "name": .string(name), "title": action["title"] ?? .string(name), "context": "worker",
                "url": .string(
                    "\(baseURL)/api/v1/workers/<workerId>/jobs?task_name=\(name)&provisioner_id=<provisionerId>"
                        + "&worker_type=<workerType>&worker_group=<workerGroup>"
                ),
                "method": "POST", "description": .string((action["description"]?.string ?? "") + warning),
            ]
        }

        /// Refuses what could not become a good address.
        private static func check(_ url: String, _ provisioner: String) throws {
            let rest = url.hasPrefix("https://") ? url.dropFirst(8) : url.hasPrefix("http://") ? url.dropFirst(7) : ""
            let isURL =
                !rest.isEmpty && !url.hasSuffix("/")
                && url.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F && $0 != UInt8(ascii: "<") }
            guard isURL else { throw Failure("BASE-URL must be an http or https address without a slash at its end") }
            for word in ["workerId", "workerGroup"] where url.contains(word) || provisioner.contains(word) {
                throw Failure("neither BASE-URL nor the provisioner may hold \(word), which the queue replaces")
            }
            let isName =
                (1...38).contains(provisioner.utf8.count)
                && provisioner.utf8.allSatisfy { byte in
                    "-_".utf8.contains(byte) || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
                        || (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte | 0x20)
                }
            guard isName else { throw Failure("the provisioner must be 1 to 38 letters, digits, '-' and '_'") }
        }
    }
}
