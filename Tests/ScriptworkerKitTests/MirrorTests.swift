// SPDX-License-Identifier: MPL-2.0

import Glibc
import Testing

@testable import ScriptworkerKit

struct MirrorTests {
    private func masked(_ text: String, _ secrets: [String]) -> String {
        var filter = SecretFilter()
        for secret in secrets { filter.hide(secret) }
        var bytes = Array(text.utf8)
        bytes.withUnsafeMutableBytes { filter.mask($0) }
        return String(decoding: bytes, as: UTF8.self)
    }

    @Test(
        arguments: [
            ("nothing here", "nothing here"), ("secret-one", "**********"), ("asecret-oneb", "a**********b"),
            ("secret-onesecret-one", "********************"), ("xx secret-number-two", "xx *****************"),
            ("secret-on", "secret-on"), ("ssecret-one secret-oneX", "s********** **********X"), ("", ""),
        ]
    )
    func `S89: a secret is blotted out wherever it stands`(_ text: String, _ expected: String) {
        #expect(masked(text, ["secret-one", "secret-number-two", "short"]) == expected)
    }

    @Test func `S89: every secret is found at every place of a long text`() {
        let secrets = ["0123456789abcdef", "zyxwvutsrqpon", "aaaaaaaaab"]
        for length in stride(from: 0, to: 300, by: 7) {
            let filler = String(repeating: "a", count: length)
            for secret in secrets {
                let text = masked("\(filler)\(secret)\(filler)", secrets)
                #expect(!text.contains(secret))
                #expect(text.utf8.count == 2 * length + secret.utf8.count)
            }
        }
    }

    @Test func `the oldest credentials of tasks are forgotten, the worker's own are not`() {
        var filter = SecretFilter()
        for index in 10..<40 { filter.hide("secret-number-\(index)") }
        #expect(filter.secrets.count == 8)
        #expect(filter.contains("secret-number-10"))
        #expect(filter.contains("secret-number-11"))
        #expect(filter.contains("secret-number-39"))
        #expect(!filter.contains("secret-number-12"))
    }
}
