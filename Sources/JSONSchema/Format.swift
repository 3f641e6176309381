// SPDX-License-Identifier: MPL-2.0

import Expressions

/// The string formats that are checked.
enum Format: String, Sendable {
    case dateTime = "date-time"
    case date
    case time
    case uri
    case uriReference = "uri-reference"
    case email
    case hostname
    case ipv4
    case ipv6
    case regex
    case uuid
    case jsonPointer = "json-pointer"

    func accepts(_ text: String) -> Bool {
        switch self {
        case .dateTime: Self.isDateTime(text)
        case .date: Self.isDate(text)
        case .time: Self.isTime(text)
        case .uri: Self.isURI(text, mustBeAbsolute: true)
        case .uriReference: Self.isURI(text, mustBeAbsolute: false)
        case .email: Self.isEmail(text)
        case .hostname: Self.isHostname(text)
        case .ipv4: Self.isIPv4(text)
        case .ipv6: Self.isIPv6(text)
        case .regex: (try? RegularExpression(text, as: .ecmaScript)) != nil
        case .uuid: Self.isUUID(text)
        case .jsonPointer: Self.isPointer(text)
        }
    }

    private static func isDateTime(_ text: String) -> Bool {
        if isUsualDateTime(text.utf8) { return true }
        guard let separator = text.firstIndex(where: { "Tt ".contains($0) }) else { return false }
        return isDate(String(text[..<separator])) && isTime(String(text[text.index(after: separator)...]))
    }

    /// Whether this is an instant in UTC on one of the days that every month has, the form that programs write.
    ///
    /// Everything else is looked at more closely.
    private static func isUsualDateTime(_ text: String.UTF8View) -> Bool {
        guard 20...30 ~= text.count, text.last == UInt8(ascii: "Z") else { return false }
        var (position, number, numbers) = (0, 0, (month: 0, day: 0, hour: 0, minute: 0, second: 0))
        for byte in text.dropLast() {
            let mark: UInt8? =
                switch position {
                case 4, 7: UInt8(ascii: "-")
                case 10: UInt8(ascii: "T")
                case 13, 16: UInt8(ascii: ":")
                case 19: UInt8(ascii: ".")
                default: nil
                }
            if let mark {
                guard byte == mark else { return false }
                number = 0
            } else {
                guard 0x30...0x39 ~= byte else { return false }
                number = number * 10 + Int(byte - 0x30)
                switch position {
                case 6: numbers.month = number
                case 9: numbers.day = number
                case 12: numbers.hour = number
                case 15: numbers.minute = number
                case 18: numbers.second = number
                default: break
                }
            }
            position += 1
        }
        return position != 20 && 1...12 ~= numbers.month && 1...28 ~= numbers.day && numbers.hour < 24
            && numbers.minute < 60 && numbers.second < 60
    }

    private static func isDate(_ text: String) -> Bool {
        let parts = text.split(separator: "-", omittingEmptySubsequences: false)
        guard parts.map(\.utf8.count) == [4, 2, 2], let year = digits(parts[0]), let month = digits(parts[1]),
            let day = digits(parts[2]), 1...12 ~= month
        else { return false }
        let isLeap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0
        let lengths = [31, isLeap ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
        return 1...lengths[month - 1] ~= day
    }

    /// `hh:mm:ss`, a fraction, and an offset that must be there.
    private static func isTime(_ text: String) -> Bool {
        guard let zoneStart = text.firstIndex(where: { "Zz+-".contains($0) }) else { return false }
        let clock = text[..<zoneStart].split(separator: ".", omittingEmptySubsequences: false)
        guard clock.count <= 2, clock.dropFirst().allSatisfy({ digits($0) != nil }) else { return false }
        let parts = clock[0].split(separator: ":", omittingEmptySubsequences: false)
        guard parts.map(\.utf8.count) == [2, 2, 2], let hour = digits(parts[0]), let minute = digits(parts[1]),
            let second = digits(parts[2]), hour < 24, minute < 60, second <= 60
        else { return false }
        let zone = text[zoneStart...]
        if zone == "Z" || zone == "z" { return true }
        let offset = zone.dropFirst().split(separator: ":", omittingEmptySubsequences: false)
        guard offset.map(\.utf8.count) == [2, 2], let hours = digits(offset[0]), let minutes = digits(offset[1]) else {
            return false
        }
        return hours < 24 && minutes < 60
    }

    private static func digits(_ text: Substring) -> Int? {
        guard !text.isEmpty, text.utf8.allSatisfy({ 0x30...0x39 ~= $0 }) else { return nil }
        return Int(text.prefix(18))
    }

    private static func isURI(_ text: String, mustBeAbsolute: Bool) -> Bool {
        guard text.utf8.allSatisfy({ 0x21...0x7E ~= $0 && !#""<>\^`{|}"#.utf8.contains($0) }) else { return false }
        let bytes = Array(text.utf8)
        for (index, byte) in bytes.enumerated() where byte == UInt8(ascii: "%") {
            guard index + 2 < bytes.count, isHex(bytes[index + 1]), isHex(bytes[index + 2]) else { return false }
        }
        guard mustBeAbsolute else { return true }
        guard let colon = text.firstIndex(of: ":"), let first = text.first, first.isLetter else { return false }
        let scheme = text[..<colon]
        guard scheme.allSatisfy({ $0.isLetter || $0.isNumber || "+-.".contains($0) }) else { return false }
        return text.index(after: colon) < text.endIndex
    }

    private static func isHex(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x46, 0x61...0x66: true
        default: false
        }
    }

    private static func isEmail(_ text: String) -> Bool {
        let parts = text.split(separator: "@", omittingEmptySubsequences: false)
        guard parts.count == 2, !parts[0].isEmpty, text.utf8.count <= 320 else { return false }
        let atoms = parts[0].split(separator: ".", omittingEmptySubsequences: false)
        let allowed = Set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+/=?^_`{|}~-".utf8)
        guard atoms.allSatisfy({ !$0.isEmpty && $0.utf8.allSatisfy(allowed.contains) }) else { return false }
        return parts[1].contains(".") && isHostname(String(parts[1]))
    }

    private static func isHostname(_ text: String) -> Bool {
        guard text.utf8.count <= 253, !text.isEmpty else { return false }
        return text.split(separator: ".", omittingEmptySubsequences: false).allSatisfy { label in
            1...63 ~= label.utf8.count && label.first != "-" && label.last != "-"
                && label.utf8.allSatisfy { isHex($0) || 0x41...0x5A ~= $0 || 0x61...0x7A ~= $0 || $0 == 0x2D }
        }
    }

    private static func isIPv4(_ text: String) -> Bool {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        return parts.count == 4
            && parts.allSatisfy { part in
                guard part.utf8.count <= 3, part.utf8.count == 1 || part.first != "0" else { return false }
                return digits(part).map { $0 <= 255 } ?? false
            }
    }

    private static func isIPv6(_ text: String) -> Bool {
        let halves = text.split(separator: "::", omittingEmptySubsequences: false).map(String.init)
        guard halves.count <= 2 else { return false }
        var groups = 0
        for (index, half) in halves.enumerated() where !half.isEmpty {
            let parts = half.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
            for (place, part) in parts.enumerated() {
                let isLast = index == halves.count - 1 && place == parts.count - 1
                if isLast, part.contains(".") {
                    guard isIPv4(part) else { return false }
                    groups += 2
                } else {
                    guard 1...4 ~= part.utf8.count, part.utf8.allSatisfy(isHex) else { return false }
                    groups += 1
                }
            }
        }
        return halves.count == 2 ? groups <= 7 : groups == 8
    }

    private static func isUUID(_ text: String) -> Bool {
        let body = text.lowercased().hasPrefix("urn:uuid:") ? String(text.dropFirst(9)) : text
        let parts = body.split(separator: "-", omittingEmptySubsequences: false)
        return parts.map(\.utf8.count) == [8, 4, 4, 4, 12] && parts.allSatisfy { $0.utf8.allSatisfy(isHex) }
    }

    private static func isPointer(_ text: String) -> Bool {
        guard text.isEmpty || text.first == "/" else { return false }
        let bytes = Array(text.utf8)
        for (index, byte) in bytes.enumerated() where byte == UInt8(ascii: "~") {
            guard index + 1 < bytes.count, bytes[index + 1] == 0x30 || bytes[index + 1] == 0x31 else { return false }
        }
        return true
    }
}
