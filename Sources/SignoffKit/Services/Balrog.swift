// SPDX-License-Identifier: MPL-2.0

public import HTTPClient
import JSON
import StepKit

/// Asks a Balrog server about changes and people; it never signs.
public struct Balrog: Sendable {
    /// Balrog has no answer.
    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    private let root: String
    private let token: String?
    private let transport: any HTTPTransport

    /// Opens a server by the address of its API; with a token where it wants one for reading.
    public init(root: String, token: String? = nil, transport: any HTTPTransport) {
        var root = root
        while root.hasSuffix("/") { root.removeLast() }
        self.root = root
        self.token = token
        self.transport = transport
    }

    /// Where people sign a change.
    func signoffsURL(_ change: BalrogChange) -> String { "\(root)/\(change.path)/signoffs" }

    /// The state of a change; nil if there is none of that number.
    func state(of change: BalrogChange) async throws -> BalrogState? {
        let answer = try await get(change.path)
        if answer.status == 200 {
            guard let state = BalrogState(answer.body["scheduled_change"]) else {
                throw Failure(description: "its answer makes no sense")
            }
            return state
        }
        guard answer.status == 404 || answer.status == 405 else {
            throw Failure(description: "it answers with status \(answer.status)")
        }
        // Older servers know the list alone, and hide what is complete unless all are asked for.
        let list = try await get("scheduled_changes/\(change.object)?all=1")
        if list.status == 404 { return nil }
        guard list.status == 200, let changes = list.body["scheduled_changes"]?.array else {
            throw Failure(description: "it answers with status \(list.status)")
        }
        guard let found = changes.first(where: { $0["sc_id"]?.int == change.id }) else { return nil }
        guard let state = BalrogState(found) else { throw Failure(description: "its answer makes no sense") }
        return state
    }

    /// The roles that a person holds.
    func roles(of email: String) async throws -> Set<String> {
        let answer = try await get("users/\(AddressText.encoded(email))")
        if answer.status == 404 { return [] }
        guard answer.status == 200, let roles = answer.body["roles"]?.object else {
            throw Failure(description: "it answers with status \(answer.status)")
        }
        return Set(roles.keys)
    }

    private func get(_ path: String) async throws -> (status: Int, body: JSONValue) {
        var request = HTTPRequest(
            url: "\(root)/\(path)",
            headers: ["Accept": "application/json"],
            timeout: .seconds(10)
        )
        request.sink = .memory(limit: 4 << 20)
        if let token { request.headers["Authorization"] = "Bearer \(token)" }
        let response: HTTPResponse
        do throws(HTTPClientError) {
            response = try await transport.send(request)
        } catch {
            throw Failure(description: "it cannot be reached (\(error.code.name))")
        }
        guard response.status == 200 else { return (response.status, .null) }
        do {
            return (200, try response.json())
        } catch {
            throw Failure(description: "its answer is no JSON")
        }
    }
}
