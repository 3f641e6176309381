// SPDX-License-Identifier: MPL-2.0

import HooksKit
import JSON
import Schedules
import Taskcluster
import Testing

struct ParameterTemplateTests {
    let now = Timestamp(milliseconds: 1_577_836_800_000)
    let parameters: JSONObject = [
        "who": "me", "n": 3, "firedBy": "triggerHook",
        "payload": ["branch": "main", "list": ["a", "b"], "nested": ["x": nil]],
    ]

    private func render(_ template: JSONValue) throws -> JSONValue {
        try ParameterTemplate(template).render(parameters, seed: "task", now: now)
    }

    @Test(
        arguments: [
            ("{{ who }}", "me"), ("{{who}}!", "me!"), ("<{{ n }}>", "<3>"), ("{{ n }}", 3),
            ("{{ payload.branch }}", "main"), ("{{ payload.list.1 }}", "b"), ("{{ payload.list }}", ["a", "b"]),
            ("x {{ payload.list }}", #"x ["a","b"]"#), ("{{ 'text' }}", "text"), ("{{ \"text\" }}", "text"),
            ("{{ '2 days' | from-now }}", "2020-01-03T00:00:00.000Z"),
            ("{{ 2 days | from-now }}", "2020-01-03T00:00:00.000Z"),
            ("at {{1 hour|from-now}}.", "at 2020-01-01T01:00:00.000Z."),
        ] as [(JSONValue, JSONValue)]
    ) func `an expression is replaced by what it names`(template: JSONValue, expected: JSONValue) throws {
        #expect(try render(template) == expected)
    }

    @Test(
        arguments: [
            "{{}}", "{{ }}", "{{ unknown }}", "{{ who | upper }}", "{{ who | unknown | from-now }}", "{{ who }",
            "{{ 'a}b' }}", "{{{who}}}", "{{ payload.nothing }}", "{% if x %}", "{ {who}}", "plain", "{{ | from-now }}",
        ]
    ) func `text that means nothing here stays as it is`(text: String) throws {
        #expect(try render(JSONValue(text)) == JSONValue(text))
    }

    @Test func `keys are replaced by texts and by nothing else`() throws {
        #expect(try render(["{{ who }}": ["{{ n }}": "{{ who }}"]]) == ["me": ["{{ n }}": "me"]])
    }

    @Test func `the same label makes the same id within one fire, and another one in the next`() throws {
        let template: JSONValue = ["{{ build | as-slugid }}", "{{ 'build' | as-slugid }}", "{{ test | as-slugid }}"]
        let ids = try #require(try render(template).array?.compactMap(\.string))
        #expect(ids.allSatisfy(Slugid.isValid))
        #expect(ids[0] == ids[1])
        #expect(ids[0] != ids[2])
        let other = try ParameterTemplate(template).render(parameters, seed: "another task", now: now)
        #expect(other[0]?.string != ids[0])
    }

    @Test func `a filter that cannot be applied is reported with its place`() throws {
        let wrong: [(JSONValue, String)] = [
            (["a": ["x", "{{ soon | from-now }}"]], "TemplateError at template.a[1]: 'soon' isn't a time expression"),
            (["b": "{{ n | from-now }}"], "TemplateError at template.b: from-now needs a text"),
        ]
        for (template, message) in wrong {
            let error = #expect(throws: ParameterTemplateError.self) { try render(template) }
            #expect(error?.description == message)
        }
    }

    @Test func `the queue's demands are read from a task`() {
        let task: JSONValue = [
            "provisionerId": "p", "workerType": "w", "priority": "high", "routes": ["index.a"], "scopes": ["s:*"],
            "schedulerId": "mine",
        ]
        #expect(
            RequiredScopes.of(task: task) == [
                "queue:create-task:high:p/w", "queue:create-task:project:none", "queue:scheduler-id:mine",
                "queue:route:index.a", "s:*",
            ]
        )
    }
}
