// SPDX-License-Identifier: MPL-2.0

import CoreMetrics
import Taskcluster

/// An endpoint with everything about it that can be known before a request comes.
struct Route: Sendable {
    let api: API
    let endpoint: Endpoint
    let pattern: RoutePattern
    /// Whether the route's parameters are all that the scopes mention.
    let authorizesFirst: Bool
    let metrics: RequestMetrics

    init(_ endpoint: Endpoint, of api: API) {
        self.api = api
        self.endpoint = endpoint
        let pattern = RoutePattern(endpoint.route)
        self.pattern = pattern
        if case .automatic = endpoint.authorization, let scopes = endpoint.scopes {
            authorizesFirst = scopes.parameters.isSubset(of: pattern.names)
        } else {
            authorizesFirst = false
        }
        metrics = RequestMetrics(service: api.service, name: endpoint.name, method: endpoint.method.rawValue)
    }
}

/// All routes of a server, found by service, version and the first word of the path below them.
struct RouteTable: Sendable {
    enum Match {
        case route(Route, captures: [(name: String, raw: Substring)])
        /// The path exists, for other methods.
        case methods(Set<String>)
        case none
    }

    private var routes: [String: [String: [Route]]] = [:]
    private var mounted: [String: [Route]]?
    private var named: [String: Route] = [:]

    init(_ apis: [API]) {
        for api in apis {
            var buckets: [String: [Route]] = [:]
            for endpoint in api.endpoints {
                let route = Route(endpoint, of: api)
                var key = ""
                if case .literal(let word)? = route.pattern.segments.first { key = word }
                named["\(api.service)/\(api.version)/\(endpoint.name)"] = route
                buckets[key, default: []].append(route)
            }
            for key in buckets.keys {
                // Sorting has to keep the declared order of routes that say equally much.
                let sorted = buckets[key, default: []].enumerated().sorted { left, right in
                    if left.element.pattern.precedes(right.element.pattern) { return true }
                    if right.element.pattern.precedes(left.element.pattern) { return false }
                    return left.offset < right.offset
                }
                buckets[key] = sorted.map(\.element)
            }
            switch api.mount {
            case .versioned: routes["\(api.service)/\(api.version)"] = buckets
            case .root: mounted = buckets
            }
        }
    }

    /// The route of an API's method.
    func route(named name: String, of api: API) -> Route? { named["\(api.service)/\(api.version)/\(name)"] }

    /// What refusals look like below the server's root.
    var mountedErrors: API.ErrorShape? { mounted?.values.lazy.compactMap(\.first).first?.api.errors }

    /// Finds the route of a path among those mounted at the server's root.
    func findMounted(_ method: String, _ path: ArraySlice<Substring>) -> Match {
        guard let mounted, let first = path.first else { return .none }
        return Self.find(method, path, first, mounted, reportsMethods: true)
    }

    /// Finds the route of a path that was split on its slashes and begins `api`, service, version.
    func find(_ method: String, _ path: ArraySlice<Substring>) -> Match {
        guard path.count > 3 else { return .none }
        let start = path.startIndex
        guard let buckets = routes["\(path[start + 1])/\(path[start + 2])"] else { return .none }
        let rest = path[(start + 3)...]
        return Self.find(method, rest, path[start + 3], buckets, reportsMethods: method == "OPTIONS")
    }

    private static func find(
        _ method: String,
        _ rest: ArraySlice<Substring>,
        _ first: Substring,
        _ buckets: [String: [Route]],
        reportsMethods: Bool
    ) -> Match {
        let wanted = method == "HEAD" ? "GET" : method
        var others: Set<String> = []
        for key in [first, ""] {
            for route in buckets[String(key)] ?? [] {
                let isWanted = route.endpoint.method.rawValue == wanted
                guard isWanted || reportsMethods, let captures = route.pattern.match(rest) else { continue }
                if isWanted { return .route(route, captures: captures) }
                others.insert(route.endpoint.method.rawValue)
            }
            if key.isEmpty { break }
        }
        return others.isEmpty ? .none : .methods(others)
    }
}
