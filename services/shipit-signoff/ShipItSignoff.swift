// SPDX-License-Identifier: MPL-2.0

import APIServer
import Core
import DaemonCommand
import JSON
import Postgres
import ServiceLifecycle
import SignoffKit
import StepKit
import TaskclusterClient

/// The daemon that waits for people to approve.
enum ShipItSignoff: DaemonDescription {
    static let name = "shipit-signoff"
    static let abstract = "Waits for people to approve."
    static let discussion = """
        A step service: each step is a policy and what it is about, and ends when enough of the right people have signed \
        with a token that says who they are. Any number of replicas share the work.
        """

    static var migrate: (@Sendable (DaemonContext) async throws -> Void)? {
        { context in
            let pool = PostgresPool(PostgresConfiguration(settings: context.settings, applicationName: name))
            try context.settings.check()
            try await SignoffMigrations.migrate(pool)
        }
    }

    static func build(_ context: DaemonContext) throws -> [any Service] {
        let settings = context.settings
        let foundation = StepFoundation(context, service: "signoff", defaultPort: 8013, needsTokens: true)
        let requiresSecondFactor = settings.bool(
            "signoff.require.mfa",
            default: true,
            "demand a second factor where a policy does not say"
        )
        let longestLogin = settings.int(
            "signoff.max.auth.age.s",
            default: 43_200,
            in: 60...31_536_000,
            "how old a login may be where a policy does not say, in seconds"
        )
        var directory: GroupDirectory?
        if let text = settings.optional("signoff.groups", "groups with the addresses of their members, as JSON") {
            directory = (try? JSONValue(parsing: text)).flatMap { GroupDirectory($0) }
            if directory == nil {
                settings.fail("signoff.groups", "must be an object of groups with lists of addresses")
            }
        }
        if !requiresSecondFactor, !foundation.channel.allowsTests {
            settings.fail("signoff.require.mfa", "can be false for APP_CHANNEL local, dev and testing alone")
        }
        let callbacks = settings.urls("login.callbacks", "the addresses that logins may lead back to, with commas")
        let root = settings.url("balrog.api.root", "the address of Balrog's API, for policies that ask it")
        let token = settings.optional("balrog.token", secret: true, "a token for reading at Balrog, where it wants one")
        if let root, !root.hasPrefix("https://"), !foundation.channel.allowsTests {
            settings.fail("balrog.api.root", "without TLS is for APP_CHANNEL local, dev and testing alone")
        }
        let client = (settings.optional("auth.client.id", "clients that may ask for tokens, with commas") ?? "")
            .split(separator: ",").first.map(String.init)
        if !callbacks.isEmpty, client == nil {
            settings.fail("auth.client.id", "is missing: logins are on behalf of its first client")
        }
        try settings.check()
        guard let tokens = foundation.tokens else { return [] }
        var service = SignoffService(
            store: foundation.store,
            requiresSecondFactor: requiresSecondFactor,
            longestLogin: longestLogin,
            directory: directory,
            balrog: root.map { Balrog(root: $0, token: token, transport: foundation.transport) }
        )
        service.aliasDeletesAll = foundation.deletesAllAtAlias
        var login: LoginPage?
        if !callbacks.isEmpty, let client {
            login = LoginPage(
                issuer: tokens.rules.issuer,
                audience: tokens.rules.audience,
                client: client,
                callbacks: Set(callbacks)
            )
        }
        let api = SignoffAPI(service: service, tokens: tokens, isPublic: foundation.isPublic, login: login)
        return foundation.services(
            context,
            api: api.api(schemas: try SchemaStore.locate()),
            authenticator: RemoteAuthenticator(rootURL: foundation.rootURL, transport: foundation.transport),
            own: [StepRunner(store: foundation.store, owner: foundation.owner, look: service.look)]
        )
    }
}

@main
enum Main {
    static func main() async { await DaemonCommand<ShipItSignoff>.main() }
}
