// SPDX-License-Identifier: MPL-2.0

import Glibc
import JSON
import Testing

@testable import RollerKit

@Suite(.timeLimit(.minutes(5)))
struct UpkeepTests {
    static let worker = "t-linux64-ms-001"

    /// Stores a running job that holds its machine and one place at a controller.
    private func running(_ api: APIWorld, fence: Int) async throws -> (job: String, resource: String) {
        try await api.managed()
        let answer = try await api.call("POST", "workers/\(Self.worker)/jobs?task_name=reboot")
        let id = try #require(answer.json["task_id"]?.string)
        try await api.world.claim(id, fence: fence)
        #expect(try await api.world.jobs.transition(id, fence: fence, to: .running))
        let machine = try #require(try await api.world.jobs.job(id)?.machine)
        _ = try await api.world.pool.execute(
            """
            insert into roller.resource_locks (resource, job, runner, fence, expires_at)
            select r, \(id)::uuid, 'r', \(fence), clock_timestamp() + interval '1 minute'
            from unnest(\(["machine:\(machine)", "slot:x:1"])::text[]) r
            """
        )
        return (id, "machine:\(machine)")
    }

    @Test func `a broken lock costs its job, and nothing that the old worker does counts any more`() async throws {
        try await APIWorld.with { api in
            let (id, resource) = try await running(api, fence: 7)
            let shown = try await api.call("GET", "locks", scopes: ["inventory:read"]).json["locks"]
            #expect(shown?[0]?["resource"]?.string == resource && shown?[0]?["task_name"] == "reboot")
            #expect(shown?[0]?["machine"]?.string == Self.worker && shown?.array?.count == 2)
            let wish: JSONValue = ["resource": .string(resource), "reason": "it hangs"]
            #expect(try await api.send("POST", "locks/break", wish, scopes: ["inventory:write"]).status == 403)
            #expect(try await api.send("POST", "locks/break", ["resource": "machine:x"]).json["reason"] != nil)
            let unknown = try await api.send("POST", "locks/break", ["resource": "machine:x", "reason": "y"])
            #expect(unknown.status == 404)
            let broken = try await api.send("POST", "locks/break", wish, scopes: ["override"])
            #expect(broken.status == 200 && broken.json["job"]?.string == id && broken.json["status"] == "FAILED")
            let view = try await api.call("GET", "jobs/\(id)").json
            #expect(view["state"] == "lost" && view["reason"] == "lock-broken")
            // The old claim can begin, end and verify nothing.
            let jobs = api.world.jobs
            #expect(try await jobs.beginAttempt(id, fence: 7, method: "ipmi_reset", control: nil) == nil)
            #expect(try await jobs.transition(id, fence: 7, to: .verifying) == false)
            #expect(try await jobs.finish(id, fence: 7, JobEnd(.succeeded, summary: "up")) == false)
            #expect(try await jobs.job(id)?.state == .lost)
            // What it held stays held until its worker lets go or its lease is over, and is prolonged by nobody.
            #expect(try await api.world.count("resource_locks") == 2)
            // A lock that has outlived its job is gone at once.
            #expect(try await api.send("POST", "locks/break", wish).json["job"] == .null)
            #expect(try await api.world.count("resource_locks") == 1)
            let audit = try await api.call("GET", "audit?object=lock:\(resource)", scopes: ["audit:read"])
            let entries = try #require(audit.json["entries"]?.array)
            #expect(entries.map { $0["verb"] } == ["lock.break", "lock.break"])
            #expect(entries[1]["before"]?["job"]?.string == id && entries[1]["after"]?["reason"] == "it hangs")
            #expect(entries[1]["client_id"]?.string == APIWorld.sheriff && entries[1]["source_ip"] == "127.0.0.1")
        }
    }

    @Test func `secrets are stored by those who may, listed without their content, and written into the audit log`()
        async throws
    {
        try await withFolder { folder in
            try await APIWorld.with(credentials: CredentialStore(directory: folder)) { api in
                let secret: JSONValue = ["username": "admin", "password": "hush-hush"]
                let path = "credentials/bmc-1"
                #expect(try await api.send("PUT", path, secret, scopes: ["inventory:write"]).status == 403)
                #expect(try await api.send("PUT", path, secret, scopes: ["inventory:secrets"]).status == 403)
                let both = ["inventory:write", "inventory:secrets"]
                let stored = try await api.send("PUT", path, secret, scopes: both)
                #expect(stored.status == 201 && stored.json["members"] == ["password", "username"])
                #expect(try await api.send("PUT", path, secret, scopes: both).status == 200)
                #expect(try await api.send("PUT", "credentials/bmc-2", secret, scopes: both).status == 201)
                #expect(try await api.send("PUT", path, [], scopes: both).status == 400)
                #expect(try await api.send("PUT", "credentials/..", secret, scopes: both).status == 404)
                #expect(entries(folder) == ["bmc-1.json", "bmc-2.json"])
                let bmc: JSONValue = ["kind": "ipmi", "address": "bmc", "credential_ref": "bmc-1"]
                #expect(try await api.send("PUT", "controllers/one", bmc).status == 201)
                let lacking: JSONValue = ["kind": "ipmi", "address": "bmc", "credential_ref": "bmc-3"]
                #expect(try await api.send("PUT", "controllers/two", lacking).status == 201)
                #expect(try await api.call("GET", "credentials", scopes: ["inventory:read"]).status == 403)
                let list = try await api.call("GET", "credentials", scopes: ["inventory:secrets"])
                let first = try #require(list.json["credentials"]?[0])
                #expect(first["name"] == "bmc-1" && first["controllers"] == ["one"] && first["problem"] == .null)
                #expect(first["shared_with"] == ["bmc-2"] && first["members"] == ["password", "username"])
                #expect(list.json["missing"] == [["name": "bmc-3", "controllers": ["two"]]])
                chmod("\(folder)/bmc-1.json", 0o644)
                let open = try await api.call("GET", "credentials", scopes: ["inventory:secrets"])
                #expect(open.json["credentials"]?[0]?["problem"]?.string?.contains("0600") == true)
                let lint = try await api.call("GET", "machines/lint", scopes: ["inventory:read"])
                let warnings = lint.json["warnings"]?.array?.compactMap(\.string) ?? []
                #expect(warnings.count == 2 && warnings[0].contains("0600") && warnings[1].contains("bmc-3"))
                let audit = try await api.call("GET", "audit?object=credential:bmc-1")
                #expect(audit.json["entries"]?[0]?["after"] == ["members": ["password", "username"]])
                for answer in [stored, list, open, lint, audit] { #expect(!answer.text.contains("hush")) }
                // What a controller needs stays.
                let needed = try await api.call("DELETE", path, scopes: both)
                #expect(needed.status == 409 && needed.json["detail"]?.string == "Needed by one.")
                #expect(try await api.call("DELETE", path, scopes: ["inventory:write"]).status == 403)
                #expect(try await api.call("DELETE", "credentials/bmc-2", scopes: both).status == 204)
                #expect(try await api.call("DELETE", "credentials/bmc-2", scopes: both).status == 404)
                #expect(entries(folder) == ["bmc-1.json"])
                let gone = try await api.call("GET", "audit?object=credential:bmc-2")
                #expect(gone.json["entries"]?[0]?["verb"] == "credential.delete")
            }
        }
    }

    @Test func `keys of hosts are shown by their fingerprints, the machine's own before those of a controller`()
        async throws
    {
        try await APIWorld.with { api in
            // What `ssh-keygen -lf` prints for this key.
            let line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
            let print = "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU"
            #expect(HostKey(line)?.fingerprint == print)
            for odd in ["", "ssh-ed25519", "ssh-ed25519 not/base64!", "x y\nz w", "ssh-ed25519 AAAA"] {
                #expect(HostKey(odd) == nil, "\(odd)")
            }
            let ssh: JSONValue = ["kind": "ssh", "options": ["host_keys": [.string(line), "nonsense"]]]
            #expect(try await api.send("PUT", "controllers/ssh", ssh).status == 201)
            let machine: JSONValue = ["controls": [["controller": "ssh"]]]
            #expect(try await api.send("PUT", "machines/m", machine).status == 201)
            let shared = try await api.call("GET", "hostkeys", scopes: ["inventory:read"]).json["machines"]?[0]
            #expect(shared?["machine"] == "m")
            #expect(
                shared?["keys"] == [["type": "ssh-ed25519", "fingerprint": .string(print), "source": "controller"]]
            )
            let own: JSONValue = ["properties": ["ssh.host_keys": [.string(line)]]]
            #expect(try await api.send("PATCH", "machines/m", own).status == 200)
            let now = try await api.call("GET", "hostkeys?machine=M").json["machines"]?[0]?["keys"]
            #expect(now?[0]?["source"] == "machine" && now?.array?.count == 1)
            #expect(try await api.call("GET", "hostkeys?machine=nobody").status == 404)
        }
    }
}
