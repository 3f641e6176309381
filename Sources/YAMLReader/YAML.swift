// SPDX-License-Identifier: MPL-2.0

import CLibYAML
package import JSON

/// Reads the configuration formats that operators use: YAML 1.1 as the usual safe loaders understand it, and JSON.
///
/// Dates stay the text they are written as, and keys keep their spelling. An alias counts as often as it is used, so that a short
/// document cannot grow without bound.
package enum YAML {
    /// What is wrong with a document.
    package struct Problem: Error, CustomStringConvertible {
        /// The line and what is wrong there.
        package let description: String
    }

    /// Reads a YAML document, or a JSON one, which most generated configurations are.
    package static func value(of text: String) throws(Problem) -> JSONValue {
        if text.drop(while: \.isWhitespace).first == "{", let json = try? JSONValue(parsing: text) { return json }
        return try value(of: Array(text.utf8))
    }

    private static func value(of bytes: [UInt8]) throws(Problem) -> JSONValue {
        let result: Result<JSONValue, Problem> = bytes.withUnsafeBufferPointer { buffer in
            let composer = YAMLComposer(buffer)
            do throws(Problem) {
                return .success(try composer.document())
            } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }
}

/// Turns the events of the parser into one value.
///
/// The parser stands at one address for its whole life, because it keeps pointers into itself.
private final class YAMLComposer {
    private struct Composed {
        var value: JSONValue
        var size: Int
    }

    private static let nodeLimit = 2_000_000
    private static let depthLimit = 200
    private let parser = UnsafeMutablePointer<yaml_parser_t>.allocate(capacity: 1)
    private var event = yaml_event_t()
    private var anchors: [String: Composed] = [:]
    private var nodes = 0

    /// The text must outlive the composer.
    init(_ text: UnsafeBufferPointer<UInt8>) {
        parser.initialize(to: yaml_parser_t())
        yaml_parser_initialize(parser)
        yaml_parser_set_input_string(parser, text.baseAddress, text.count)
    }

    deinit {
        yaml_event_delete(&event)
        yaml_parser_delete(parser)
        parser.deinitialize(count: 1)
        parser.deallocate()
    }

    func document() throws(YAML.Problem) -> JSONValue {
        try advance()
        try advance()
        guard event.type == YAML_DOCUMENT_START_EVENT else { return .null }
        try advance()
        let value = try node(depth: 0).value
        try advance()
        try advance()
        guard event.type == YAML_STREAM_END_EVENT else { throw problem("more than one document") }
        return value
    }

    private func problem(_ text: String) -> YAML.Problem {
        YAML.Problem(description: "line \(event.start_mark.line + 1): \(text)")
    }

    private func advance() throws(YAML.Problem) {
        yaml_event_delete(&event)
        guard yaml_parser_parse(parser, &event) == 1 else {
            let text = parser.pointee.problem.map { String(cString: $0) } ?? "not enough memory"
            throw YAML.Problem(description: "line \(parser.pointee.problem_mark.line + 1): \(text)")
        }
    }

    /// Reads the node that the current event begins; afterwards the current event is the node's last.
    private func node(depth: Int) throws(YAML.Problem) -> Composed {
        guard depth < Self.depthLimit else { throw problem("nested too deeply") }
        nodes += 1
        guard nodes < Self.nodeLimit else { throw problem("too many values") }
        switch event.type {
        case YAML_SCALAR_EVENT: return try scalar()
        case YAML_SEQUENCE_START_EVENT: return try sequence(depth)
        case YAML_MAPPING_START_EVENT: return try mapping(depth)
        case YAML_ALIAS_EVENT:
            guard let name = Self.text(event.data.alias.anchor), let known = anchors[name] else {
                throw problem("an alias without an anchor")
            }
            nodes += known.size
            return known
        default: throw problem("a value is missing")
        }
    }

    private func scalar() throws(YAML.Problem) -> Composed {
        let data = event.data.scalar
        let text = String(decoding: UnsafeBufferPointer(start: data.value, count: data.length), as: UTF8.self)
        let value: JSONValue
        switch Self.text(data.tag) {
        case nil: value = data.plain_implicit == 1 ? YAMLScalar.value(of: text) : .string(text)
        case "!", "tag:yaml.org,2002:str", "tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:binary":
            value = .string(text)
        case "tag:yaml.org,2002:int", "tag:yaml.org,2002:float", "tag:yaml.org,2002:bool", "tag:yaml.org,2002:null":
            value = YAMLScalar.value(of: text)
        case .some(let tag): throw problem("the tag \(tag) is not allowed")
        }
        return remember(Self.text(data.anchor), Composed(value: value, size: 1))
    }

    private func sequence(_ depth: Int) throws(YAML.Problem) -> Composed {
        let anchor = Self.text(event.data.sequence_start.anchor)
        var values: [JSONValue] = []
        var size = 1
        try advance()
        while event.type != YAML_SEQUENCE_END_EVENT {
            let item = try node(depth: depth + 1)
            values.append(item.value)
            size += item.size
            try advance()
        }
        return remember(anchor, Composed(value: .array(values), size: size))
    }

    private func mapping(_ depth: Int) throws(YAML.Problem) -> Composed {
        let anchor = Self.text(event.data.mapping_start.anchor)
        var object = JSONObject()
        var merged: [JSONObject] = []
        var size = 1
        try advance()
        while event.type != YAML_MAPPING_END_EVENT {
            guard event.type == YAML_SCALAR_EVENT else { throw problem("a key is not a plain text") }
            let data = event.data.scalar
            let key = String(decoding: UnsafeBufferPointer(start: data.value, count: data.length), as: UTF8.self)
            let isMerge = key == "<<" && data.plain_implicit == 1
            try advance()
            let item = try node(depth: depth + 1)
            size += item.size + 1
            if isMerge {
                let sources = item.value.array ?? [item.value]
                for source in sources {
                    guard let source = source.object else { throw problem("<< needs a mapping") }
                    merged.append(source)
                }
            } else {
                object[key] = item.value
            }
            try advance()
        }
        for source in merged {
            for (key, value) in source where object[key] == nil { object[key] = value }
        }
        return remember(anchor, Composed(value: .object(object), size: size))
    }

    private func remember(_ anchor: String?, _ node: Composed) -> Composed {
        if let anchor { anchors[anchor] = node }
        return node
    }

    private static func text(_ pointer: UnsafeMutablePointer<UInt8>?) -> String? {
        pointer.map { String(cString: $0) }
    }
}

/// What a text without quotes means in YAML 1.1.
enum YAMLScalar {
    private static let truths = Set(["yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"])
    private static let falsehoods = Set(["no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"])

    /// The value that a plain text stands for.
    static func value(of text: String) -> JSONValue {
        guard let first = text.utf8.first else { return .null }
        if text == "~" || text == "null" || text == "Null" || text == "NULL" { return .null }
        if truths.contains(text) { return true }
        if falsehoods.contains(text) { return false }
        let begins = (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(first) || "+-.".utf8.contains(first)
        guard begins else { return .string(text) }
        if let whole = whole(text) { return JSONValue(whole) }
        if let fraction = fraction(text) { return JSONValue(fraction) }
        return .string(text)
    }

    private static func whole(_ text: String) -> Int? {
        var digits = text[...]
        let isNegative = digits.first == "-"
        if isNegative || digits.first == "+" { digits.removeFirst() }
        guard let first = digits.first, first.isASCII, first.isNumber else { return nil }
        let magnitude: Int?
        if digits.contains(":") {
            magnitude = sexagesimal(digits)
        } else {
            let plain = digits.filter { $0 != "_" }
            magnitude =
                if plain.hasPrefix("0b") {
                    Int(plain.dropFirst(2), radix: 2)
                } else if plain.hasPrefix("0x") {
                    Int(plain.dropFirst(2), radix: 16)
                } else if plain.hasPrefix("0"), plain.count > 1 {
                    Int(plain.dropFirst(), radix: 8)
                } else {
                    Int(plain)
                }
        }
        return magnitude.map { isNegative ? -$0 : $0 }
    }

    /// `1:30` is ninety.
    private static func sexagesimal(_ text: Substring) -> Int? {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        guard let first = parts.first, first.first != "0" else { return nil }
        var result = 0
        for (index, part) in parts.enumerated() {
            guard let number = Int(part.filter { $0 != "_" }), index == 0 || (number < 60 && part.count <= 2) else {
                return nil
            }
            let (product, overflow) = result.multipliedReportingOverflow(by: 60)
            guard !overflow else { return nil }
            result = product + number
        }
        return result
    }

    private static func fraction(_ text: String) -> Double? {
        guard text.contains("."), !text.contains(":"), text.contains(where: { $0.isASCII && $0.isNumber }) else {
            return nil
        }
        let plain = text.filter { $0 != "_" }
        // Infinity, NaN and hexadecimal fractions, which the standard library would take, mean nothing in JSON.
        guard plain.allSatisfy({ $0.isASCII && ($0.isNumber || "+-.eE".contains($0)) }) else { return nil }
        if plain.lowercased().contains("e"), !plain.contains("e+"), !plain.contains("e-"), !plain.contains("E+"),
            !plain.contains("E-")
        {
            return nil
        }
        return Double(plain.hasSuffix(".") ? plain + "0" : plain)
    }
}
