// SPDX-License-Identifier: MPL-2.0

import HTTPClient
import JSON
import Synchronization

/// Answers from a list, in order, and remembers what was asked; the last answer repeats.
final class StubTransport: HTTPTransport {
    enum Answer: Sendable {
        case response(HTTPResponse)
        case failure(HTTPClientError)

        static func json(_ status: Int, _ json: JSONValue) -> Answer {
            .response(HTTPResponse(status: status, body: json.bytes()))
        }
    }

    private let state: Mutex<(answers: [Answer], requests: [HTTPRequest])>

    init(_ answers: Answer...) {
        state = Mutex((answers, []))
    }

    var requests: [HTTPRequest] { state.withLock { $0.requests } }

    func send(_ request: HTTPRequest) async throws(HTTPClientError) -> HTTPResponse {
        let answer = state.withLock { state in
            state.requests.append(request)
            return state.answers.count > 1 ? state.answers.removeFirst() : state.answers[0]
        }
        switch answer {
        case .response(let response): return response
        case .failure(let error): throw error
        }
    }
}
