// SPDX-License-Identifier: MPL-2.0

import JSON
import StepKit
import Taskcluster
import Testing

@testable import TaskclusterStepKit

/// What the tasks of a group amount to.
struct RollUpTests {
    private func verdict(
        _ members: [GroupMember],
        sealed: Bool = false,
        _ options: JSONObject = [:]
    ) throws -> GroupVerdict {
        var body: JSONObject = ["taskGroupId": .string(Slugid.make())]
        for (key, value) in options { body[key] = value }
        return GroupRollUp(try TaskclusterDefinition(body), members, isSealed: sealed).verdict
    }

    private func isRunning(_ verdict: GroupVerdict) -> Bool {
        if case .running = verdict { true } else { false }
    }

    private func isFailed(_ verdict: GroupVerdict) -> Bool {
        if case .failed = verdict { true } else { false }
    }

    @Test func `66: a failure is told when all tasks have ended, or at once where that is asked for`() throws {
        let members = [GroupMember("a", "failed"), GroupMember("b", "running")]
        #expect(isRunning(try verdict(members)))
        #expect(isFailed(try verdict(members, ["fail_fast": true])))
        #expect(isFailed(try verdict([GroupMember("a", "failed"), GroupMember("b", "completed")])))
    }

    @Test func `67: tasks that can never run do not hold up a failure`() throws {
        let blocked = [
            GroupMember("a", "failed"), GroupMember("b", "unscheduled", dependencies: ["a"]),
            GroupMember("c", "unscheduled", dependencies: ["b"]),
        ]
        #expect(try verdict(blocked) == .failed("blocked: b can never run"))
        // Somebody else may still finish what d waits for.
        #expect(isRunning(try verdict(blocked + [GroupMember("d", "unscheduled", dependencies: ["elsewhere"])])))
        var patient = GroupMember("e", "unscheduled", dependencies: ["a"])
        patient.requiresOnlyResolved = true
        #expect(isRunning(try verdict([GroupMember("a", "failed"), patient])))
    }

    @Test func `69: a group that was cancelled is cancelled, one with another failure is failed`() throws {
        let cancelled = GroupMember("a", "exception", reason: "canceled")
        #expect(try verdict([cancelled, GroupMember("b", "completed")]) == .cancelled)
        #expect(isFailed(try verdict([cancelled, GroupMember("b", "exception", reason: "deadline-exceeded")])))
        #expect(isFailed(try verdict([cancelled, GroupMember("b", "failed")])))
    }

    @Test func `options decide which tasks count`() throws {
        let flaky = GroupMember("a", "failed", name: "test-linux-flaky")
        #expect(try verdict([flaky, GroupMember("b", "completed")], ["ignore_tasks": ["*-flaky"]]) == .completed)
        #expect(isFailed(try verdict([flaky, GroupMember("b", "failed", name: "x")], ["ignore_tasks": ["*-flaky"]])))
        #expect(try verdict([flaky], ["success_states": ["completed", "failed"]]) == .completed)
        #expect(isRunning(try verdict([GroupMember("b", "completed")], ["require_sealed": true])))
        #expect(try verdict([GroupMember("b", "completed")], sealed: true, ["require_sealed": true]) == .completed)
        // What is listed twice counts as it was listed last.
        #expect(try verdict([GroupMember("b", "failed"), GroupMember("b", "completed")]) == .completed)
        #expect(isRunning(try verdict([])))
    }

    @Test(arguments: [
        ("a*c", "abbc", true), ("a*c", "abcd", false), ("*", "", true), ("a?c", "abc", true), ("a?c", "ac", false),
        ("*x*y", "axbxcy", true), ("", "", true), ("", "a", false), ("é*", "été", true),
    ])
    func `patterns mean names`(_ pattern: String, _ text: String, _ expected: Bool) {
        #expect(Glob.matches(pattern, text) == expected)
    }

    @Test func `everything that is wrong with a definition is told at once`() throws {
        let body: JSONObject = [
            "taskGroupId": "x", "hook": [:], "fail_fast": 1, "nonsense": true, "success_states": [],
        ]
        do {
            _ = try TaskclusterDefinition(body)
            Issue.record("it was accepted")
        } catch {
            #expect(error.status == 400)
            #expect((error.members["errors"]?.array?.count ?? 0) >= 4)
        }
    }

    @Test func `what is stored is read back as it was`() throws {
        let bodies: [JSONObject] = [
            ["taskGroupId": .string(Slugid.make()), "fail_fast": true, "cancel_on_delete": true],
            ["hook": ["hookGroupId": "g", "hookId": "h", "payload": ["a": 1]], "cancel_on_delete": false],
            ["action": ["taskGroupId": .string(Slugid.make()), "name": "ship", "input": ["b": 2]]],
            ["task": ["taskQueueId": "a/b"], "ignore_tasks": ["x*"], "appear_timeout_s": 5, "reopen_window_s": 9],
        ]
        for body in bodies {
            let definition = try TaskclusterDefinition(body)
            let stored = definition.json(uid: "u")
            #expect(try TaskclusterDefinition(stored.object ?? [:]) == definition)
        }
    }
}
