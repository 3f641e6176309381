// SPDX-License-Identifier: MPL-2.0

import Glibc
import JSON
import Testing

@testable import RollerKit

/// Lends a folder that is removed afterwards.
func withFolder<R>(_ body: (String) async throws -> R) async throws -> R {
    var template = Array("/tmp/roller-tests-XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else { throw Unexpected() }
    let folder = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    defer {
        for name in entries(folder) { unlink("\(folder)/\(name)") }
        rmdir(folder)
    }
    return try await body(folder)
}

/// The names in a folder.
func entries(_ folder: String) -> [String] {
    guard let stream = opendir(folder) else { return [] }
    defer { closedir(stream) }
    var names: [String] = []
    while let entry = readdir(stream) {
        let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
            pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
        }
        if name != ".", name != ".." { names.append(name) }
    }
    return names.sorted()
}

@Suite(.timeLimit(.minutes(2)))
struct CredentialTests {
    @Test func `credentials are files for their owner alone, and never show themselves`() async throws {
        try await withFolder { folder in
            let store = CredentialStore(directory: folder)
            let secret: JSONObject = [
                "username": "admin", "password": "hush",
                "snmpV3": ["authPassphrase": "hush-too", "authProtocol": "SHA"],
            ]
            try store.save(Credential(secret), as: "bmc-1")
            #expect(entries(folder) == ["bmc-1.json"])
            var status = stat()
            #expect(stat("\(folder)/bmc-1.json", &status) == 0 && status.st_mode & 0o777 == 0o600)
            let loaded = try store.load("bmc-1")
            #expect(loaded.username == "admin" && loaded.password == "hush")
            #expect(loaded.object("snmpV3")?["authProtocol"] == "SHA")
            #expect(Set(loaded.secrets) == ["hush", "hush-too"])
            #expect("\(loaded)" == "..." && String(reflecting: loaded).contains("hush") == false)
            chmod("\(folder)/bmc-1.json", 0o644)
            #expect(throws: CredentialStore.Problem.self) { try store.load("bmc-1") }
            for odd in ["", "../etc/passwd", "-x", ".hidden", "a/b", String(repeating: "a", count: 129)] {
                #expect(throws: CredentialStore.Problem.self, "\(odd)") { try store.load(odd) }
                #expect(throws: CredentialStore.Problem.self, "\(odd)") { try store.save(loaded, as: odd) }
            }
        }
    }

    @Test func `R64: passwords of an imported file end in credentials and in no answer`() async throws {
        try await withFolder { folder in
            let answers = try await APIWorld.with(credentials: CredentialStore(directory: folder)) { api in
                let bytes = InventoryTests.configuration.bytes()
                let path = "machines/import?format=worker_config&mode="
                let plan = try await api.call("POST", path + "plan", body: bytes)
                #expect(plan.status == 200 && entries(folder).isEmpty)
                let applied = try await api.call("POST", path + "apply", body: bytes)
                #expect(applied.status == 200 && applied.json["applied"] == true)
                let export = try await api.call("GET", "machines/export")
                let audit = try await api.call("GET", "audit")
                let controller = try await api.call("GET", "controllers/ipmi-moon-chassis-1")
                #expect(controller.json["credential_present"] == true)
                return [plan, applied, export, audit, controller].map(\.text)
            }
            #expect(entries(folder) == ["ipmi-moon-chassis-1.json", "snmp-community.json", "ssh-roller-roller.json"])
            for answer in answers { #expect(!answer.contains("s3cret")) }
            let store = CredentialStore(directory: folder)
            #expect(try store.load("ipmi-moon-chassis-1").password == "s3cret-bmc")
        }
        try await APIWorld.with { api in
            let path = "machines/import?format=worker_config&mode=apply"
            let refused = try await api.call("POST", path, body: InventoryTests.configuration.bytes())
            #expect(refused.status == 409 && refused.json["detail"]?.string?.contains("CREDENTIALS_DIR") == true)
            #expect(try await api.world.count("machines") == 0)
        }
    }
}
