// SPDX-License-Identifier: MPL-2.0

import JSON
import StepKit
import TestSupport
import Testing

@testable import PipelineKit

/// Pipelines that keep each other from running.
@Suite(.timeLimit(.minutes(10)))
struct ConcurrencyTests {
    @Test func `30: of two pipelines of a key one at a time runs, however long the creation of the older one takes`()
        async throws
    {
        try await PipelineWorld.with(replicas: 2) { world in
            let service = world.service
            for policy in ["queue", "reject"] {
                let key: JSONObject = ["concurrency_key": .string(policy), "concurrency_policy": .string(policy)]
                let step = world.step("old", [], ["remote_uid": .string("old-\(policy)")])
                let body = world.definition([step], key).object ?? [:]
                let origin = StepOrigin(actor: "tests")
                let old = try await service.definition(body, uid: "old-\(policy)", origin: origin)
                let slow = world.step("young", [], ["remote_uid": .string("young-\(policy)")])
                for name in ["old", "young"] { world.lab.set("\(name)-\(policy)", Lab.Behaviour(result: nil)) }
                var refusal: String?
                do {
                    _ = try await service.store.create("old-\(policy)", definition: old.value, origin: origin) {
                        change in
                        // It has its number, and nobody can see it yet.
                        try await world.create("young-\(policy)", [slow], key, replica: 1)
                        try await eventually { world.lab.isRunning("young-\(policy)") }
                        try await service.begin(&change)
                    }
                } catch let problem as StepProblem {
                    refusal = problem.code
                }
                #expect(refusal == (policy == "queue" ? nil : "concurrency_key_busy"))
                if policy == "queue" {
                    try await eventually { try await world.reasons("old-queue", "old").contains("concurrency") }
                    #expect(world.lab.puts("old-queue") == 0)
                }
                world.lab.finish("young-\(policy)")
                try await world.reach("young-\(policy)", "completed")
            }
            try await eventually { world.lab.isRunning("old-queue") }
            world.lab.finish("old-queue")
            try await world.reach("old-queue", "completed")
        }
    }
}
