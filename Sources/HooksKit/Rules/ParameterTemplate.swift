// SPDX-License-Identifier: MPL-2.0

package import JSON
package import Schedules

/// A template of the language that came before JSON-e: strings and keys in which `{{ value | filter }}` is replaced.
///
/// A value is a quoted text, or the name of a parameter, also with a path into it (`payload.branch`). The filters are
/// `from-now`, which makes an instant of a distance in time, and `as-slugid`, which makes the same id of the same label
/// within one fire. A string that is nothing but one expression keeps the type of its value. Whatever names no parameter
/// and no filter stays as it is, so text of other template languages passes through.
///
/// The module this language comes from knows no bare words; here a word that names no parameter is a text when a known
/// filter follows, so that `{{ 2 days | from-now }}` means what it says.
package struct ParameterTemplate: Sendable {
    private let root: Node

    /// Reads a template; every text is a valid one.
    package init(_ template: JSONValue) {
        root = Node(template)
    }

    /// Replaces all expressions: names by parameters, labels by ids that also depend on the seed, distances in time by
    /// instants counted from now.
    package func render(
        _ parameters: JSONObject,
        seed: String,
        now: Timestamp
    ) throws(ParameterTemplateError) -> JSONValue {
        try Occasion(parameters: parameters, seed: seed, now: now).render(root, at: "template")
    }
}

/// A filter that cannot be applied, and where.
package struct ParameterTemplateError: Error, Sendable, Hashable, CustomStringConvertible {
    package let message: String
    /// The place in the template, such as `template.payload.tasks[0]`.
    package let location: String

    package var description: String { "TemplateError at \(location): \(message)" }
}

/// A part of a template, read.
private indirect enum Node {
    case fixed(JSONValue)
    case text(ParameterText)
    case list([Node])
    case object([(key: ParameterText, value: Node)])

    init(_ value: JSONValue) {
        switch value {
        case .string(let text):
            let parsed = ParameterText(text)
            self = parsed.isPlain ? .fixed(value) : .text(parsed)
        case .array(let items):
            self = .list(items.map(Node.init))
        case .object(let members):
            self = .object(members.map { (ParameterText($0.key), Node($0.value)) })
        case .null, .bool, .number:
            self = .fixed(value)
        }
    }
}

/// One rendering.
private struct Occasion {
    let parameters: JSONObject
    let seed: String
    let now: Timestamp

    func render(_ node: Node, at place: String) throws(ParameterTemplateError) -> JSONValue {
        switch node {
        case .fixed(let value):
            return value
        case .text(let text):
            return try render(text, at: place)
        case .list(let nodes):
            var items: [JSONValue] = []
            for (index, node) in nodes.enumerated() { items.append(try render(node, at: "\(place)[\(index)]")) }
            return .array(items)
        case .object(let members):
            var object = JSONObject()
            for (key, node) in members {
                let place = "\(place).\(key.source)"
                // A key can only be a text; an expression that yields something else is left alone.
                let name = key.isPlain ? key.source : try render(key, at: place).string ?? key.source
                object[name] = try render(node, at: place)
            }
            return .object(object)
        }
    }

    private func render(_ text: ParameterText, at place: String) throws(ParameterTemplateError) -> JSONValue {
        if text.pieces.count == 1, case .expression(let expression) = text.pieces[0] {
            return try value(of: expression, at: place) ?? JSONValue(expression.source)
        }
        var result = ""
        for piece in text.pieces {
            switch piece {
            case .plain(let plain): result += plain
            case .expression(let expression):
                result += try value(of: expression, at: place).map(Self.text) ?? expression.source
            }
        }
        return JSONValue(result)
    }

    /// What an expression stands for; nil if it means nothing here.
    private func value(of expression: ParameterExpression, at place: String) throws(ParameterTemplateError)
        -> JSONValue?
    {
        let filters = expression.filters.compactMap(ParameterFilter.init(rawValue:))
        guard filters.count == expression.filters.count else { return nil }
        var value: JSONValue
        if let literal = expression.literal {
            value = JSONValue(literal)
        } else if let parameter = parameter(expression.name) {
            value = parameter
        } else if !filters.isEmpty, !expression.name.isEmpty {
            value = JSONValue(expression.name)
        } else {
            return nil
        }
        for filter in filters {
            guard let text = value.string else {
                throw ParameterTemplateError(message: "\(filter.rawValue) needs a text", location: place)
            }
            value = JSONValue(try apply(filter, text, at: place))
        }
        return value
    }

    private func parameter(_ name: String) -> JSONValue? {
        if let value = parameters[name] { return value }
        let steps = name.split(separator: ".", omittingEmptySubsequences: false).map(String.init)
        guard steps.count > 1, var value = parameters[steps[0]] else { return nil }
        for step in steps.dropFirst() {
            let next = Int(step).flatMap { value[$0] } ?? value[step]
            guard let next else { return nil }
            value = next
        }
        return value
    }

    private func apply(_ filter: ParameterFilter, _ text: String, at place: String) throws(ParameterTemplateError)
        -> String
    {
        switch filter {
        case .fromNow:
            do {
                return try RelativeTime(text).from(now).iso8601
            } catch {
                throw ParameterTemplateError(message: "'\(text)' isn't a time expression", location: place)
            }
        case .asSlugid:
            return StableSlugid.make(label: text, seed: seed)
        }
    }

    private static func text(_ value: JSONValue) -> String {
        value.string ?? value.text()
    }
}
