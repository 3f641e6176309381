// SPDX-License-Identifier: MPL-2.0

import Core
import Glibc
import Logging
import ServiceLifecycle

/// Fills an empty inventory from the configuration file of the original service, once.
package struct FirstImport: Service {
    let inventory: InventoryStore
    let credentials: CredentialStore
    let path: String
    let seeds: SeedControllers

    package init(
        inventory: InventoryStore,
        credentials: CredentialStore,
        path: String,
        seeds: SeedControllers = SeedControllers()
    ) {
        self.inventory = inventory
        self.credentials = credentials
        self.path = path
        self.seeds = seeds
    }

    package func run() async throws {
        // A database that is away for a while, or a folder that is not there yet, must not end the service.
        try await PeriodicService(name: "first import", every: .seconds(600)) { try await fill() }.run()
    }

    /// Imports the file if there are no machines; answers whether it did.
    @discardableResult
    func fill() async throws -> Bool {
        let known = try await inventory.pool.query("select exists (select 1 from roller.machines) as some")
        if try known.first?.bool("some") == true { return false }
        guard let bytes = Self.contents(of: path) else {
            throw CredentialStore.Problem(description: "\(path) cannot be read: \(String(cString: strerror(errno)))")
        }
        let document = seeds.completed(InventoryFormat.workerConfiguration.read(bytes))
        for (name, credential) in document.credentials { try credentials.save(credential, as: name) }
        var options = InventoryImport(clientID: "roller-api")
        options.applies = true
        options.verb = "inventory.first-import"
        let plan = try await inventory.apply(document, options)
        for problem in plan.problems {
            Logger.current.error(
                "the configuration of workers is not imported",
                metadata: ["field": "\(problem.field)", "problem": "\(problem.message)"]
            )
        }
        for warning in plan.warnings {
            Logger.current.warning("the configuration of workers is strange", metadata: ["warning": "\(warning)"])
        }
        return plan.isApplied
    }

    private static func contents(of path: String) -> [UInt8]? {
        guard let stream = fopen(path, "re") else { return nil }
        defer { fclose(stream) }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 16_384)
        while bytes.count < 64 << 20 {
            let count = fread(&chunk, 1, chunk.count, stream)
            guard count > 0 else { break }
            bytes += chunk[..<count]
        }
        return ferror(stream) == 0 ? bytes : nil
    }
}
