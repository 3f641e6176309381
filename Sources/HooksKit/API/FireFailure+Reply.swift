// SPDX-License-Identifier: MPL-2.0

import APIServer
import JSON

extension FireFailure {
    /// What a caller who triggered the hook is answered.
    func reply(for name: HookName) -> APIError {
        switch kind {
        case .service("createTask", "InsufficientScopes", _):
            APIError(
                .insufficientScopes,
                "The role `\(name.role)` does not have sufficient scopes to create the task:\n\n{{cause}}",
                details: ["cause": JSONValue(message)]
            )
        case .service(let method, let code, _):
            APIError(
                .inputError,
                "While calling \(method): \(code)\n\n{{cause}}",
                details: ["cause": JSONValue(message)]
            )
        case .template, .network:
            APIError(.inputError, "While firing hook:\n\n{{cause}}", details: ["cause": JSONValue(message)])
        }
    }
}
