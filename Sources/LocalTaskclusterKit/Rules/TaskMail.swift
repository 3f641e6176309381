// SPDX-License-Identifier: MPL-2.0
import JSON

/// The mails that a task asks for by routes of the form `notify.email.<address>.on-<event>`.
public enum TaskMail {
    /// The mails due now that a task has been resolved.
    ///
    /// Exceptions for one of the quiet reasons are what somebody wanted, so nobody is told.
    public static func notifications(
        routes: [String],
        taskID: String,
        name: String,
        state: String,
        reason: String?,
        link: String,
        quiet: Set<String> = ["canceled"]
    ) -> [Notification] {
        if state == "exception", let reason, quiet.contains(reason) { return [] }
        let events: Set<Substring> = ["on-\(state)"[...], "on-resolved", "on-any", "on-transition"]
        var addresses: [String] = []
        for route in routes where route.hasPrefix("notify.email.") {
            let rest = route.dropFirst("notify.email.".count)
            guard let dot = rest.lastIndex(of: "."), events.contains(rest[rest.index(after: dot)...]) else { continue }
            let address = String(rest[..<dot])
            if address.contains("@"), !addresses.contains(address) { addresses.append(address) }
        }
        return addresses.map { address in
            let outcome = reason.flatMap { $0 == state ? nil : " (\($0))" } ?? ""
            return Notification(
                kind: .email,
                address: address,
                body: [
                    "address": JSONValue(address),
                    "subject": JSONValue(String("Task \(state): \(name) - \(taskID)".prefix(255))),
                    "content": JSONValue("Task `\(taskID)`, \(name), is \(state)\(outcome)."),
                    "link": ["text": "Inspect the task", "href": JSONValue(link)], "template": "simple",
                ]
            )
        }
    }
}
