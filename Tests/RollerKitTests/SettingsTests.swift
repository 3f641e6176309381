// SPDX-License-Identifier: MPL-2.0

import Core
import Testing

@testable import RollerKit

struct SettingsTests {
    /// What is wrong with a configuration.
    private func problems(_ values: [String: String]) -> [String] {
        let settings = Settings(environment: values)
        _ = RollerAPISettings(settings: settings)
        _ = NotificationSettings(settings: settings)
        do { try settings.check() } catch { return error.problems }
        return []
    }

    @Test(arguments: [
        ("VALID_WORKER_ID_REGEX", "^(t-linux64"), ("VALID_WORKER_ID_REGEX", "[z-a]"), ("CLIENT_ID_REGEX", "a**"),
        ("CLIENT_ID_REGEX", "(?<n>a)(?<n>b)"), ("CLIENT_ID_USER_REGEX", "\\"),
    ])
    func `a broken regular expression is told at the start, by its variable`(variable: String, pattern: String) {
        let problems = problems([variable: pattern])
        #expect(problems.count == 1)
        #expect(problems.first?.hasPrefix("\(variable) is not a regular expression: ") == true)
    }

    @Test func `all that is wrong is told at once`() {
        let problems = problems([
            "VALID_WORKER_ID_REGEX": "(", "CLIENT_ID_REGEX": ")", "TRUSTED_PROXIES": "proxy",
            "DUPLICATE_POLICY": "maybe",
            "FQDN_PATTERNS": "{worker_id}.example.com,{worker}.example.com", "USER_EMAIL_TEMPLATE": "user@example.com",
            "NOTIFY_WEBHOOK_URL": "chat.example.com",
        ])
        let names = Set(problems.compactMap { $0.split(separator: " ").first.map(String.init) })
        #expect(problems.count == 7)
        #expect(
            names == [
                "VALID_WORKER_ID_REGEX", "CLIENT_ID_REGEX", "TRUSTED_PROXIES", "DUPLICATE_POLICY", "FQDN_PATTERNS",
                "USER_EMAIL_TEMPLATE", "NOTIFY_WEBHOOK_URL",
            ]
        )
    }

    @Test func `expressions that are none mean all, and those of the original are taken`() {
        #expect(problems([:]).isEmpty)
        #expect(RollerAPISettings(settings: Settings(environment: [:])).validWorker == nil)
        let original = [
            "VALID_WORKER_ID_REGEX": "^t-(linux64|yosemite-r7)-(ms|MS)-[0-9]+$",
            "CLIENT_ID_REGEX": #"^(email|mozilla-ldap|mozilla-auth0/ad\|Mozilla-LDAP\|[^ @]+)(/[^ @]+)?$"#,
            "FQDN_PATTERNS":
                "{worker_id}.test.releng.{worker_group}.mozilla.com, {worker_id}.wintest.releng.mozilla.com",
        ]
        #expect(problems(original).isEmpty)
    }
}
