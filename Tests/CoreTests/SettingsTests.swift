// SPDX-License-Identifier: MPL-2.0

import Core
import Glibc
import Testing

struct SettingsTests {
    @Test(arguments: [
        ("database.url", "DATABASE_URL"), ("taskcluster.root.url", "TASKCLUSTER_ROOT_URL"),
        ("taskcluster.rootURL", "TASKCLUSTER_ROOT_URL"), ("http.port", "HTTP_PORT"),
    ])
    func `a key is a variable`(key: String, variable: String) {
        #expect(Settings.variable(key) == variable)
    }

    @Test func `flags win over the environment and both over the file`() throws {
        let path = "/tmp/slipway-settings-\(UInt64.random(in: 0 ... .max))"
        let stream = try #require(fopen(path, "w"))
        fputs("# all of them\nexport A='file'\nB=\"file\"\nC=file\n\nnonsense\n", stream)
        fclose(stream)
        defer { unlink(path) }
        let settings = Settings(overrides: ["A": "flag"], environment: ["A": "env", "B": "env"], file: path)
        #expect(settings.string("a", default: "", "a test") == "flag")
        #expect(settings.string("b", default: "", "a test") == "env")
        #expect(settings.string("c", default: "", "a test") == "file")
        let error = #expect(throws: ConfigurationError.self) { try settings.check() }
        #expect(error?.problems.count == 1)
        #expect(error?.problems.first?.contains("line 6") == true)
    }

    @Test func `a value may stand in a file that a variable names, and shows as the file's path`() throws {
        let path = "/tmp/slipway-setting-\(UInt64.random(in: 0 ... .max))"
        let stream = try #require(fopen(path, "w"))
        fputs("hunter2\n", stream)
        fclose(stream)
        defer { unlink(path) }
        let settings = Settings(environment: ["KEY_FILE": path, "B_FILE": path, "B": "own", "C_FILE": path + "-not"])
        #expect(settings.required("key", secret: true, "a key") == "hunter2")
        #expect(settings.string("b", default: "", "a test") == "own")
        #expect(settings.summary.map(\.value) == [path, "own"])
        #expect(throws: Never.self) { try settings.check() }
        #expect(settings.optional("c", "a test") == nil)
        let error = #expect(throws: ConfigurationError.self) { try settings.check() }
        #expect(error?.problems.first?.hasPrefix("C cannot be read: C_FILE") == true)
    }

    @Test(arguments: [
        ("https://example.com", "https://example.com"), ("http://[::1]:80/a/b?c=d", "http://[::1]:80/a/b?c=d"),
        ("https://example.com/pub/", "https://example.com/pub"), ("example.com", nil), ("ftp://example.com", nil),
        ("https://", nil), ("http:///path", nil), ("http://:80", nil), ("https://exa mple.com", nil),
    ])
    func `the address of a service has a scheme and a host`(text: String, url: String?) {
        let settings = Settings(environment: ["PLACE": text])
        #expect(settings.url("place", "a place") == url)
        #expect(settings.url("place", default: "http://d", "a place") == url ?? "http://d")
        do throws(ConfigurationError) {
            try settings.check()
            #expect(url != nil)
        } catch {
            #expect(url == nil && error.problems.first?.hasPrefix("PLACE must be a URL") == true)
        }
    }

    @Test func `a path must name something that can be read`() {
        let settings = Settings(environment: ["HERE": "/dev/null", "FOLDER": "/tmp", "NOWHERE": "/nowhere/at-all"])
        #expect(settings.path("none", "nothing") == nil)
        #expect(settings.path("here", "a file") == "/dev/null")
        #expect(settings.path("folder", "a folder") == "/tmp")
        #expect(throws: Never.self) { try settings.check() }
        #expect(settings.path("nowhere", "a file") == "/nowhere/at-all")
        let error = #expect(throws: ConfigurationError.self) { try settings.check() }
        #expect(error?.problems.first?.hasPrefix("NOWHERE names /nowhere/at-all, which cannot be read") == true)
    }

    @Test func `all problems are reported together, each by its variable`() {
        let settings = Settings(environment: ["HTTP_PORT": "http", "PATIENCE": "1 week", "DRY": "maybe"])
        #expect(settings.required("database.url", secret: true, "the database") == "")
        #expect(settings.int("http.port", default: 80, in: 0...65_535, "the port") == 80)
        #expect(settings.duration("patience", default: .seconds(1), in: .zero...(.seconds(9)), "time") == .seconds(1))
        #expect(settings.bool("dry", default: true, "a rehearsal"))
        let error = #expect(throws: ConfigurationError.self) { try settings.check() }
        let names = error?.problems.map { String($0.split(separator: " ")[0]) }
        #expect(names == ["DATABASE_URL", "HTTP_PORT", "PATIENCE", "DRY"])
    }

    @Test(arguments: [
        ("https://tc.example.com", "https://tc.example.com"), ("http://127.0.0.1:8080//", "http://127.0.0.1:8080"),
        ("http://[::1]:80", "http://[::1]:80"), ("tc.example.com", nil), ("ftp://x", nil), ("https://", nil),
        ("https://x/path", nil), ("https://u:p@x", nil), ("https://x?y", nil), ("http://a b", nil),
    ])
    func `a root URL has no path`(text: String, url: String?) {
        let settings = Settings(environment: ["ROOT": text])
        #expect(settings.rootURL("root", "the deployment") == url ?? "")
        if url == nil {
            let error = #expect(throws: ConfigurationError.self) { try settings.check() }
            #expect(error?.problems.first?.hasPrefix("ROOT must be a URL without a path") == true)
        } else {
            #expect(throws: Never.self) { try settings.check() }
        }
    }

    @Test func `LEVEL stands in for LOG_LEVEL`() {
        let settings = Settings(environment: ["LEVEL": "debug"])
        #expect(settings.string("log.level", default: "info", "the level") == "debug")
    }

    @Test func `PORT stands in for HTTP_PORT`() {
        let settings = Settings(environment: ["PORT": "8012"])
        #expect(settings.int("http.port", default: 80, in: 0...65_535, "the port") == 8012)
    }

    @Test func `secrets do not appear in the summary`() {
        let settings = Settings(environment: ["AMQP_URL": "amqp://me:hunter2@host/%2F", "KEY": "hunter2"])
        _ = settings.optional("amqp.url", "the broker")
        _ = settings.optional("key", secret: true, "a key")
        #expect(settings.summary.map(\.value) == ["amqp://me:...@host/%2F", "..."])
    }

    @Test(arguments: [("30s", 30_000), ("250ms", 250), ("5m", 300_000), ("1.5h", 5_400_000), ("7", 7_000)])
    func `durations carry their unit`(text: String, milliseconds: Int64) {
        #expect(Duration(settingsText: text)?.milliseconds == milliseconds)
    }
}
