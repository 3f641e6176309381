// SPDX-License-Identifier: MPL-2.0

public import JSON

extension PulseMessage {
    /// Creates a message from a JSON value.
    public init(
        exchange: String,
        routingKey: String,
        cc: [String] = [],
        payload: JSONValue,
        messageID: String? = nil
    ) {
        self.init(exchange: exchange, routingKey: routingKey, cc: cc, body: payload.bytes(), messageID: messageID)
    }
}

extension PulseDelivery {
    /// Parses the body; throws `JSONError` when it is not JSON.
    public func json() throws -> JSONValue {
        try JSONValue(parsing: body)
    }
}
