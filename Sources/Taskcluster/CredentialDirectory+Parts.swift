// SPDX-License-Identifier: MPL-2.0

import Crypto
import JSON
import Schedules
import Synchronization

/// What a verified pair of client id and extension text amounts to.
struct Grant: Sendable {
    let key: SymmetricKey
    var scopes: [String]
    let authorizedScopes: [String]?
    let expires: Timestamp
    let notBefore: Timestamp?
    let notAfter: Timestamp

    func isCurrent(_ now: Timestamp) -> Bool {
        now <= notAfter && notBefore.map { $0 <= now } ?? true
    }
}

/// Grants of requests whose signature was good, so that strangers cannot fill it.
final class GrantCache: Sendable {
    private struct Key: Hashable {
        let clientID: String
        let ext: String
    }

    private static let capacity = 10_000
    private let grants = Mutex<[Key: Grant]>([:])

    subscript(clientID: String, ext: String) -> Grant? {
        get { grants.withLock { $0[Key(clientID: clientID, ext: ext)] } }
        set {
            grants.withLock { grants in
                if grants.count >= Self.capacity { grants.removeAll(keepingCapacity: true) }
                grants[Key(clientID: clientID, ext: ext)] = newValue
            }
        }
    }
}

/// The `ext` attribute: base64 of a JSON object with two members that matter.
struct Extension {
    var certificate: JSONValue?
    var authorizedScopes: [String]?

    init() {}

    init(_ text: String) throws(HawkRejection) {
        guard let bytes = Base64.decoded(text), let json = try? JSONValue(parsing: bytes), json.object != nil else {
            throw HawkRejection("Failed to parse ext")
        }
        certificate = json["certificate"].flatMap { $0.isNull ? nil : $0 }
        guard let list = json["authorizedScopes"], !list.isNull else { return }
        guard let list = list.array else { throw HawkRejection("ext.authorizedScopes must be an array") }
        let scopes = list.compactMap(\.string)
        guard scopes.count == list.count, scopes.allSatisfy(Scope.isValid) else {
            throw HawkRejection("ext.authorizedScopes must be an array of valid scopes")
        }
        authorizedScopes = scopes
    }
}

/// A resource with a `bewit` parameter, and the resource its signature covers.
struct SignedResource {
    let bewit: String
    let resource: String

    /// Finds the last `bewit` of the query; nil when there is none.
    init?(_ text: String) {
        let marker = Array("bewit=".utf8)
        let bytes = Array(text.utf8)
        guard let query = bytes.firstIndex(of: UInt8(ascii: "?")) else { return nil }
        var start: Int?
        var index = query + 1
        while index < bytes.count {
            if bytes[index...].starts(with: marker) { start = index }
            index = (bytes[index...].firstIndex(of: UInt8(ascii: "&")) ?? bytes.count) + 1
        }
        guard let start else { return nil }
        let value = bytes[(start + marker.count)...].prefix { $0 != UInt8(ascii: "&") }
        bewit = String(decoding: value, as: UTF8.self)
        // The separator before goes with it, unless something follows that now takes its place.
        let rest = bytes[value.endIndex...].dropFirst()
        let kept = rest.isEmpty ? bytes[..<(start - 1)] : bytes[..<start]
        resource = String(decoding: kept + rest, as: UTF8.self)
    }

    func parts() throws(HawkRejection) -> (id: String, expiry: String, mac: String, ext: String) {
        guard !bewit.isEmpty else { throw .unauthorized("Empty bewit") }
        guard let bytes = Base64.decoded(bewit) else { throw .badRequest("Invalid bewit encoding") }
        let parts = bytes.split(separator: UInt8(ascii: "\\"), omittingEmptySubsequences: false)
            .map { String(decoding: $0, as: UTF8.self) }
        guard parts.count == 4 else { throw .badRequest("Invalid bewit structure") }
        guard !parts[0].isEmpty, !parts[1].isEmpty, !parts[2].isEmpty else {
            throw .badRequest("Missing bewit attributes")
        }
        return (parts[0], parts[1], parts[2], parts[3])
    }
}
