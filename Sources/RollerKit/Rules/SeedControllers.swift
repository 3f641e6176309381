// SPDX-License-Identifier: MPL-2.0

import Core
import JSON
import Taskcluster

/// The one Xen server and the one iLO account that settings of the original service named for all machines.
///
/// Its file of machines knows neither; controllers that come from there without an address or a credential get these.
package struct SeedControllers: Sendable {
    /// The Xen server.
    package struct Server: Sendable, Hashable {
        var host: String
        var port: Int
        var isPlain: Bool
    }

    package var xen: Server?
    package var xenCredential: Credential?
    package var iloCredential: Credential?

    package init() {}

    /// ## Configuration keys
    /// - `XEN_URL`, `XEN_USERNAME`, `XEN_PASSWORD`: the server of imported Xen machines.
    /// - `ILO_USERNAME`, `ILO_PASSWORD`: the account at imported iLO boards without one of their own.
    init(settings: Settings) {
        if let url = settings.optional("xen.url", "the server of imported Xen machines") {
            if let target = Hawk.Target(url: url), HostName.isValid(target.host) {
                xen = Server(host: target.host, port: target.port, isPlain: url.lowercased().hasPrefix("http:"))
            } else {
                settings.fail("xen.url", "must begin with http:// or https:// and name a host")
            }
        }
        xenCredential = Self.account(settings, "xen", "the Xen server")
        iloCredential = Self.account(settings, "ilo", "imported iLO boards")
    }

    private static func account(_ settings: Settings, _ key: String, _ place: String) -> Credential? {
        let user = settings.optional("\(key).username", "the account at \(place)")
        let password = settings.optional("\(key).password", secret: true, "its password")
        guard let user, let password else {
            if (user == nil) != (password == nil) {
                settings.fail("\(key).\(user == nil ? "username" : "password")", "is missing beside the other")
            }
            return nil
        }
        return Credential(["username": .string(user), "password": .string(password)])
    }

    /// The document with what its controllers lack.
    package func completed(_ document: InventoryDocument) -> InventoryDocument {
        var document = document
        for index in document.controllers.indices {
            var members = document.controllers[index].members
            let kind = members["kind"]?.string.flatMap(ControllerKind.init(rawValue:))
            if kind == .xen, members["address"] == nil, let xen {
                members["address"] = .string(xen.host)
                members["port"] = JSONValue(xen.port)
                if xen.isPlain { members["options"] = ["scheme": "http", "allow_plain_http": true] }
            }
            if let credential = kind == .xen ? xenCredential : kind == .ilo ? iloCredential : nil,
                members["credential_ref"] == nil, let name = kind?.rawValue
            {
                members["credential_ref"] = .string("seed-\(name)")
                document.credentials["seed-\(name)"] = credential
            }
            document.controllers[index].members = members
        }
        return document
    }
}
