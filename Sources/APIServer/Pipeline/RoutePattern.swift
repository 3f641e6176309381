// SPDX-License-Identifier: MPL-2.0

/// A declared route, matched against a path that was split before anything was decoded.
struct RoutePattern: Sendable {
    enum Segment: Sendable, Equatable {
        case literal(String)
        case parameter(String)
        /// One or more segments, slashes included.
        case rest(String)
    }

    let segments: [Segment]

    /// Reads `/hooks/<hookGroupId>/<hookId>`; `<name*>` takes the rest of the path, up to what follows in the route.
    init(_ route: String) {
        var pieces = route.split(separator: "/", omittingEmptySubsequences: false)
        if pieces.first?.isEmpty == true { pieces.removeFirst() }
        if pieces.last?.isEmpty == true { pieces.removeLast() }
        segments = pieces.map { piece in
            guard piece.first == "<", piece.last == ">" else { return .literal(String(piece)) }
            let name = piece.dropFirst().dropLast()
            return name.last == "*" ? .rest(String(name.dropLast())) : .parameter(String(name))
        }
        precondition(
            segments.count { if case .rest = $0 { true } else { false } } <= 1,
            "a route can take the rest of a path only once: \(route)"
        )
    }

    /// The names of the parameters in the order of the route.
    var names: [String] {
        segments.compactMap { segment in
            switch segment {
            case .literal: nil
            case .parameter(let name), .rest(let name): name
            }
        }
    }

    /// The route as the reference document shows it.
    var published: String {
        segments.reduce(into: "") { text, segment in
            switch segment {
            case .literal(let literal): text += "/" + literal
            case .parameter(let name), .rest(let name): text += "/<\(name)>"
            }
        }
    }

    /// Routes that say more come first: a literal before a parameter before the rest of a path.
    func precedes(_ other: RoutePattern) -> Bool {
        for (left, right) in zip(segments, other.segments) where left.rank != right.rank {
            return left.rank < right.rank
        }
        return segments.count > other.segments.count
    }

    /// Captures the raw values of the parameters, or returns nil if the path belongs to another route.
    func match(_ path: ArraySlice<Substring>) -> [(name: String, raw: Substring)]? {
        if let captures = matchExactly(path) { return captures }
        // One slash at the end may be there or not.
        guard let last = path.last, last.isEmpty, path.count > 1 || segments.isEmpty else { return nil }
        return matchExactly(path.dropLast())
    }

    private func matchExactly(_ path: ArraySlice<Substring>) -> [(name: String, raw: Substring)]? {
        var captures: [(name: String, raw: Substring)] = []
        var position = path.startIndex
        for (index, segment) in segments.enumerated() {
            let end: Int
            switch segment {
            case .literal, .parameter:
                end = position + 1
            case .rest:
                end = path.endIndex - (segments.count - index - 1)
            }
            guard position < end, end <= path.endIndex else { return nil }
            switch segment {
            case .literal(let literal):
                guard path[position] == literal else { return nil }
            case .parameter(let name):
                guard !path[position].isEmpty else { return nil }
                captures.append((name, path[position]))
            case .rest(let name):
                let raw = Substring(path[position..<end].joined(separator: "/"))
                guard !raw.isEmpty else { return nil }
                captures.append((name, raw))
            }
            position = end
        }
        return position == path.endIndex ? captures : nil
    }
}

extension RoutePattern.Segment {
    fileprivate var rank: Int {
        switch self {
        case .literal: 0
        case .parameter: 1
        case .rest: 2
        }
    }
}

/// Percent-decoding that refuses what it does not understand.
enum PercentEncoding {
    /// Decodes one piece of a path; nil for a broken escape or for bytes that are not UTF-8.
    static func decode(_ text: Substring) -> String? {
        decode(text, plusIsBlank: false)
    }

    /// Decodes a key or value of a query, where a plus sign stands for a blank.
    static func decodeQuery(_ text: Substring) -> String? {
        decode(text, plusIsBlank: true)
    }

    private static func decode(_ text: Substring, plusIsBlank: Bool) -> String? {
        let source = text.utf8
        let percent = UInt8(ascii: "%")
        let plus = UInt8(ascii: "+")
        guard source.contains(where: { $0 == percent || (plusIsBlank && $0 == plus) }) else { return String(text) }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(source.count)
        var iterator = source.makeIterator()
        while let byte = iterator.next() {
            if byte == percent {
                guard
                    let high = iterator.next().flatMap(nibble),
                    let low = iterator.next().flatMap(nibble)
                else { return nil }
                bytes.append(high << 4 | low)
            } else if plusIsBlank, byte == plus {
                bytes.append(UInt8(ascii: " "))
            } else {
                bytes.append(byte)
            }
        }
        return String(validating: bytes, as: UTF8.self)
    }

    private static func nibble(_ character: UInt8) -> UInt8? {
        switch character {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): character - 48
        case UInt8(ascii: "a")...UInt8(ascii: "f"): character - 87
        case UInt8(ascii: "A")...UInt8(ascii: "F"): character - 55
        default: nil
        }
    }
}
