// SPDX-License-Identifier: MPL-2.0

extension FireFailure {
    /// The kind of the failure in a few words: equal for failures of which the owner needs to be told once.
    var reason: String {
        switch kind {
        case .template: "template"
        case .network: "network"
        case .service(let method, let code, _): "\(method) \(code)"
        }
    }

    /// Whether the same call may succeed a little later.
    var isTransient: Bool {
        switch kind {
        case .template: false
        case .network: true
        case .service(_, _, let status): status >= 500 || status == 429 || status == 408
        }
    }
}
