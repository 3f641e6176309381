// SPDX-License-Identifier: MPL-2.0

import JSON
import Postgres
import Schedules
import TestSupport
import Testing

@testable import HooksKit

@Suite(.timeLimit(.minutes(2)))
struct ProgramTests {
    private let name = HookName(group: "g", hook: "h")

    private func rendered(_ program: HookProgram?) throws -> JSONValue? {
        try program?.template.render([:], seed: "", now: Timestamp(milliseconds: 0))["payload"]
    }

    @Test func `a template is read once for each version of its hook`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create(["payload": 1])
            let programs = HookPrograms(pool: world.pool)
            let first = try await programs.program(of: name)
            #expect(try rendered(first) == 1)
            // A change behind the service's back has no version, and so shows that nothing is read again.
            _ = try await world.pool.execute(#"update hooks.hooks set task = '{"payload":2}'"#)
            #expect(try rendered(try await programs.program(of: name)) == 1)
            _ = try await world.call("POST", "/hooks/g/h", HooksWorld.request(["payload": 3]))
            let second = try await programs.program(of: name)
            #expect(try rendered(second) == 3)
            #expect(second?.version != first?.version)
        }
    }

    @Test func `a hook that is made again under an old name has a new version`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            let programs = HookPrograms(pool: world.pool)
            try await world.create(["payload": 1])
            _ = try await programs.program(of: name)
            _ = try await world.call("DELETE", "/hooks/g/h")
            #expect(try await programs.program(of: name) == nil)
            try await world.create(["payload": 2])
            #expect(try rendered(try await programs.program(of: name)) == 2)
        }
    }

    @Test func `more hooks than are kept in mind are all rendered rightly`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            for index in 0..<7 {
                let request = HooksWorld.request(["payload": JSONValue(index)])
                _ = try await world.call("PUT", "/hooks/g/h\(index)", request)
            }
            let programs = HookPrograms(pool: world.pool, limit: 4)
            for _ in 0..<3 {
                for index in 0..<7 {
                    let program = try await programs.program(of: HookName(group: "g", hook: "h\(index)"))
                    #expect(try rendered(program) == JSONValue(index))
                }
            }
        }
    }
}
