// SPDX-License-Identifier: MPL-2.0

import JSON
import RollerKit
import Testing

@testable import RollerActionsKit

struct SafetyTests {
    @Test(arguments: [
        "-f", "--", "a..b", "host\n", "x;id", "$(id)", "`id`", "a b", "", "a\0b", "ｈost", "-", "a-", "..",
        String(repeating: "a", count: 64), "host/",
    ])
    func `63: what is no host name is no host name`(text: String) {
        #expect(throws: ActionError.self) { try HostName.validated(text) }
    }

    @Test(arguments: [
        ("t-linux64-ms-001", "t-linux64-ms-001"), ("host.example.com.", "host.example.com"), ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"), ("under_score", "under_score"),
    ])
    func `24: host names and addresses pass whole`(text: String, host: String) throws {
        #expect(try HostName.validated(text) == host)
        let long = (1...4).map { _ in String(repeating: "a", count: 40) }.joined(separator: ".")
        #expect(try HostName.validated(long) == long)
    }

    @Test func `64: known secrets and what looks like one are hidden`() {
        let redactor = Redactor()
        redactor.learn(["s3cret'; touch x #", "abc", nil])
        #expect(redactor.clean("failed with s3cret'; touch x # twice") == "failed with *** twice")
        #expect(redactor.clean("ipmitool -U u -P hunter2 x") == "ipmitool -U u -P *** x")
        #expect(redactor.clean("snmpset -c public host") == "snmpset -c *** host")
        #expect(redactor.clean("ping -c 4 host") == "ping -c 4 host")
        #expect(redactor.clean("https://user:pass@host/x") == "https://***@host/x")
        #expect(redactor.clean("Authorization: Basic abcdef") == "Authorization: *** ***")
        #expect(redactor.clean("a password=hunter2 b") == "a password=*** b")
    }

    @Test func `52: no value changes the structure of a bug`() throws {
        let nasty = "a\"}, \"product\": \"x\n${log}"
        let template: JSONValue = [
            "api_key": "${api_key}", "summary": "[${DC}] ${hostname} is $alias", "cc": "${cc}", "blocks": "${blocks}",
            "flags": [["name": "${hostname}"]], "unknown": "${nobody} $",
        ]
        let bug = BugTemplate.render(
            template,
            ["hostname": nasty, "DC": "MDC1", "alias": "b", "cc": "", "blocks": "7"]
        )
        #expect(bug["summary"]?.string == "[MDC1] \(nasty) is b")
        #expect(bug["flags"]?[0]?["name"]?.string == nasty)
        #expect(bug["api_key"] == nil && bug["cc"] == nil && bug["product"] == nil)
        #expect(bug["blocks"]?.string == "7" && bug["unknown"]?.string == "${nobody} $")
        #expect(try JSONValue(parsing: bug.text()) == bug)
    }

    @Test func `outlets are named as the units name them`() throws {
        #expect(try Outlet.sentryIndex("aa1") == "1.1.1")
        #expect(try Outlet.sentryIndex("BA6") == "2.1.6")
        #expect(try Outlet.sentryIndex("cb24") == "3.2.24")
        for wrong in ["a1", "da1", "aa", "aa0", "aa+1", "aa1;", "aa١"] {
            #expect(throws: ActionError.self) { try Outlet.sentryIndex(wrong) }
        }
        var control = Control(controllerID: "p", name: "p", kind: .snmp, type: "apc_rpdu", locator: ["outlet": "7"])
        #expect(try Outlet(control).profile.control == "1.3.6.1.4.1.318.1.1.12.3.3.1.1.4.7")
        #expect(try Outlet(control).power(1) == .on)
        #expect(try Outlet(control).power(2) == .off)
        #expect(try Outlet(control).power(9) == .unknown)
        control.type = "sentry3"
        control.locator = ["outlet": "aa6"]
        #expect(try Outlet(control).power(0) == .off)
    }

    @Test func `44: the wake-up packet has 102 bytes, 108 with a password`() throws {
        #expect(try WakeUpPacket(mac: "00:5c:52:31:3a:9c").bytes.count == 102)
        #expect(try WakeUpPacket(mac: "00-5c-52-31-3a-9c", password: "01:02:03:04:05:06").bytes.count == 108)
        #expect(throws: ActionError.self) { try WakeUpPacket(mac: "00:5c:52:31:3a") }
    }

    @Test func `XML of controllers is read, and what is not XML is refused`() throws {
        let text = """
            <?xml version="1.0"?>
            <RIBCL VERSION="2.22"><RESPONSE STATUS="0x005F" MESSAGE='Login &amp; co'/></RIBCL>
            <?xml version="1.0"?>
            <RIBCL><GET_HOST_POWER HOST_POWER="ON"/><!-- x --><A>1 &lt; 2<![CDATA[<b>]]></A></RIBCL>
            """
        let documents = try #require(XML.documents(text))
        #expect(documents.count == 2)
        #expect(documents[0].first("RESPONSE")?.attributes["MESSAGE"] == "Login & co")
        #expect(documents[1].first("A")?.text == "1 < 2<b>")
        #expect(RIBCL.power(documents) == .on)
        #expect(RIBCL.failure(documents)?.kind == .credentials)
        for wrong in ["<a>", "<a></b>", "<a b=c/>", "text", "<a>&x;</a>", String(repeating: "<a>", count: 100)] {
            #expect(XML.documents(wrong) == nil)
        }
        #expect(
            RIBCL.document(.off, user: "a<b", password: "\"&").contains(
                "USER_LOGIN=\"a&lt;b\" PASSWORD=\"&quot;&amp;\""
            )
        )
    }

    @Test func `base64 pads`() {
        #expect(Base64.text(Array("".utf8)) == "")
        #expect(Base64.text(Array("f".utf8)) == "Zg==")
        #expect(Base64.text(Array("fo".utf8)) == "Zm8=")
        #expect(Base64.text(Array("foobar".utf8)) == "Zm9vYmFy")
    }

    @Test func `each action is described once, and what only looks changes nothing`() {
        let names = ActionRegistry.standard.actions.map(\.description.name)
        #expect(Set(names).count == names.count)
        for action in ActionRegistry.standard.actions {
            #expect(!(action.description.isReadOnly && action.description.isDestructive))
        }
        for name in [
            "ping", "status", "reboot", "ipmi_off", "ipmi_on", "ipmi_list", "ipmi_cycle", "ipmi_reset", "reimage",
            "loan", "return_loan",
        ] {
            #expect(names.contains(name))
        }
    }
}
