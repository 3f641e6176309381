// SPDX-License-Identifier: MPL-2.0

/// The rules for the names of steps.
public enum StepUID {
    /// The longest name.
    public static let limit = 80

    /// Names that are, or once were, paths of a step service.
    static let reserved: Set<String> = [
        "step", "steps", "mock", "ticktock", "login", "logout", "docs", "ui", "swagger.json", "openapi.json",
        "metrics", "templates", "freezes", "locks", "events", "auth0", "ping", "fake_auth", "validate_policy",
        "admin", "pending", "api", "references", "schemas", "robots.txt",
    ]

    /// What is wrong with a name; nil if nothing is.
    public static func problem(with uid: String) -> String? {
        let bytes = Array(uid.utf8)
        guard (1...limit).contains(bytes.count) else { return "a uid has 1 to \(limit) characters" }
        guard let first = bytes.first, isWord(first), bytes.allSatisfy({ isWord($0) || "._~-".utf8.contains($0) })
        else {
            return "a uid consists of letters, digits and . _ ~ - and begins with a letter or digit"
        }
        if reserved.contains(uid) { return "the uid \(uid) is reserved" }
        return nil
    }

    private static func isWord(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "a")...UInt8(ascii: "z"),
            UInt8(ascii: "A")...UInt8(ascii: "Z"):
            true
        default: false
        }
    }
}
