// SPDX-License-Identifier: MPL-2.0

import ArgumentParser
import Glibc
import HTTPClient
import ScriptworkerKit

/// What the commands about chains have in common.
struct ChainOptions: ParsableArguments {
    @Argument(help: "The task.")
    var taskID: String

    @Option(help: "The type as which the task is looked at, such as signing.")
    var taskType: String

    @Option(help: "The product whose declarations apply (default: the configuration's, or firefox).")
    var cotProduct: String?

    @Flag(help: "Require that signatures verify.")
    var verifySigs = false

    @Flag(help: "Look only at what the task rests on, not at what its own worker states.")
    var noCheckTask = false

    @Flag(help: "Remove the downloaded files afterwards.")
    var cleanup = false

    @Flag(name: .shortAndLong, help: "Tell every step.")
    var verbose = false

    @Option(help: "A worker's configuration file, instead of the built-in values.")
    var config: String?

    @Option(name: .customLong("root-url"), help: "The deployment.")
    var rootURL: String?

    @Option(help: "Take every answer from a directory that --capture has filled.")
    var offline: String?

    @Option(help: "Keep every answer in this directory.")
    var capture: String?

    func transport() throws -> any HTTPTransport {
        let transport = CurlTransport()
        if let offline { return try ArchiveTransport(.replay, directory: offline, transport: transport) }
        if let capture { return try ArchiveTransport(.capture, directory: capture, transport: transport) }
        return transport
    }

    /// Verifies, telling the steps on standard error.
    func report() async throws -> ChainReport {
        var options = ChainTools.Options()
        options.configurationPath = config
        options.product = cotProduct
        options.rootURL = rootURL
        options.checksSignatures = verifySigs
        let tools = try ChainTools(options, transport: transport(), needsPolicy: true)
        let directory = try TemporaryDirectory.make()
        defer { if cleanup { TemporaryDirectory.remove(directory) } }
        if !cleanup { say("working in \(directory)") }
        return try await tools.verify(
            taskID,
            type: taskType,
            includingTask: !noCheckTask,
            directory: directory
        ) { [verbose] isDetail, text in
            if verbose || !isDetail { say(text) }
        }
    }
}

/// Runs a body and turns its complaints into lines on standard error and status 1.
func complaining<Result>(_ body: () async throws -> Result) async throws -> Result {
    do {
        return try await body()
    } catch let error as ExitCode {
        throw error
    } catch {
        throw failed("\(error)")
    }
}

extension ScriptworkerCommand {
    struct VerifyChain: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "verify-cot",
            abstract: "Verify a task's chain of trust.",
            aliases: ["verify_cot"]
        )

        @OptionGroup var options: ChainOptions

        @Flag(help: "Print the result as JSON.")
        var json = false

        func run() async throws {
            do {
                let report = try await options.report()
                if json { print(report.jsonText) }
            } catch let problem as ChainProblem where json {
                print(problem.jsonText)
                throw ExitCode(1)
            } catch {
                throw failed("\(error)")
            }
        }
    }

    struct ExplainChain: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "explain-cot",
            abstract: "Verify a task's chain of trust and print it as a tree."
        )

        @OptionGroup var options: ChainOptions

        func run() async throws {
            print(try await complaining { try await options.report() }.tree)
        }
    }

    struct CreateTestWorkdir: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "create-test-workdir",
            abstract: "Fetch a task and its inputs, unverified, the way a script will find them.",
            aliases: ["create_test_workdir"]
        )

        @Argument(help: "The task.")
        var taskID: String

        @Option(help: "The directory to make.")
        var path = "work"

        @Flag(help: "Empty the directory first if it exists.")
        var overwrite = false

        @Option(help: "A worker's configuration file, instead of the built-in values.")
        var config: String?

        @Option(name: .customLong("root-url"), help: "The deployment.")
        var rootURL: String?

        func run() async throws {
            try await complaining {
                var options = ChainTools.Options()
                options.configurationPath = config
                options.rootURL = rootURL
                let tools = try ChainTools(options, transport: CurlTransport(), needsPolicy: false)
                for place in try await tools.createWorkDirectory(path, for: taskID, overwriting: overwrite) {
                    print(place)
                }
            }
        }
    }

    struct SignStatement: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "sign-cot",
            abstract: "Sign a chain-of-trust.json; the signature is written beside it."
        )

        @Argument(help: "The file.")
        var file: String

        @Option(help: "The private key file.")
        var key = "private_key"

        func run() async throws {
            print(try await complaining { try SignatureTools.sign(file, keyPath: key) })
        }
    }

    struct VerifySignature: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "verify-ed25519-signature",
            abstract: "Say which key made a signature.",
            aliases: ["verify_ed25519_signature"]
        )

        @Option(help: "A public key file, tried before the configured keys.")
        var pubkey: String?

        @Argument(help: "The signed file.")
        var file: String

        @Argument(help: "The signature.")
        var signature: String

        func run() async throws {
            let key = try await complaining {
                try SignatureTools.matchingKey(file, signature: signature, publicKeyPath: pubkey)
            }
            print("\(file) is signed with \(key)")
        }
    }

    struct GenerateKey: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "gen-ed25519-key",
            abstract: "Make a signing key pair in the current directory.",
            aliases: ["gen_ed25519_key"]
        )

        @Argument(help: "What the two file names begin with.")
        var prefix: String?

        func run() async throws {
            let start = prefix.map { "\($0)_" } ?? ""
            try await complaining {
                try SigningKey.writePair(privatePath: "\(start)private_key", publicPath: "\(start)public_key")
            }
        }
    }
}
