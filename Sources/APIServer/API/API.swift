// SPDX-License-Identifier: MPL-2.0

/// One versioned API of a service: what it is called, and the endpoints it answers under `/api/<service>/<version>`.
///
/// Everything else follows from this value: routing, authorisation, validation, metric labels, and the reference
/// documents that clients are generated from. `ping` and the three health endpoints are added to every API.
public struct API: Sendable {
    /// The name in paths, such as `purge-cache`.
    public let service: String
    /// The version in paths, such as `v1`.
    public let version: String
    /// A short human title.
    public let title: String
    /// Markdown for the reference document.
    public let description: String
    /// Where this API's schemas are read from.
    public let schemas: SchemaStore
    /// The endpoints, in the order of the reference document.
    public let endpoints: [Endpoint]
    /// The exchanges this service publishes on; empty means no exchanges reference is served.
    public let exchanges: [ExchangeReference]
    /// Title and description of the exchanges reference, when they differ from the API's.
    public let exchangesTitle: String?
    /// Where the paths begin.
    public let mount: Mount
    /// What refusals look like.
    public let errors: ErrorShape

    /// Where the paths of an API begin.
    public enum Mount: Sendable, Hashable {
        /// At `/api/<service>/<version>`, with reference documents.
        case versioned
        /// At the server's root, behind the paths that every server has; without reference documents.
        case root
    }

    /// What the body of a refusal looks like.
    public enum ErrorShape: Sendable, Hashable {
        /// As Taskcluster's clients expect it.
        case taskcluster
        /// A problem document of RFC 7807, with the error's name in `code`.
        case problem
    }

    /// Declares an API.
    public init(
        service: String,
        version: String = "v1",
        title: String,
        description: String,
        schemas: SchemaStore,
        endpoints: [Endpoint],
        exchanges: [ExchangeReference] = [],
        exchangesTitle: String? = nil,
        mount: Mount = .versioned,
        errors: ErrorShape = .taskcluster
    ) {
        self.service = service
        self.version = version
        self.title = title
        self.description = description
        self.schemas = schemas
        self.endpoints = endpoints
        self.exchanges = exchanges
        self.exchangesTitle = exchangesTitle
        self.mount = mount
        self.errors = errors
    }
}

extension API {
    /// The same API with more endpoints at its end.
    func adding(_ more: [Endpoint]) -> API {
        API(
            service: service,
            version: version,
            title: title,
            description: description,
            schemas: schemas,
            endpoints: endpoints + more,
            exchanges: exchanges,
            exchangesTitle: exchangesTitle,
            mount: mount,
            errors: errors
        )
    }
}

/// The request methods an endpoint can be declared with.
public enum HTTPMethodName: String, Sendable, Hashable, CaseIterable {
    case get = "GET"
    case head = "HEAD"
    case post = "POST"
    case put = "PUT"
    case patch = "PATCH"
    case delete = "DELETE"
}

/// How much a client may rely on an endpoint.
public enum Stability: String, Sendable {
    case stable
    case experimental
    case deprecated
}

/// One topic exchange of a service, as told to clients in `exchanges.json`.
public struct ExchangeReference: Sendable {
    /// One word, or one run of words, of a routing key.
    public struct Key: Sendable {
        /// The name clients use in routing key patterns.
        public let name: String
        /// What the entry says.
        public let summary: String
        /// The fixed text of the entry, if it never varies.
        public let constant: String?
        /// Whether the entry may hold dots.
        public let multipleWords: Bool
        /// Whether the entry is always set; an unset one is sent as `_`.
        public let required: Bool

        /// Declares an entry of a routing key.
        public init(
            _ name: String,
            summary: String,
            constant: String? = nil,
            multipleWords: Bool = false,
            required: Bool = true
        ) {
            self.name = name
            self.summary = summary
            self.constant = constant
            self.multipleWords = multipleWords
            self.required = required
        }
    }

    /// The last part of the exchange's name on the broker.
    public let exchange: String
    /// The name of the method in clients, such as `taskPending`.
    public let name: String
    /// A short human title.
    public let title: String
    /// Markdown for the reference document.
    public let description: String
    /// The routing key, entry by entry.
    public let routingKey: [Key]
    /// The schema of the messages, such as `v1/task-pending-message.json`.
    public let schema: String

    /// Declares an exchange.
    public init(
        exchange: String,
        name: String,
        title: String,
        description: String,
        routingKey: [Key],
        schema: String
    ) {
        self.exchange = exchange
        self.name = name
        self.title = title
        self.description = description
        self.routingKey = routingKey
        self.schema = schema
    }
}
