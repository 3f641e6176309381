// SPDX-License-Identifier: MPL-2.0

import Glibc
import Testing

@testable import ScriptworkerKit

struct SigningKeyTests {
    private let path = "/tmp/slipway-key-\(UInt64.random(in: 0 ... .max))"

    private func key(_ text: String) throws -> SigningKey {
        try FileText.write(Array(text.utf8), to: path, mode: 0o600)
        defer { unlink(path) }
        return try SigningKey(path: path)
    }

    @Test func `S59: a signature is the one that other implementations make`() throws {
        let key = try key(" AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n")
        #expect(key.publicKey == "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=")
        let message = "{\n  \"artifacts\": {},\n  \"chainOfTrustVersion\": 1\n}"
        let signature = try key.signature(of: Array(message.utf8))
        let hexadecimal = signature.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
        let expected =
            "b29c2186ad6d4a950f1541ca3cbec8ff7ea0ed6285548ab807d30b128a1ba69d"
            + "cae34079483dd4e3384d8c656c9e15f92733550afce051a47466812bee27a706"
        #expect(hexadecimal == expected)
    }

    @Test(arguments: ["", "AAEC", "not base64!", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHg=="])
    func `S7: a file that holds no key of 32 bytes is refused`(_ text: String) {
        #expect(throws: SigningKey.Problem.self) { try key(text) }
    }
}
