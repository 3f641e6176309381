// SPDX-License-Identifier: MPL-2.0

import Core
import JSON
import Notices
import TaskclusterClient
import TestSupport
import Testing

@testable import PipelineKit

/// Deliveries that do not come to an end.
@Suite(.timeLimit(.minutes(5)))
struct NoticeCourierTests {
    @Test func `somebody who never answers delays nobody else, and what one target is told keeps its order`()
        async throws
    {
        let silent = TestServer { _ in .hang("") }
        defer { silent.close() }
        let attentive = TestServer { _ in .answer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") }
        defer { attentive.close() }
        try await PipelineWorld.with { world in
            let queue = world.service.notices.queue
            try await world.pool.transaction { connection in
                for (number, server) in [silent, attentive, silent, attentive, attentive].enumerated() {
                    let notice = Notice(
                        key: "notice \(number)",
                        channel: .webhook,
                        target: server.url("/hook"),
                        subject: "s",
                        text: "t",
                        document: JSONValue(number)
                    )
                    _ = try await queue.add(notice, on: connection)
                }
            }
            let sender = NoticeSender(
                client: TaskclusterClient(rootURL: "http://127.0.0.1:1", credentials: { nil }, transport: world.curl),
                transport: world.curl,
                signing: .init(secret: "secret", signatureField: "X-Signature", deliveryField: "X-Delivery")
            )
            let courier = NoticeCourier(store: queue, sender: sender)
            try await withThrowingTaskGroup(of: Int.self) { group in
                group.addTask { try await courier.deliverDue() }
                try await eventually { attentive.requests.count == 3 }
                #expect(attentive.requests.map { String(decoding: $0.body, as: UTF8.self) } == ["1", "3", "4"])
                // The others are under way: neither delivered nor given up, and nobody else takes them.
                let rows = try await world.pool.query(
                    "select state, error from shipit_pipeline.notices where target = \(silent.url("/hook"))"
                )
                for row in rows {
                    #expect(try row.string("state") == "pending")
                    #expect(try row.optionalString("error") == nil)
                }
                #expect(try await courier.deliverDue() == 0)
                group.cancelAll()
            }
        }
    }
}
