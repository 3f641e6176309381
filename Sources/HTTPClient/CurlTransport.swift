// SPDX-License-Identifier: MPL-2.0

import Core
import Synchronization

/// HTTP by libcurl: one named thread drives every transfer of the process over pooled connections.
public final class CurlTransport: HTTPTransport {
    private let loop: CurlLoop
    private let lastID = Atomic<UInt64>(0)

    /// Starts the thread.
    public init() {
        let loop = CurlLoop()
        self.loop = loop
        startThread(named: "curl") { loop.run() }
    }

    deinit {
        loop.post(.stop)
    }

    /// Aborts every transfer and ends the thread; later requests fail.
    public func shutdown() {
        loop.post(.stop)
    }

    /// The response to a request, whatever its status; cancelling the task aborts the transfer.
    public func send(_ request: HTTPRequest) async throws(HTTPClientError) -> HTTPResponse {
        let id = lastID.add(1, ordering: .relaxed).newValue
        let token = CancellationToken()
        let result: Result<HTTPResponse, HTTPClientError> = await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                loop.post(
                    .start(Transfer(id: id, request: request, token: token) { continuation.resume(returning: $0) })
                )
            }
        } onCancel: {
            token.cancel()
            loop.post(.cancel(id))
        }
        return try result.get()
    }
}

/// Remembers a cancellation that overtakes the start of its transfer.
final class CancellationToken: Sendable {
    private let flag = Atomic<Bool>(false)

    var isCancelled: Bool { flag.load(ordering: .acquiring) }

    func cancel() {
        flag.store(true, ordering: .releasing)
    }
}
