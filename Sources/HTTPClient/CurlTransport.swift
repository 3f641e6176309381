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
        try await send(request, envelope: nil)
    }

    /// Hands a message to a mail server and answers the code of its last reply: 2xx is success, 4xx may pass, 5xx is final.
    public func send(_ message: MailMessage, to server: MailServer) async throws(HTTPClientError) -> Int {
        let request = HTTPRequest(
            method: "",
            url: server.url,
            body: .bytes(message.contents),
            timeout: server.timeout
        )
        let envelope = MailEnvelope(
            sender: message.sender,
            recipients: message.recipients,
            requiresTLS: server.requiresTLS,
            user: server.user,
            password: server.password,
            authorities: server.authorities
        )
        return try await send(request, envelope: envelope).status
    }

    private func send(
        _ request: HTTPRequest,
        envelope: MailEnvelope?
    ) async throws(HTTPClientError) -> HTTPResponse {
        let id = lastID.add(1, ordering: .relaxed).newValue
        let token = CancellationToken()
        let result: Result<HTTPResponse, HTTPClientError> = await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                loop.post(
                    .start(
                        Transfer(
                            id: id,
                            request: request,
                            envelope: envelope,
                            token: token,
                            resume: { [loop] in loop.post(.resume(id)) },
                            completion: { continuation.resume(returning: $0) }
                        )
                    )
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
