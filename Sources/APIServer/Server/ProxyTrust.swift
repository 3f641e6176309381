// SPDX-License-Identifier: MPL-2.0

public import Core

/// Whose word counts about where a request came from: the `X-Forwarded-*` fields that proxies add.
///
/// ## Configuration keys
/// - `TRUSTED_PROXIES`: addresses and networks of proxies, IPv4 and IPv6, with commas; default none.
/// - `TRUST_PROXY`: whether everybody is believed who reaches the service; default `false`.
public enum ProxyTrust: Sendable, Hashable {
    /// Nobody's.
    case nobody
    /// Everybody's: for a service that only its proxy can reach.
    case anybody
    /// That of proxies at these addresses.
    case networks([AddressRange])

    /// Reads the configuration keys; problems are collected by the settings.
    public init(settings: Settings) {
        let believesAll = settings.bool(
            "trust.proxy",
            default: false,
            "believe X-Forwarded-For and X-Forwarded-Proto"
        )
        let list = settings.optional("trusted.proxies", "addresses and networks of proxies that are believed") ?? ""
        var networks: [AddressRange] = []
        for text in list.split(separator: ",").map({ $0.trimmingBlanks() }) where !text.isEmpty {
            guard let network = AddressRange(text) else {
                settings.fail(
                    "trusted.proxies",
                    "must be IP addresses or networks such as 10.0.0.0/8 and fd00::/8, with commas"
                )
                continue
            }
            networks.append(network)
        }
        if believesAll, !networks.isEmpty {
            settings.fail(
                "trusted.proxies",
                "names proxies, while TRUST_PROXY=true believes everybody; set one of them"
            )
        }
        self = believesAll ? .anybody : networks.isEmpty ? .nobody : .networks(networks)
    }

    /// Whether what the one at the other end of the connection adds is believed.
    public func believes(_ peer: String?) -> Bool {
        switch self {
        case .nobody: false
        case .anybody: true
        case .networks(let networks): peer.map { peer in networks.contains { $0.contains(peer) } } ?? false
        }
    }

    /// The address a request came from.
    ///
    /// Each proxy adds the address it was called from at the end of `X-Forwarded-For`, so the list is read from there: what
    /// stands before the first address that is not a trusted proxy's was said by the caller and means nothing.
    public func caller(peer: String?, forwardedFor: String?) -> String? {
        guard believes(peer), let forwardedFor else { return peer }
        var caller = peer
        for entry in forwardedFor.split(separator: ",", omittingEmptySubsequences: false).reversed() {
            guard let address = Self.address(entry.trimmingBlanks()) else { break }
            caller = address
            if !believes(address) { break }
        }
        return caller
    }

    /// The address of an entry, which some proxies write with the port; nil for what is none.
    private static func address(_ entry: String) -> String? {
        if AddressRange.isAddress(entry) { return entry }
        var text = entry[...]
        if text.hasPrefix("["), let end = text.firstIndex(of: "]") {
            text = text[text.index(after: text.startIndex)..<end]
        } else if let colon = text.lastIndex(of: ":") {
            text = text[..<colon]
        }
        return AddressRange.isAddress(String(text)) ? String(text) : nil
    }
}
