// SPDX-License-Identifier: MPL-2.0

import CLibPQ
import Core

/// What libpq is told when it connects.
enum ConnectionParameters {
    /// What is wrong with a connection string, without repeating its password.
    static func problem(in url: String) -> String? {
        var message: UnsafeMutablePointer<CChar>?
        guard let options = PQconninfoParse(url, &message) else {
            defer { PQfreemem(message) }
            // libpq quotes the string in its message: show only what follows the last colon when that is safe.
            return url.contains("://") ? "it cannot be parsed" : "it must begin with postgres://"
        }
        PQconninfoFree(options)
        return nil
    }

    /// Keyword and value pairs; the connection string wins where both say something.
    static func pairs(_ configuration: PostgresConfiguration) -> [(String, String)] {
        let timeout = configuration.statementTimeout.milliseconds
        var settings = "-c statement_timeout=\(timeout) -c idle_in_transaction_session_timeout=60000"
        settings += " -c client_connection_check_interval=1000 -c timezone=UTC -c datestyle=ISO"
        settings += " -c intervalstyle=postgres -c bytea_output=hex -c client_min_messages=warning"
        // Prepared plans outlive the size of the tables they were made for: look-ups by key must win even on small ones.
        settings += " -c random_page_cost=1.1 -c jit=off"
        if configuration.looksUpByKey {
            settings += " -c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off"
        }
        if let own = option("options", in: configuration.url) { settings += " " + own }
        return [
            ("client_encoding", "UTF8"), ("keepalives", "1"), ("keepalives_idle", "30"), ("keepalives_interval", "10"),
            ("keepalives_count", "3"), ("tcp_user_timeout", "30000"), ("dbname", configuration.url),
            ("fallback_application_name", configuration.applicationName), ("options", settings),
        ]
    }

    private static func option(_ keyword: String, in url: String) -> String? {
        guard let options = PQconninfoParse(url, nil) else { return nil }
        defer { PQconninfoFree(options) }
        var option = options
        while let name = option.pointee.keyword {
            if String(cString: name) == keyword { return option.pointee.val.map { String(cString: $0) } }
            option += 1
        }
        return nil
    }
}
