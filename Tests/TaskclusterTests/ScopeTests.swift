// SPDX-License-Identifier: MPL-2.0

import JSON
import Taskcluster
import Testing

struct ScopeTests {
    @Test(arguments: [
        ("x*", "x", true), ("x*", "x*", true), ("x*", "xy", true), ("x*", "xy*", true), ("x", "x*", false),
        ("*", "", true), ("*", "anything", true), ("", "", true), ("a*b", "a*b", true), ("a*b", "axb", false),
    ])
    func `a scope covers itself and, with a star, what it begins`(_ held: String, _ required: String, _ answer: Bool) {
        #expect(Scope.satisfies(held, required) == answer)
    }

    @Test func `a pattern sorts right before all it covers`() {
        let order = ["*", "", "a*", "a", "a(", "a**", "aa", "b"]
        #expect(order.reversed().sorted(by: Scope.precedes) == order)
    }

    @Test func `normal form drops what is covered`() {
        #expect(Scope.normalized(["b", "a*", "ab", "a", "b", "a*"]) == ["a*", "b"])
        #expect(Scope.normalized(["x", "*"]) == ["*"])
    }

    @Test func `an intersection is what both grant`() {
        #expect(Set(Scope.intersection(["a*", "b"], ["ab", "b*"])) == ["ab", "b"])
        #expect(Scope.union(["a*"], ["ab", "c"]) == ["a*", "c"])
    }

    @Test func `expressions are satisfied by all or any of their members`() {
        let expression: ScopeExpression = .allOf([.scope("a"), .anyOf([.scope("b"), .scope("c")])])
        #expect(expression.isSatisfied(by: ["a", "c"]))
        #expect(expression.missing(from: ["a", "c"]) == nil)
        #expect(expression.missing(from: ["a"]) == .anyOf([.scope("b"), .scope("c")]))
        #expect(expression.missing(from: ["b"]) == .scope("a"))
        #expect(expression.satisfying(["*"]) == ["a", "b", "c"])
        #expect(ScopeExpression.allOf([]).isSatisfied(by: []))
        #expect(!ScopeExpression.anyOf([]).isSatisfied(by: ["*"]))
        #expect(ScopeExpression.anyOf([]).missing(from: ["*"]) == .anyOf([]))
        #expect(expression.json == ["AllOf": ["a", ["AnyOf": ["b", "c"]]]])
    }

    @Test func `a template fills in parameters, loops and conditions`() throws {
        let template = try ScopeTemplate([
            "AllOf": [
                "t:<taskId>:<run>", ["for": "r", "in": "routes", "each": "route:<r>"],
                ["if": "private", "then": "p", "else": ["AnyOf": ["q"]]],
            ]
        ])
        #expect(template.parameters == ["taskId", "run", "routes", "private"])
        let rendered = try template.rendered(["taskId": "x", "run": 0, "routes": ["a", "b"], "private": false])
        let parts: [ScopeExpression] = [.scope("t:x:0"), .scope("route:a"), .scope("route:b"), .anyOf([.scope("q")])]
        #expect(rendered == .allOf(parts))
    }

    @Test func `nothing is required by null and by a false condition at the root`() throws {
        #expect(try ScopeTemplate(.null).rendered([:]) == nil)
        #expect(try ScopeTemplate(["if": "x", "then": "y"]).rendered(["x": false]) == nil)
        #expect(try ScopeTemplate(["if": "x", "then": "y"]).rendered(["x": true]) == .scope("y"))
    }

    @Test func `templates built in code print like written ones`() throws {
        let built = ScopeTemplate.anyOf(.scope("a:<b>"), .allOf(.each("x", in: "xs", scope: "s:<x>")))
        #expect(try ScopeTemplate(built.json) == built)
        #expect(try built.rendered(["b": 1, "xs": []]) == .anyOf([.scope("a:1"), .allOf([])]))
    }

    @Test(
        arguments: [5, ["x": "y"], ["for": "a", "in": "b", "each": "c"], ["AllOf": ["a"], "AnyOf": ["b"]]]
            as [JSONValue]
    )
    func `other JSON is not a template`(_ json: JSONValue) {
        #expect(throws: ScopeError.self) { try ScopeTemplate(json) }
    }

    @Test func `a missing parameter is an error, not an empty text`() throws {
        let error = #expect(throws: ScopeError.self) { try ScopeTemplate("a:<b>").rendered([:]) }
        #expect(error?.description == "scope parameter b is missing")
        #expect(try ScopeTemplate("a:<..>:<9>").rendered([:]) == .scope("a:<..>:<9>"))
    }
}
