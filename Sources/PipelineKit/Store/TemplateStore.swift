// SPDX-License-Identifier: MPL-2.0

import JSON
import Postgres
import Schedules
import StepKit

/// Pipelines to be: definitions with blanks that are filled in when one is made.
struct TemplateStore: Sendable {
    /// A template.
    struct Template: Sendable {
        var name: String
        var version: String
        /// What the parameters have to be like.
        var schema: JSONValue
        /// JSON-e.
        var definition: JSONValue

        var json: JSONObject {
            [
                "name": .string(name), "version": .string(version), "schema": schema, "definition": definition,
            ]
        }
    }

    let pool: PostgresPool
    let journal: Journal

    func find(_ name: String) async throws -> Template? {
        let row = try await pool.query("select * from shipit_pipeline.templates where name = \(name)").first
        guard let row else { return nil }
        return Template(
            name: try row.string("name"),
            version: try row.string("version"),
            schema: try row.json("schema"),
            definition: try row.json("definition")
        )
    }

    func list() async throws -> [JSONValue] {
        let rows = try await pool.query(
            "select name, version, created_by, updated from shipit_pipeline.templates order by name limit 1000"
        )
        return try rows.map { row in
            [
                "name": .string(try row.string("name")), "version": .string(try row.string("version")),
                "created_by": .string(try row.string("created_by")),
                "updated": .string(try row.timestamp("updated").iso8601),
            ]
        }
    }

    /// Stores a template, whose definition differs only if its version does.
    ///
    /// - Returns: Whether that was so.
    func save(_ template: Template, by actor: String, at now: Timestamp) async throws -> Bool {
        let digest = CanonicalJSON.digest(.object(template.json))
        let data: JSONObject = [
            "version": .string(template.version), "sha256": .string(Hexadecimal.encoded(digest)),
        ]
        return try await journal.changing(
            "template_saved",
            template.name,
            by: actor,
            data,
            """
            insert into shipit_pipeline.templates as old (name, version, schema, definition, created_by, updated)
            values (\(template.name), \(template.version), \(template.schema), \(template.definition), \(actor), \(now))
            on conflict (name) do update set version = excluded.version, schema = excluded.schema,
                definition = excluded.definition, created_by = excluded.created_by, updated = excluded.updated
            where old.version <> excluded.version or (old.schema::jsonb = excluded.schema::jsonb
                and old.definition::jsonb = excluded.definition::jsonb)
            """
        )
    }

    func delete(_ name: String, by actor: String) async throws -> Bool {
        try await journal.changing(
            "template_deleted",
            name,
            by: actor,
            [:],
            "delete from shipit_pipeline.templates where name = \(name)"
        )
    }
}
