// SPDX-License-Identifier: MPL-2.0

import Taskcluster
import Testing

struct RoleSetTests {
    let vectors = RoleSet([
        Role(id: "proj:*", scopes: ["secrets:get:p/<..>/*", "q:<..>", "assume:team:<..>", "x"]),
        Role(id: "team:zap", scopes: ["zap!"]), Role(id: "team:*", scopes: ["t:<..>:end"]),
    ])

    @Test(arguments: [
        (
            "assume:proj:zap",
            ["assume:proj:zap", "assume:team:zap", "q:zap", "secrets:get:p/zap/*", "t:zap:end", "x", "zap!"]
        ),
        (
            "assume:proj:zap*",
            ["assume:proj:zap*", "assume:team:zap*", "q:zap*", "secrets:get:p/zap*", "t:zap*", "x", "zap!"]
        ),
        ("assume:proj*", ["assume:proj*", "assume:team:*", "q:*", "secrets:get:p/*", "t:*", "x", "zap!"]),
        ("assume:proj", ["assume:proj"]),
        ("assume:proj:", ["assume:proj:", "assume:team:", "q:", "secrets:get:p//*", "t::end", "x"]),
        ("*", ["*"]),
    ])
    func `A29: the published vectors of expansion`(_ held: String, _ expanded: [String]) {
        #expect(vectors.expand([held]) == expanded)
    }

    @Test(arguments: ["ass*", "assume*", "assume:*"])
    func `a star before the role's name brings in every role`(_ held: String) {
        #expect(vectors.expand([held]).contains("zap!"))
        #expect(vectors.expand([held]).contains("q:*"))
    }

    @Test func `Q10: a role of hooks fills in its parameter`() {
        let roles = RoleSet([Role(id: "hook-id:g/*", scopes: ["x:<..>"])])
        #expect(roles.expand(["assume:hook-id:g/h"]).contains("x:h"))
        #expect(roles.expand(["assume:hook-id:g/*"]).contains("x:*"))
        #expect(roles.expand(["assume:*"]).contains("x:*"))
    }

    @Test func `a parameter in a role without star is text`() {
        #expect(RoleSet([Role(id: "a", scopes: ["b:<..>"])]).expand(["assume:a"]) == ["assume:a", "b:<..>"])
    }

    @Test func `growth without end is stopped`() {
        let roles = RoleSet([Role(id: "a*", scopes: ["assume:a<..>x", "assume:a<..>y"])])
        #expect(roles.expand(["assume:a"]).count < 100)
    }

    @Test(
        arguments: [
            ([Role(id: "a", scopes: ["assume:b"]), Role(id: "b", scopes: ["assume:a"])], ["a", "b", "a"]),
            ([Role(id: "a", scopes: ["assume:a"])], ["a", "a"]),
            ([Role(id: "a", scopes: ["*"])], ["a", "a"]),
            ([Role(id: "t*", scopes: ["assume:u<..>"]), Role(id: "ux", scopes: ["assume:t1"])], ["t*", "ux", "t*"]),
            ([Role(id: "a", scopes: ["assume:b"]), Role(id: "b", scopes: ["c"])], nil),
        ] as [([Role], [String]?)]
    )
    func `Q11: roles may not depend on themselves`(_ roles: [Role], _ cycle: [String]?) {
        #expect(RoleSet(roles).cycle() == cycle)
    }

    @Test(arguments: [
        ("a*", "b:<..>:<..>", false), ("a*", "b*<..>", false), ("a*", "b:<..>*", true), ("a*", "b**", false),
        ("a", "é", false), ("a", "b:<..>:<..>", true), ("é", "b", false), ("a**", "b", false),
    ])
    func `a role's text is checked before it is stored`(_ id: String, _ scope: String, _ isGood: Bool) {
        #expect((RoleSet.validate(Role(id: id, scopes: [scope])) == nil) == isGood)
    }

    @Test(arguments: [("prov/wt-1", true), ("prov/Wt", false), ("prov/w-", false), ("prov", false), ("p/w/x", false)])
    func `task queues are spelled in two parts`(_ text: String, _ isGood: Bool) {
        #expect(Patterns.taskQueueID.matches(text) == isGood)
        #expect((TaskQueueID(text)?.description == text) == isGood)
    }
}
