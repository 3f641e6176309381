// SPDX-License-Identifier: MPL-2.0

import JSON
import Yams

/// Reads the configuration formats that operators use.
enum YAML {
    /// What is wrong with a document.
    struct Problem: Error, CustomStringConvertible {
        let description: String
    }

    /// Reads a YAML document, or a JSON one, which most generated configurations are.
    static func value(of text: String) throws(Problem) -> JSONValue {
        if text.drop(while: \.isWhitespace).first == "{", let json = try? JSONValue(parsing: text) { return json }
        do {
            guard let node = try compose(yaml: text) else { return .null }
            return try value(of: node)
        } catch let problem as Problem {
            throw problem
        } catch {
            throw Problem(description: "\(error)".split(separator: "\n").joined(separator: " "))
        }
    }

    private static func value(of node: Node) throws(Problem) -> JSONValue {
        switch node {
        case .scalar(let scalar):
            return value(of: scalar)
        case .sequence(let sequence):
            var values: [JSONValue] = []
            for node in sequence { values.append(try value(of: node)) }
            return .array(values)
        case .mapping(let mapping):
            var object = JSONObject()
            for (key, node) in mapping {
                // Keys may look like numbers or booleans; as names they are what is written.
                guard case .scalar(let key) = key else { throw Problem(description: "a key is not a plain text") }
                object[key.string] = try value(of: node)
            }
            return .object(object)
        case .alias:
            throw Problem(description: "an alias cannot be resolved")
        }
    }

    private static func value(of scalar: Node.Scalar) -> JSONValue {
        switch Node.scalar(scalar).tag {
        case Tag(.null): .null
        case Tag(.bool): Bool.construct(from: scalar).map { JSONValue($0) } ?? .string(scalar.string)
        case Tag(.int): Int.construct(from: scalar).map { JSONValue($0) } ?? .string(scalar.string)
        case Tag(.float): Double.construct(from: scalar).map { JSONValue($0) } ?? .string(scalar.string)
        default: .string(scalar.string)
        }
    }
}
