// SPDX-License-Identifier: MPL-2.0

import HTTPClient
import Schedules
import Synchronization

/// The deployment's time: this host's, corrected once the deployment has refused us because of it.
///
/// Requests are passed on unchanged; an answer 401 whose `Date` is more than a minute away tells the offset, an accepted request of a clock
/// that has become right again takes it back.
final class ServerClock: HTTPTransport {
    private let transport: any HTTPTransport
    private let base: String
    private let host: @Sendable () -> Timestamp
    private let state = Mutex<Duration>(.zero)
    private let onChange: @Sendable (Duration) -> Void

    init(
        _ transport: any HTTPTransport,
        rootURL: String,
        host: @escaping @Sendable () -> Timestamp = { .now() },
        onChange: @escaping @Sendable (Duration) -> Void
    ) {
        self.transport = transport
        base = rootURL + "/api/"
        self.host = host
        self.onChange = onChange
    }

    /// How far this host is behind the deployment.
    var offset: Duration { state.withLock { $0 } }

    func now() -> Timestamp { host() + offset }

    func send(_ request: HTTPRequest) async throws(HTTPClientError) -> HTTPResponse {
        let response = try await transport.send(request)
        guard request.url.hasPrefix(base), let date = response.headers["Date"].flatMap(HTTPDate.timestamp) else {
            return response
        }
        let difference = date - host()
        let isWrong = abs(difference / .seconds(1)) > 60
        let current = offset
        if isWrong, response.status == 401, abs((difference - current) / .seconds(1)) > 5 {
            state.withLock { $0 = difference }
            onChange(difference)
        } else if !isWrong, current != .zero {
            state.withLock { $0 = .zero }
            onChange(.zero)
        }
        return response
    }
}
