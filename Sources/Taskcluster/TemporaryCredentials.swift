// SPDX-License-Identifier: MPL-2.0

import JSON
public import Schedules

/// Credentials that any holder of permanent ones can issue without asking anybody.
public enum TemporaryCredentials {
    /// Issues credentials for some of the issuer's scopes.
    ///
    /// They carry the issuer's name, or `named` when given, for which the issuer needs `auth:create-client:<named>`. The
    /// lifetime must not exceed 31 days; a seed is 44 characters and random unless a test gives one.
    public static func issue(
        named name: String? = nil,
        by issuer: Hawk.Credentials,
        scopes: [String],
        start: Timestamp,
        expiry: Timestamp,
        seed: String = Slugid.make() + Slugid.make()
    ) -> Hawk.Credentials {
        let clientID = name ?? issuer.clientID
        var certificate = Certificate(
            scopes: scopes,
            start: start.milliseconds,
            expiry: expiry.milliseconds,
            seed: seed,
            issuer: name == nil ? nil : issuer.clientID
        )
        let text = certificate.signedText(clientID: clientID)
        certificate.signature = Base64.encoded(Hawk.hmac(text, key: issuer.accessToken))
        return Hawk.Credentials(
            clientID: clientID,
            accessToken: certificate.accessToken(key: issuer.accessToken),
            certificate: certificate.json.text()
        )
    }
}
