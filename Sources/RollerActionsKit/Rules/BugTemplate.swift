// SPDX-License-Identifier: MPL-2.0

package import JSON

/// Bodies of bugs with `${variables}` in their texts.
package enum BugTemplate {
    /// A bug about a machine that no method could reboot.
    package static let reboot: JSONValue = [
        "product": "Infrastructure & Operations", "component": "DCOps", "version": "unspecified",
        "cc": "${cc}", "summary": "${hostname} is unreachable", "blocks": "${blocks}",
        "description": "Reboot ${hostname} ${ip}\nRequested by ${client_id}\n${task_name} failed: ${log}",
    ]

    /// The bug that collects the problems of one machine.
    package static let tracker: JSONValue = [
        "product": "Infrastructure & Operations", "component": "CIDuty", "version": "unspecified",
        "summary": "[${DC}] ${alias} problem tracking", "alias": "${alias}",
        "description": "Tracks the problems of ${hostname}",
    ]

    /// A template with its variables replaced, in the leaves only: no value can change the structure.
    ///
    /// Unknown variables stay as they are. The members `api_key` of old templates, and empty `cc` and `blocks`, are left out.
    package static func render(_ template: JSONValue, _ variables: [String: String]) -> JSONValue {
        switch template {
        case .string(let text): return JSONValue(substitute(text, variables))
        case .array(let items): return .array(items.map { render($0, variables) })
        case .object(let members):
            var result = JSONObject()
            for (key, value) in members where key != "api_key" {
                let value = render(value, variables)
                if ["cc", "blocks"].contains(key), value.string == "" || value.array == [] { continue }
                result[key] = value
            }
            return .object(result)
        default: return template
        }
    }

    private static func substitute(_ text: String, _ variables: [String: String]) -> String {
        var result = ""
        var rest = Substring(text)
        while let dollar = rest.firstIndex(of: "$") {
            result += rest[..<dollar]
            let after = rest[rest.index(after: dollar)...]
            var name = after.prefix { $0.isLetter || $0.isNumber || $0 == "_" }
            var end = name.endIndex
            if after.first == "{" {
                let inner = after.dropFirst()
                name = inner.prefix { $0 != "}" }
                end = name.endIndex < after.endIndex ? after.index(after: name.endIndex) : after.endIndex
            }
            if let value = variables[String(name)] {
                result += value
                rest = rest[end...]
            } else {
                result += "$"
                rest = after
            }
        }
        return result + rest
    }
}
