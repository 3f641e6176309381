// SPDX-License-Identifier: MPL-2.0

import Core
import Logging

/// Something a listener learns from the server.
public enum PostgresNotification: Sendable, Hashable {
    /// A `NOTIFY` of some session.
    case notification(channel: String, payload: String)
    /// Listening has begun, or begun again: whatever was sent before may have been missed.
    case reconnected
}

/// A session of its own that listens on channels and comes back after every loss.
actor NotificationListener {
    private let configuration: PostgresConfiguration
    private let channels: [String]
    private var connection: PostgresConnection?
    private var attempt = 1

    init(_ configuration: PostgresConfiguration, channels: [String]) {
        self.configuration = configuration
        self.channels = channels
    }

    /// The next thing to know; nil once the task is cancelled.
    func next() async -> PostgresNotification? {
        while !Task.isCancelled {
            do {
                guard let connection else {
                    if attempt > 1 { try await Task.sleep(for: RetryPolicy.reconnect.delay(before: attempt)) }
                    attempt += 1
                    let fresh = try await PostgresConnection(configuration)
                    for channel in channels {
                        let quoted = channel.split(separator: "\"", omittingEmptySubsequences: false)
                        try await fresh.execute("listen \"\(unsafe: quoted.joined(separator: "\"\""))\"")
                    }
                    connection = fresh
                    attempt = 1
                    return .reconnected
                }
                if let notification = connection.arrivedNotification() { return notification }
                try await connection.takeInput(timeout: nil)
            } catch let error as PostgresError where error.code != .cancelled {
                if attempt == 1 {
                    Logger.current.warning("database listener lost its connection", metadata: ["error": "\(error)"])
                }
                connection = nil
                attempt = max(attempt, 2)
            } catch {
                break
            }
        }
        connection = nil
        return nil
    }
}
