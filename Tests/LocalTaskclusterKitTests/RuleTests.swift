// SPDX-License-Identifier: MPL-2.0
import JSON
import Schedules
import Taskcluster
import Testing

@testable import LocalTaskclusterKit

struct RuleTests {
    let now = Timestamp(milliseconds: 1_369_353_600_000)

    /// The example of Amazon's documentation of signed addresses.
    @Test func `an address is signed as the documentation of S3 shows it`() {
        let signature = AWSSignature(
            accessKeyID: "AKIAIOSFODNN7EXAMPLE",
            secretKey: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            region: "us-east-1"
        )
        let query = signature.query(
            "GET",
            host: "examplebucket.s3.amazonaws.com",
            path: "/test.txt",
            seconds: 86_400,
            now: now
        )
        #expect(query.contains("X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"))
        #expect(
            query.hasSuffix(
                "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
            )
        )
    }

    @Test func `what is sealed for one place opens nowhere else and with no other key`() throws {
        let ring = try KeyRing(derived: [UInt8](repeating: 1, count: 32))
        let sealed = try ring.seal([1, 2, 3], for: "here")
        #expect(try ring.open(sealed, for: "here") == [1, 2, 3])
        #expect(throws: (any Error).self) { try ring.open(sealed, for: "there") }
        let other = try KeyRing(derived: [UInt8](repeating: 2, count: 32))
        #expect(throws: (any Error).self) { try other.open(sealed, for: "here") }
        #expect(throws: KeyRing.Failure.self) {
            try ring.open(KeyRing.Sealed(keyID: "unknown", bytes: sealed.bytes), for: "here")
        }
    }

    @Test func `keys that cannot be used are refused without showing them`() {
        for bad: JSONValue in [
            "text", [["id": "a", "key": "c2hvcnQ="]], [["key": "x"]],
            [["id": "derived", "algo": "aes-256", "key": ""]],
        ] {
            #expect(throws: KeyRing.Failure.self) { try KeyRing(derived: [], configured: bad) }
        }
    }

    @Test func `Q90: an address for an upload is good for one blob, one verb and its time`() throws {
        let addresses = BlobAddresses(rootURL: "http://localhost/") { [1, 2, 3] }
        let others = BlobAddresses(rootURL: "http://localhost/") { [1, 2, 4] }
        let url = addresses.upload("blob", until: now + .seconds(60))
        #expect(url.hasPrefix("http://localhost/blobs/u/blob?access_token="))
        let token = String(url.split(separator: "=")[1])
        #expect(addresses.isValid(token, "put", "blob", now: now + .seconds(59)))
        #expect(!addresses.isValid(token, "put", "blob", now: now + .seconds(60)))
        #expect(!addresses.isValid(token, "put", "other", now: now))
        #expect(!addresses.isValid(token, "get", "blob", now: now))
        #expect(!others.isValid(token, "put", "blob", now: now))
        #expect(!addresses.isValid("9" + token.dropFirst(), "put", "blob", now: now), "a longer time")
        #expect(!addresses.isValid(nil, "put", "blob", now: now))
    }

    @Test func `a mail cannot be broken out of`() {
        let mail = MailText(
            Notification(
                kind: .email,
                address: "a@example.com\r\nBcc: evil@example.com",
                body: ["subject": "one\r\nBcc: evil@example.com", "content": ".\r\nQUIT"]
            ),
            id: 1,
            from: "queue@example.com",
            now: now
        )
        let lines = mail.text.split(separator: "\r\n", omittingEmptySubsequences: false)
        #expect(!lines.contains { $0.hasPrefix("Bcc:") || $0 == "." || $0 == "QUIT" })
        #expect(mail.text.contains("Date: Fri, 24 May 2013 00:00:00 +0000\r\n"))
    }

    @Test func `people are told of those events of a task that they asked about`() {
        let routes = [
            "notify.email.a@example.com.on-failed", "notify.email.b@example.com.on-any",
            "notify.email.b@example.com.on-resolved", "notify.pulse.some.key.on-transition",
            "notify.matrix-room.!room:example.com.on-pending", "notify.slack-channel.C1.on-defined",
            "notify.email.nobody.on-any", "notify.irc.x.on-any", "notify.email.on-any", "index.on-any",
        ]
        func told(_ event: TaskEvent) -> [String] {
            NotificationWish.fulfilled(by: event, routes: routes).map { "\($0.kind.rawValue) \($0.address)" }
        }
        #expect(told(.failed) == ["email a@example.com", "email b@example.com", "pulse some.key"])
        #expect(told(.completed) == ["email b@example.com", "pulse some.key"])
        #expect(told(.exception) == ["email b@example.com", "pulse some.key"])
        #expect(told(.running) == ["pulse some.key"])
        #expect(told(.pending) == ["pulse some.key", "matrix-room !room:example.com"])
        #expect(told(.defined) == ["pulse some.key", "slack-channel C1"])
    }

    @Test func `a task may word its notifications itself, and wrong words say what is wrong with them`() throws {
        let task: JSONValue = [
            "metadata": ["name": "build", "owner": "o"],
            "extra": [
                "notify": [
                    "email": [
                        "subject": "${task.metadata.name} ${status.state}", "content": "${nothing}",
                        "link": ["text": "log", "href": "${rootUrl}/log/${taskId}"],
                    ],
                    "matrixBody": "${taskId}", "matrixFormattedBody": "<b>${taskId}</b>",
                    "matrixFormat": "org.matrix.custom.html", "matrixMsgtype": "m.text",
                    "slackText": "slack ${taskId}", "slackBlocks": [["type": "divider"]],
                ]
            ],
        ]
        let status: JSONValue = ["state": "failed", "runs": [["runId": 0, "reasonResolved": "failed"]]]
        let notices = TaskNotices(taskID: "t", task: task, status: status, rootURL: "http://localhost", now: now)
        func body(_ route: String) throws -> JSONValue {
            notices.notification(for: try #require(NotificationWish(route: route)), event: .failed).body
        }
        let mail = try body("notify.email.a@b.on-failed")
        #expect(mail["subject"] == "build failed")
        #expect(mail["content"]?.string?.contains("nothing") == true)
        #expect(mail["link"] == ["text": "log", "href": "http://localhost/log/t"])
        #expect(
            try body("notify.matrix-room.!r:x.on-failed") == [
                "msgtype": "m.text", "body": "t", "format": "org.matrix.custom.html", "formattedBody": "<b>t</b>",
            ]
        )
        #expect(
            try body("notify.slack-channel.C.on-failed") == ["text": "slack t", "blocks": [["type": "divider"]]]
        )
        #expect(try body("notify.pulse.k.on-failed") == ["message": status])
    }

    @Test func `parts of a message that cannot be made are replaced by the reason`() throws {
        func body(_ route: String, _ wishes: JSONValue) throws -> JSONValue {
            let task: JSONValue = ["metadata": ["name": "build"], "extra": ["notify": wishes]]
            let notices = TaskNotices(taskID: "t", task: task, status: [:], rootURL: "http://localhost", now: now)
            return notices.notification(for: try #require(NotificationWish(route: route)), event: .failed).body
        }
        let slack = "notify.slack-channel.C.on-failed"
        let blocks = try body(slack, ["slackText": "words", "slackBlocks": [["$eval": "nothing"]]])
        #expect(blocks["blocks"] == nil)
        #expect(blocks["text"]?.string?.hasPrefix("words\n\nThe task's own blocks cannot be read: ") == true)
        #expect(blocks["text"]?.string?.contains("nothing") == true)
        let form = try body(slack, ["slackText": "words", "slackBlocks": "no list"])
        #expect(form["blocks"] == nil && form["text"]?.string?.contains("not the right one") == true)
        let attachments = try body(
            slack,
            ["slackText": "words", "slackBlocks": [["type": "divider"]], "slackAttachments": ["$eval": "nothing"]]
        )
        #expect(attachments["text"] == "words" && attachments["blocks"] == [["type": "divider"]])
        #expect(attachments["attachments"]?[0]?["text"]?.string?.contains("nothing") == true)
        let mail = try body(
            "notify.email.a@b.on-failed",
            ["email": ["content": "words", "link": ["href": "${nothing}"]]]
        )
        #expect(mail["link"]?["href"] == "http://localhost/tasks/t")
        #expect(mail["content"]?.string?.hasPrefix("words\n\nThe task's own link cannot be read: ") == true)
        let long = try body(
            slack,
            ["slackText": JSONValue(String(repeating: "x", count: 40_000)), "slackBlocks": ["$eval": "nothing"]]
        )
        #expect(long["text"]?.string?.count == 32_000 && long["text"]?.string?.contains("nothing") == true)
    }

    @Test func `hashes agree, complete each other or contradict`() {
        let short = ObjectHashes(json: ["sha256": "a"])
        let long = ObjectHashes(json: ["sha512": "b", "md5": "c"])
        let both = short.merging(long)
        #expect(both.json == ["sha256": "a", "sha512": "b"])
        #expect(!short.contradicts(long) && short.isSubset(of: both) && !both.isSubset(of: short))
        #expect(both.contradicts(ObjectHashes(json: ["sha256": "z"])))
    }

    @Test func `exchanges of all services follow from the queue's`() {
        let names = ExchangeNames(queuePrefix: "exchange/taskcluster-queue/v1/")
        #expect(names.authPrefix == "exchange/taskcluster-auth/v1/")
        #expect(names.notification == "exchange/taskcluster-notify/v1/notification")
        #expect(names.all.count == 18)
    }
}
