// SPDX-License-Identifier: MPL-2.0

public import JSON

/// The opaque token that leads from one page of a list to the next: the ordering columns of the last row seen.
public enum Continuation {
    /// Packs the ordering columns of the last row of a page.
    public static func encode(_ values: [JSONValue]) -> String {
        Base64URL.encode(JSONValue.array(values).bytes(.compact))
    }

    /// Unpacks a token, refusing anything that ``encode(_:)`` did not make with an `InputError`.
    public static func decode(_ token: String) throws(APIError) -> [JSONValue] {
        guard
            let bytes = Base64URL.decode(token),
            let value = try? JSONValue(parsing: bytes),
            case .array(let values) = value
        else {
            throw invalid
        }
        return values
    }

    /// The refusal of a token.
    public static let invalid = APIError(.inputError, "Invalid continuation token")
}

/// The page of a list that a request asks for.
public struct PageRequest: Sendable {
    /// How many rows to answer with at most.
    public let limit: Int
    /// The ordering columns after which the page begins; nil is the first page.
    public let continuation: [JSONValue]?

    /// Describes a page.
    public init(limit: Int, continuation: [JSONValue]? = nil) {
        self.limit = limit
        self.continuation = continuation
    }

    /// How many rows to ask the store for: one more than fits, to learn whether there is a next page.
    public var fetch: Int { limit + 1 }

    /// The string column of the continuation at an index; a token of another shape is an `InputError`.
    public func string(_ index: Int) throws(APIError) -> String? {
        guard let continuation else { return nil }
        guard continuation.indices.contains(index), let text = continuation[index].string else {
            throw Continuation.invalid
        }
        return text
    }

    /// The integer column of the continuation at an index; a token of another shape is an `InputError`.
    public func int(_ index: Int) throws(APIError) -> Int? {
        guard let continuation else { return nil }
        guard continuation.indices.contains(index), let number = continuation[index].int else {
            throw Continuation.invalid
        }
        return number
    }

    /// Builds a reply from up to ``fetch`` rows: the list, and a token if at least one more row exists.
    ///
    /// - Parameters:
    ///   - list: The name of the field that holds the list.
    ///   - rows: What the store returned, in order.
    ///   - columns: The ordering columns of a row.
    ///   - json: A row as the client sees it.
    /// - Returns: The object to answer with.
    public func reply<Row>(
        _ list: String,
        _ rows: [Row],
        columns: (Row) throws -> [JSONValue],
        json: (Row) throws -> JSONValue
    ) rethrows -> JSONValue {
        let page = rows.prefix(limit)
        var object = JSONObject()
        object[list] = .array(try page.map(json))
        if rows.count > limit, let last = page.last {
            object["continuationToken"] = .string(Continuation.encode(try columns(last)))
        }
        return .object(object)
    }
}
