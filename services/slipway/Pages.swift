// SPDX-License-Identifier: MPL-2.0

import JSON
import TaskclusterClient

extension TaskclusterClient {
    /// The first rows of a list that comes in pages, at most as many as asked for.
    func rows(
        _ service: String,
        _ path: [String],
        list: String,
        limit: Int,
        query: [(String, String)] = []
    ) async throws(TaskclusterError) -> [JSONValue] {
        var rows: [JSONValue] = []
        var token: String?
        repeat {
            var query = query + [("limit", String(min(limit - rows.count, 1000)))]
            if let token { query.append(("continuationToken", token)) }
            let page = try await call(service, "GET", path, query: query)
            rows += page[list]?.array ?? []
            token = page["continuationToken"]?.string
        } while token != nil && rows.count < limit
        return rows
    }

    /// Every row of a list that comes in pages.
    func all(
        _ service: String,
        _ path: [String],
        list: String,
        query: [(String, String)] = []
    ) async throws(TaskclusterError) -> [JSONValue] {
        var rows: [JSONValue] = []
        var token: String?
        repeat {
            let page = try await call(
                service,
                "GET",
                path,
                query: query + (token.map { [("continuationToken", $0)] } ?? [])
            )
            rows += page[list]?.array ?? []
            token = page["continuationToken"]?.string
        } while token != nil
        return rows
    }
}

/// Rows of words, lined up in columns.
enum Columns {
    /// One line for each row; `nothing` when there are none.
    static func text(_ rows: [[String]], nothing: String) -> String {
        guard let width = rows.map(\.count).max() else { return nothing }
        let widths = (0..<width).map { column in
            rows.map { $0.indices.contains(column) ? $0[column].count : 0 }.max() ?? 0
        }
        return rows.map { row in
            let cells = row.enumerated().map { column, word in
                column == row.count - 1 ? word : word + String(repeating: " ", count: widths[column] - word.count)
            }
            return cells.joined(separator: "  ")
        }.joined(separator: "\n")
    }
}
