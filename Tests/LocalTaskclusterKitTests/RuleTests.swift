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

    @Test func `tasks are reported to those who asked for what happened`() {
        func addresses(_ state: String, _ reason: String?) -> [String] {
            TaskMail.notifications(
                routes: [
                    "notify.email.a@example.com.on-failed", "notify.email.b@example.com.on-any",
                    "notify.email.b@example.com.on-resolved", "index.x", "notify.email.nobody.on-any",
                ],
                taskID: "t",
                name: "n",
                state: state,
                reason: reason,
                link: "http://localhost/tasks/t"
            ).map(\.address)
        }
        #expect(addresses("failed", "failed") == ["a@example.com", "b@example.com"])
        #expect(addresses("completed", "completed") == ["b@example.com"])
        #expect(addresses("exception", "deadline-exceeded") == ["b@example.com"])
        #expect(addresses("exception", "canceled").isEmpty)
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
