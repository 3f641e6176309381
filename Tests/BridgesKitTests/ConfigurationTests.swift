// SPDX-License-Identifier: MPL-2.0

import APIServer
import JSON
import JSONSchema
import Testing

@testable import BridgesKit

struct ConfigurationTests {
    private func configuration(_ text: String) throws -> BridgesConfiguration {
        try BridgesConfiguration(
            Array(text.utf8),
            schema: SchemaStore.locate().schema("bridges", "v1/configuration.json"),
            secrets: .init(
                environment: { ["GITHUB_SECRET": "new-secret", "OLD_SECRET": "old-secret"][$0] },
                file: { ["/run/secret": "file-secret\n", "/run/empty": "\n"][$0] }
            )
        )
    }

    private func problems(_ text: String) throws -> [String] {
        do {
            _ = try configuration(text)
            return []
        } catch let error as BridgesConfigurationError {
            return error.problems
        }
    }

    @Test func `a whole configuration is read`() throws {
        let read = try configuration(
            """
            {
              "namespace": "our-bridges",
              "webhooks": {
                "retention": "2d",
                "sources": {
                  "github": {
                    "kind": "github", "acceptSHA1": true,
                    "secrets": [{"environment": "GITHUB_SECRET"}, {"environment": "OLD_SECRET"}],
                    "recover": {
                      "hooks": ["https://api.github.com/repos/octo/app/hooks/42/"], "token": {"file": "/run/secret"},
                      "interval": "1m"
                    }
                  },
                  "nagios": {
                    "kind": "hmac", "secrets": [{"file": "/run/secret"}],
                    "signature": {"header": "X-Sig", "algorithm": "sha512", "encoding": "base64", "prefix": "v1="},
                    "event": {"pointer": "/kind"}, "delivery": {"header": "X-Id"},
                    "routingKey": [{"literal": "alert"}, {"pointer": "/host"}],
                    "bodyLimit": 4096, "rate": {"perSecond": 0.5, "burst": 30}
                  }
                }
              },
              "clock": {"catchUp": "10m"},
              "hg": {
                "interval": "5s",
                "repositories": [{"name": "integration/app", "url": "https://hg.example.com/app/", "full": true}]
              }
            }
            """
        )
        #expect(read.namespace == "our-bridges")
        #expect(read.retention == .seconds(2 * 86_400))
        #expect(read.sources.map(\.name) == ["github", "nagios"])
        #expect(read.sources[0].secrets.map(\.bytes) == [Array("new-secret".utf8), Array("old-secret".utf8)])
        #expect(read.sources[0].recovery?.hooks == ["https://api.github.com/repos/octo/app/hooks/42"])
        #expect(read.sources[0].recovery?.token.bytes == Array("file-secret".utf8))
        #expect(read.sources[0].recovery?.interval == .seconds(60))
        #expect(read.sources[0].rate == 20)
        #expect(read.sources[0].burst == 200)
        #expect(read.sources[1].secrets.map(\.bytes) == [Array("file-secret".utf8)])
        #expect(read.sources[1].bodyLimit == 4096)
        #expect(read.sources[1].burst == 30)
        guard case .hmac(let form) = read.sources[1].kind else {
            Issue.record("nagios should be of kind hmac")
            return
        }
        #expect(form.algorithm == .sha512)
        #expect(form.encoding == .base64)
        #expect(form.prefix == "v1=")
        #expect(form.routingKey == [.literal("alert"), .pointer("/host")])
        #expect(read.clock?.catchUp == .seconds(600))
        #expect(read.pollInterval == .seconds(5))
        let app = HgRepository(name: "integration/app", url: "https://hg.example.com/app", isFull: true)
        #expect(read.repositories == [app])
        #expect(try configuration("{}").sources.isEmpty)
    }

    @Test func `everything that is wrong is told at once`() throws {
        let shape = try problems(
            """
            {"webhooks": {"retention": "soon", "sources": {
                "Bad Name": {}, "a": {"kind": "gitea", "secrets": []}, "b": {"secrets": [{"value": "x"}]}
            }}, "clok": {}, "hg": {"repositories": [{"name": "a b", "url": "ftp://x"}]}}
            """
        )
        for part in ["retention", "Bad Name", "/a/kind", "/a/secrets", "/b", "clok", "name", "url"] {
            #expect(shape.contains { $0.contains(part) }, "\(part) in \(shape)")
        }
        let meaning = try problems(
            """
            {"webhooks": {"sources": {
                "clock": {"kind": "gitlab", "secrets": [{"environment": "GITHUB_SECRET"}]},
                "a": {"kind": "github", "secrets": [{"environment": "UNSET"}, {"file": "/run/none"}, {"file": "/run/empty"}],
                      "signature": {"header": "X"}},
                "b": {"kind": "hmac", "acceptSHA1": true, "secrets": [{"environment": "GITHUB_SECRET"}]}
            }}, "clock": {"catchUp": "9d"}, "hg": {"repositories": [
                {"name": "x", "url": "http://x"}, {"name": "x", "url": "http://y"}]}}
            """
        )
        for part in [
            "sources/clock", "UNSET", "/run/none", "/run/empty", "a/signature", "b/acceptSHA1", "b/signature",
            "catchUp",
            "name x twice",
        ] {
            #expect(meaning.contains { $0.contains(part) }, "\(part) in \(meaning)")
        }
        #expect(!meaning.joined().contains("new-secret"))
        let recovery = try problems(
            """
            {"webhooks": {"retention": "1h", "sources": {
                "a": {"kind": "gitlab", "secrets": [{"file": "/run/secret"}],
                      "recover": {"hooks": ["http://x/y"], "token": {"file": "/run/none"}}},
                "b": {"kind": "github", "secrets": [{"file": "/run/secret"}],
                      "recover": {"hooks": ["http://x/y"], "token": {"file": "/run/secret"}}}
            }}}
            """
        )
        for part in ["a/recover", "a/recover/token", "retention"] {
            #expect(recovery.contains { $0.contains(part) }, "\(part) in \(recovery)")
        }
        #expect(try problems("{").first?.hasPrefix("line 1") == true)
    }
}
