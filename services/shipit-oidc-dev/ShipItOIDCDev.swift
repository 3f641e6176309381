// SPDX-License-Identifier: MPL-2.0

import APIServer
import Core
import DaemonCommand
import JSON
import ServiceLifecycle
import SignoffKit
import StepKit

/// The issuer of tokens for development: it vouches for anybody.
enum ShipItOIDCDev: DaemonDescription {
    static let name = "shipit-oidc-dev"
    static let abstract = "Issues people's tokens for development and tests."
    static let discussion = """
        FOR DEVELOPMENT ALONE. Whoever asks gets a token for any user of the list, without a password. It does not start \
        unless APP_CHANNEL is local, dev or testing, and services elsewhere refuse its tokens.
        """

    static func build(_ context: DaemonContext) throws -> [any Service] {
        let settings = context.settings
        if !StepFoundation.channel(settings).allowsTests {
            settings.fail("app.channel", "must be local, dev or testing for an issuer that vouches for anybody")
        }
        let http = HTTPServerConfiguration(settings: settings, defaultPort: 8019)
        let url = settings.string(
            "oidc.url",
            default: "http://\(http.host):\(http.port)/",
            "the issuer as tokens spell it, with a slash at its end"
        )
        _ = settings.url("oidc.url", "the issuer as tokens spell it, with a slash at its end")
        if !url.hasSuffix("/") { settings.fail("oidc.url", "has to end with a slash") }
        let audience = settings.required("auth.audience", "who the tokens are for")
        let text = settings.string(
            "oidc.users",
            default: Self.users,
            "the users, as an object of names with groups, email and amr"
        )
        let list = (try? JSONValue(parsing: text))?.object
        if list == nil { settings.fail("oidc.users", "must be a JSON object") }
        try settings.check()
        let users = (list ?? [:]).map { TestUser($0.key, $0.value.object ?? [:]) }
        let api = TestIssuerAPI(issuer: try TestIssuer(), users: users, url: url, audience: audience)
        return [
            HTTPServer(
                configuration: http,
                name: context.name,
                rootURL: nil,
                apis: [api.api(schemas: try SchemaStore.locate())],
                authenticator: nil,
                health: context.health
            )
        ]
    }

    private static let users = """
        {"releng1": {"groups": ["releng"]}, "releng2": {"groups": ["releng"]}, "relman1": {"groups": ["relman"]},
         "relman2": {"groups": ["relman"]}, "password-only": {"groups": ["releng"], "amr": ["pwd"]}}
        """
}

@main
enum Main {
    static func main() async { await DaemonCommand<ShipItOIDCDev>.main() }
}
