// SPDX-License-Identifier: MPL-2.0

import Core
import Glibc

/// Asks DNS for addresses; blocking, so it runs on a thread of its own.
enum NameLookup {
    /// The first address of a name, tried as it is and then in each domain; nil when none knows it.
    static func address(of name: String, searching domains: [String]) async -> String? {
        if HostName.isAddress(name) { return name }
        for candidate in [name] + domains.map({ "\(name).\($0)" }) {
            let found: String? = await withCheckedContinuation { continuation in
                startThread(named: "dns") { continuation.resume(returning: resolve(candidate)) }
            }
            if let found { return found }
        }
        return nil
    }

    private static func resolve(_ name: String) -> String? {
        var hints = addrinfo()
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        var list: UnsafeMutablePointer<addrinfo>?
        guard getaddrinfo(name, nil, &hints, &list) == 0, let first = list else { return nil }
        defer { freeaddrinfo(first) }
        var text = [CChar](repeating: 0, count: Int(NI_MAXHOST))
        guard
            getnameinfo(
                first.pointee.ai_addr,
                first.pointee.ai_addrlen,
                &text,
                socklen_t(text.count),
                nil,
                0,
                NI_NUMERICHOST
            ) == 0
        else { return nil }
        return String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}
