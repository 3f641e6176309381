// SPDX-License-Identifier: MPL-2.0

package import JSON

/// Something wrong with one row of an import.
package struct InventoryProblem: Error, Sendable, Hashable {
    /// The row or element, counted from 1; 0 for the document as a whole.
    package var row: Int
    package var field: String
    package var message: String

    package init(row: Int, field: String, message: String) {
        self.row = row
        self.field = field
        self.message = message
    }

    package var json: JSONValue {
        ["row": JSONValue(row), "field": .string(field), "message": .string(message)]
    }
}

/// What somebody wants the inventory to hold: for each thing the members to change, null to clear one.
package struct InventoryDocument: Sendable {
    /// The wishes for one thing.
    package struct Entry: Sendable, Hashable {
        package var row: Int
        package var members: JSONObject

        package init(row: Int, _ members: JSONObject) {
            self.row = row
            self.members = members
        }

        var name: String { members["name"]?.string ?? "" }
    }

    package var controllers: [Entry] = []
    package var groups: [Entry] = []
    package var machines: [Entry] = []
    /// Secrets that came with the document, by the name under which they will be kept.
    package var credentials: [String: Credential] = [:]
    package var problems: [InventoryProblem] = []
    package var warnings: [String] = []

    package init() {}
}

/// The documents that importers read.
package enum InventoryFormat: String, Sendable, CaseIterable {
    case json, csv
    case workerConfiguration = "worker_config"
    case fixtures

    /// Reads a document; what is wrong with it is among its problems.
    package func read(_ bytes: [UInt8]) -> InventoryDocument {
        func refused(_ message: String) -> InventoryDocument {
            var document = InventoryDocument()
            document.problems.append(InventoryProblem(row: 0, field: "", message: message))
            return document
        }
        guard !bytes.contains(0) else { return refused("holds the character U+0000") }
        switch self {
        case .csv:
            return CSVInventory.read(bytes)
        case .json, .fixtures, .workerConfiguration:
            let value: JSONValue
            do {
                value = try JSONValue(parsing: bytes)
            } catch {
                return refused("not JSON: \(error)")
            }
            guard !value.holdsZero else { return refused("holds the character U+0000") }
            if self == .workerConfiguration { return WorkerConfiguration.read(value) }
            return DjangoFixtures.areFixtures(value) ? DjangoFixtures.read(value) : JSONInventory.read(value)
        }
    }
}
