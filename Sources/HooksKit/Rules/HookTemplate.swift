// SPDX-License-Identifier: MPL-2.0

package import JSON
package import JSONE
import Schedules

/// The languages a task template may be written in.
package enum TemplateLanguage: String, Sendable {
    case jsonE = "json-e"
    case parameterization = "json-parameterization"

    /// The language that the options of a hook declare.
    package init(options: JSONObject) {
        self = options["templateLanguage"]?.string.flatMap(Self.init(rawValue:)) ?? .jsonE
    }
}

/// A task template, read once and rendered for every fire.
package enum HookTemplate: Sendable {
    case jsonE(JSONETemplate)
    case parameterization(ParameterTemplate)

    /// Reads a template.
    package init(_ template: JSONValue, language: TemplateLanguage) throws(FireFailure) {
        switch language {
        case .parameterization:
            self = .parameterization(ParameterTemplate(template))
        case .jsonE:
            do { self = .jsonE(try JSONETemplate(template)) } catch {
                throw FireFailure(template: error.description, location: error.location)
            }
        }
    }

    /// Renders the template with names; `seed` is what generated ids depend on.
    func render(_ names: JSONObject, seed: String, now: Timestamp) throws(FireFailure) -> JSONValue {
        switch self {
        case .jsonE(let template):
            do { return try template.render(names, now: now) } catch {
                throw FireFailure(template: error.description, location: error.location)
            }
        case .parameterization(let template):
            do { return try template.render(names, seed: seed, now: now) } catch {
                throw FireFailure(template: error.description, location: error.location)
            }
        }
    }
}
