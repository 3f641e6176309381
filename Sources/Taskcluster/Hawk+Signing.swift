// SPDX-License-Identifier: MPL-2.0

import JSON
public import Schedules

extension Hawk {
    /// The `Authorization` header for a request.
    ///
    /// The body is covered when `payload` is given; `authorizedScopes` limits what this one request may do.
    public static func authorization(
        for method: String,
        url target: HawkTarget,
        credentials: Credentials,
        authorizedScopes: [String]? = nil,
        payload: (contentType: String, body: [UInt8])? = nil,
        now: Timestamp,
        nonce: String = makeNonce()
    ) -> String {
        let artifacts = Artifacts(
            timestamp: String(seconds(now)),
            nonce: nonce,
            method: method,
            target: target,
            hash: payload.map { payloadHash(contentType: $0.contentType, body: $0.body) },
            ext: ext(credentials, authorizedScopes)
        )
        return Header(
            id: credentials.clientID,
            timestamp: artifacts.timestamp,
            nonce: nonce,
            mac: mac(.header, artifacts, key: credentials.accessToken),
            hash: artifacts.hash,
            ext: artifacts.ext
        ).text
    }

    /// A URL that can be fetched without credentials until `lifetime` has passed; nil when `url` is not absolute.
    public static func signedURL(
        _ url: String,
        credentials: Credentials,
        authorizedScopes: [String]? = nil,
        lifetime: Duration = .seconds(15 * 60),
        now: Timestamp
    ) -> String? {
        guard let target = Target(url: url) else { return nil }
        let expiry = seconds(now + lifetime)
        let ext = ext(credentials, authorizedScopes) ?? ""
        let bewit = bewit(target, credentials: credentials, expiry: expiry, ext: ext)
        return url + (target.resource.utf8.contains(UInt8(ascii: "?")) ? "&" : "?") + "bewit=" + bewit
    }

    /// A short random text for the `nonce` attribute.
    public static func makeNonce() -> String {
        String(Slugid.make().suffix(10))
    }

    static func bewit(_ target: Target, credentials: Credentials, expiry: Int64, ext: String) -> String {
        let artifacts = Artifacts(timestamp: String(expiry), nonce: "", method: "GET", target: target, ext: ext)
        let mac = mac(.bewit, artifacts, key: credentials.accessToken)
        return Base64.urlEncoded(Array("\(credentials.clientID)\\\(expiry)\\\(mac)\\\(ext)".utf8))
    }

    private static func seconds(_ time: Timestamp) -> Int64 {
        Int64((Double(time.milliseconds) / 1000).rounded(.down))
    }

    /// The certificate goes in as the text it is, so that nothing changes what its signature covers.
    private static func ext(_ credentials: Credentials, _ authorizedScopes: [String]?) -> String? {
        var members: [String] = []
        if let certificate = credentials.certificate, !certificate.isEmpty {
            members.append("\"certificate\":\(certificate)")
        }
        if let authorizedScopes { members.append("\"authorizedScopes\":\(JSONValue(authorizedScopes).text())") }
        guard !members.isEmpty else { return nil }
        return Base64.encoded(Array("{\(members.joined(separator: ","))}".utf8))
    }
}
