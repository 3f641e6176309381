// SPDX-License-Identifier: MPL-2.0

import JSON
import Schedules
import StepKit

/// One member of an object each, with what is wrong with it.
extension DefinitionReader {
    mutating func allowOnly(_ object: JSONObject, _ names: Set<String>, _ path: String) {
        for key in object.keys where !names.contains(key) {
            let place = path.isEmpty ? key : "\(path).\(key)"
            fail(place, "unknown_member", "\(place) is not known")
        }
    }

    mutating func member<Value>(
        _ object: JSONObject,
        _ name: String,
        _ path: String,
        _ what: String,
        _ read: (JSONValue) -> Value?
    ) -> Value? {
        guard let json = object[name] else { return nil }
        if let value = read(json) { return value }
        let place = path.isEmpty ? name : "\(path).\(name)"
        fail(place, "value", "\(place) has to be \(what)")
        return nil
    }

    mutating func text(_ object: JSONObject, _ name: String, _ path: String) -> String? {
        member(object, name, path, "text", \.string)
    }

    mutating func bool(_ object: JSONObject, _ name: String, _ path: String) -> Bool? {
        member(object, name, path, "true or false", \.bool)
    }

    mutating func moment(_ object: JSONObject, _ name: String, _ path: String) -> Timestamp? {
        member(object, name, path, "a date and time") { $0.string.flatMap { Timestamp($0) } }
    }

    mutating func int(
        _ object: JSONObject,
        _ name: String,
        _ path: String,
        _ range: ClosedRange<Int>
    ) -> Int? {
        member(object, name, path, "\(range.lowerBound) to \(range.upperBound)") { json in
            json.int.flatMap { range.contains($0) ? $0 : nil }
        }
    }

    mutating func word<Value>(
        _ object: JSONObject,
        _ name: String,
        _ path: String,
        _ read: (String) -> Value?
    ) -> Value? {
        member(object, name, path, "one of the known words") { $0.string.flatMap(read) }
    }

    mutating func choice(
        _ object: JSONObject,
        _ name: String,
        _ path: String,
        no: String,
        yes: String
    ) -> Bool {
        word(object, name, path) { $0 == yes ? true : $0 == no ? false : nil } ?? false
    }

    mutating func strings(_ object: JSONObject, _ name: String, _ path: String) -> [String] {
        member(object, name, path, "a list of texts") { json -> [String]? in
            guard let list = json.array, list.allSatisfy({ $0.string?.isEmpty == false }) else { return nil }
            return list.compactMap(\.string)
        } ?? []
    }
}
