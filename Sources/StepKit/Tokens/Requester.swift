// SPDX-License-Identifier: MPL-2.0

extension Person {
    /// Whether the person is one of those who are named, by subject, address, or in the name of a client of theirs.
    public func isAmong(_ names: [String?]) -> Bool {
        let own = Set([subject.lowercased()] + (email.map { [$0] } ?? []))
        return names.compactMap { $0?.lowercased() }.contains { name in
            // The names of clients say whose they are between slashes.
            own.contains(name) || name.split(separator: "/").contains { own.contains(String($0)) }
        }
    }
}
