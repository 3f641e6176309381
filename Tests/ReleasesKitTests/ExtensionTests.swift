// SPDX-License-Identifier: MPL-2.0

import HTTPClient
import JSON
import TestSupport
import Testing

@testable import ReleasesKit

/// Releases of extensions.
@Suite(.timeLimit(.minutes(15)))
struct ExtensionTests {
    private static let name = "helper-1.2.3-build1"

    private static func release(
        _ world: ReleaseWorld,
        _ name: String = "helper",
        manifests: String = "abc",
        as caller: String = ReleaseWorld.script
    ) async throws -> (status: Int, body: JSONValue) {
        let body: JSONValue = [
            "xpi_name": .string(name), "xpi_revision": "def", "xpi_version": "1.2.3", "build_number": 1,
            "revision": .string(manifests),
        ]
        let answer = try await world.call("POST", "/xpi/releases", body, as: caller)
        return (answer.status, answer.body)
    }

    @Test func `an extension is released by those whom its kind concerns, with what its source can do`() async throws {
        try await ReleaseWorld.with { world in
            let prefix = "project:releng:services/shipit_api"
            // The manifests say what there is, and of which kind.
            for (name, manifests) in [("nothing", "abc"), ("old", "abc"), ("helper", "later"), ("../x", "abc")] {
                #expect(try await Self.release(world, name, manifests: manifests).status == 400, "\(name)")
            }
            let system = try await Self.release(world, "newtab")
            #expect(system.body["code"] == "unsupported_product")
            #expect(system.body["detail"]?.string?.contains("system_newtab") == true)
            let weak = try await Self.release(world, as: "c \(prefix)/add_release/xpi/system_newtab")
            #expect(weak.status == 401)
            let needed = "required permission: \(prefix)/add_release/xpi/privileged"
            #expect(weak.body["detail"]?.string?.hasPrefix(needed) == true)
            #expect(try await Self.release(world, as: try world.person("other", ["shipit_firefox"])).status == 401)

            let made = try await Self.release(world, as: try world.person("one", ["shipit_xpi"]))
            #expect(made.status == 201)
            #expect(made.body["name"] == .string(Self.name))
            #expect(made.body["xpi_name"] == "helper")
            #expect(made.body["xpi_revision"] == "def")
            #expect(made.body["xpi_version"] == "1.2.3")
            #expect(made.body["revision"] == "abc")
            let phases = made.body["phases"]?.array?.compactMap { $0["name"]?.string }
            #expect(phases == Surroundings.flavors + ["something_else"])
            #expect(try await Self.release(world).status == 400)

            // Each list shows its own.
            _ = try await world.release()
            #expect(try await world.call("GET", "/releases").body.array?.count == 1)
            let found = try await world.call("GET", "/xpi/releases?xpi_name=helper&xpi_version=1.2.3&build_number=1")
            #expect(found.body.array?.compactMap { $0["name"] } == [.string(Self.name)])
            #expect(try await world.call("GET", "/xpi/releases?xpi_name=other").body == [])
            #expect(try await world.call("GET", "/xpi/releases?build_number=1").status == 400)
            #expect(try await world.call("GET", "/xpi/releases/Firefox-60.0b9-build1").status == 404)
        }
    }

    @Test func `the phases of an extension are called for and signed as those of products, and it is shipped`()
        async throws
    {
        try await ReleaseWorld.with { world in
            #expect(try await Self.release(world).status == 201)
            let one = "/xpi/releases/\(Self.name)"
            let prefix = "project:releng:services/shipit_api"
            let wrong = "c \(prefix)/schedule_phase/xpi/privileged/push_firefox"
            #expect(try await world.call("PUT", "\(one)/promote_firefox", as: wrong).status == 401)
            let right = "c \(prefix)/schedule_phase/xpi/privileged/promote_firefox"
            #expect(try await world.call("PUT", "\(one)/promote_firefox", as: right).status == 200)
            try await eventually("the task is there") {
                try await world.call("GET", "\(one)/promote_firefox").body["submitted"] == true
            }
            let input = world.around.body("\(Self.name).promote_firefox")?["action"]?["input"]
            #expect(
                input == [
                    "build_number": 1, "xpi_name": "helper", "revision": "def", "version": "1.2.3",
                    "release_promotion_flavor": "promote_firefox",
                    "previous_graph_ids": [.string(Surroundings.decision)],
                ]
            )
            let sign = "/xpi/signoff/\(Self.name)/push_firefox"
            #expect(try await world.call("PUT", "\(one)/push_firefox", as: ReleaseWorld.script).status == 400)
            let slot = try #require(try await world.call("GET", sign).body["signoffs"]?[0]?["uid"])
            #expect(try await world.call("PUT", sign, slot, as: try world.person("x", ["shipit_xpi"])).status == 401)
            let signed = try await world.call("PUT", sign, slot, as: try world.person("y", ["shipit_relman"]))
            #expect(signed.status == 200)
            #expect(signed.body["signoffs"]?[0]?["signed"] == true)
            try await eventually("the last signature calls for the phase") {
                try await world.service.callForWaiting()
                return try await world.call("GET", "\(one)/push_firefox").body["submitted"] == true
            }
            let shipped = try await world.call("PATCH", one, ["status": "shipped"], as: ReleaseWorld.script)
            #expect(shipped.body["status"] == "shipped")
            #expect(shipped.body["xpi_name"] == "helper")
            #expect(try await world.call("DELETE", one, as: ReleaseWorld.script).status == 409)
        }
    }

    @Test func `the list of releases tells where the package is that a phase has signed`() async throws {
        try await ReleaseWorld.with(flavors: ["promote", "ship"]) { world in
            #expect(try await Self.release(world).status == 201)
            let one = "/xpi/releases/\(Self.name)"
            #expect(try await world.call("PUT", "\(one)/promote", as: ReleaseWorld.script).status == 200)
            try await eventually("the task is there") {
                try await world.call("GET", "\(one)/promote").body["submitted"] == true
            }
            func phases() async throws -> [JSONValue] {
                try await world.call("GET", "/xpi/releases").body[0]?["phases"]?.array ?? []
            }
            // Nothing is signed before the phase is done, and nobody is asked.
            #expect(try await phases().allSatisfy { $0["xpiUrl"] == nil })
            #expect(world.around.state.withLock { $0.listings } == 0)
            world.around.state.withLock { _ = $0.completed.insert("\(Self.name).promote") }
            try await eventually("the package is told of") { try await phases()[0]["xpiUrl"] != nil }
            let address = try await phases()[0]["xpiUrl"]
            #expect(address == .string("\(world.aroundURL)/api/queue/v1/task/signing/artifacts/signing%2Fhelper.xpi"))
            #expect(try await phases()[1]["xpiUrl"] == nil)
            #expect(try await world.call("GET", one).body["phases"]?[0]?["xpiUrl"] == address)
            // The tasks are listed once, however many read.
            #expect(world.around.state.withLock { $0.listings } == 1)
        }
    }
}
