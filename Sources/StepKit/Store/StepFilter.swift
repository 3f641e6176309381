// SPDX-License-Identifier: MPL-2.0

public import JSON
import Postgres
public import Schedules

/// Which steps a list shows.
public struct StepFilter: Sendable {
    /// States that are shown; empty shows all.
    public var states: Set<StepState> = []
    /// What names begin with.
    public var prefix: String?
    /// Shown are steps created later than this.
    public var createdAfter: Timestamp?
    /// Shown are steps created earlier than this.
    public var createdBefore: Timestamp?
    /// The pipeline that steps were created for.
    public var pipeline: String?
    /// Who created them.
    public var createdBy: String?
    /// Labels that all have to be there.
    public var labels: JSONObject = [:]

    /// Shows all.
    public init() {}

    var condition: SQL {
        var sql: SQL = ""
        if !states.isEmpty {
            if states.allSatisfy({ !$0.isTerminal }) {
                // The words of the partial index.
                sql += " and state in ('pending', 'starting', 'running', 'stopping')"
            }
            sql += " and state = any(\(states.map(\.rawValue).sorted()))"
        }
        if let prefix { sql += " and starts_with(uid, \(prefix))" }
        if let createdAfter { sql += " and created > \(createdAfter)" }
        if let createdBefore { sql += " and created < \(createdBefore)" }
        if let pipeline { sql += " and pipeline = \(pipeline)" }
        if let createdBy { sql += " and created_by = \(createdBy)" }
        if !labels.isEmpty { sql += " and labels @> \(JSONValue.object(labels))" }
        return sql
    }
}

/// The entity tags of an `If-Match` or `If-None-Match` field.
public struct EntityTags: Sendable, Hashable {
    private let tags: Set<String>

    /// Reads a field's value; nil if the field is absent.
    public init?(_ field: String?) {
        guard let field else { return nil }
        tags = Set(
            field.split(separator: ",").map { piece in
                var tag = piece.drop { $0 == " " }
                while tag.last == " " { tag.removeLast() }
                return String(tag.hasPrefix("W/") ? tag.dropFirst(2) : tag)
            }
        )
    }

    /// Whether a tag is among them; `*` stands for every tag.
    public func contains(_ tag: String) -> Bool {
        tags.contains("*") || tags.contains(tag)
    }
}
