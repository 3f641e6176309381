// SPDX-License-Identifier: MPL-2.0
public import JSON
import JSONE
public import Schedules

/// What may happen to a task that somebody may want to be told.
public enum TaskEvent: String, Sendable, Hashable, CaseIterable {
    case defined, pending, running, completed, failed, exception

    /// Whether the word after `on-` in a route means this event.
    func isMeant(by word: Substring) -> Bool {
        switch word {
        case "transition": true
        case "resolved", "any": self == .completed || self == .failed || self == .exception
        default: word == rawValue
        }
    }
}

/// A wish to be told about a task: a route of the form `notify.<way>.<address>.on-<event>`.
public struct NotificationWish: Sendable, Hashable {
    /// What every such route begins with.
    static let prefix = "notify."

    /// How to tell it.
    public let kind: NotificationKind
    /// Whom.
    public let address: String
    /// The word after `on-`.
    let word: Substring

    /// Reads a route; nil if it is no such wish.
    public init?(route: String) {
        guard route.hasPrefix(Self.prefix) else { return nil }
        let parts = route.split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count >= 4, let last = parts.last, last.hasPrefix("on-"),
            let kind = NotificationKind(rawValue: String(parts[1])), kind != .irc
        else { return nil }
        self.kind = kind
        address = parts[2..<(parts.count - 1)].joined(separator: ".")
        word = last.dropFirst(3)
        guard !address.isEmpty, kind != .email || address.contains("@") else { return nil }
    }

    /// The wishes that one event fulfils, each address once.
    public static func fulfilled(by event: TaskEvent, routes: [String]) -> [NotificationWish] {
        var seen: Set<[String]> = []
        return routes.compactMap { NotificationWish(route: $0) }.filter { wish in
            event.isMeant(by: wish.word) && seen.insert([wish.kind.rawValue, wish.address]).inserted
        }
    }
}

/// Words the notifications that tasks ask for.
///
/// A task may word them itself: below `extra.notify` there are JSON-e templates for each way, which see `task`,
/// `status`, `taskId` and `rootUrl`.
public struct TaskNotices: Sendable {
    private let task: JSONValue
    private let status: JSONValue
    private let taskID: String
    private let rootURL: String
    private let now: Timestamp

    /// Speaks about a task as it was when the event happened.
    public init(taskID: String, task: JSONValue, status: JSONValue, rootURL: String, now: Timestamp) {
        self.taskID = taskID
        self.task = task
        self.status = status
        self.rootURL = rootURL
        self.now = now
    }

    /// The notification that fulfils a wish.
    public func notification(for wish: NotificationWish, event: TaskEvent) -> Notification {
        let body =
            switch wish.kind {
            case .email: mail(to: wish.address, event)
            case .matrix: matrix(event)
            case .slack: slack(event)
            case .pulse, .irc: JSONValue.object(["message": status])
            }
        return Notification(kind: wish.kind, address: wish.address, body: body)
    }

    private var name: String { task["metadata"]?["name"]?.string ?? "" }
    private var href: String { "\(rootURL)/tasks/\(taskID)" }

    /// The event in words: "failed", or "exception (claim-expired)".
    private func outcome(_ event: TaskEvent) -> String {
        let reason = status["runs"]?.array?.last?["reasonResolved"]?.string
        return event == .exception && reason != nil ? "\(event.rawValue) (\(reason ?? ""))" : event.rawValue
    }

    private func mail(to address: String, _ event: TaskEvent) -> JSONValue {
        let wishes = task["extra"]?["notify"]?["email"]
        let runs = status["runs"]?.array?.count ?? 0
        var content = "Task `\(taskID)`, \(name), is \(outcome(event))."
        if runs > 1 { content += " This is run \(runs - 1)." }
        for (label, key) in [("Description", "description"), ("Owner", "owner"), ("Source", "source")] {
            if let text = task["metadata"]?[key]?.string, !text.isEmpty { content += "\n\n\(label): \(text)" }
        }
        var words = text(wishes?["content"], content, limit: Self.longestMail).string ?? ""
        var link: JSONValue = ["text": "Inspect the task", "href": JSONValue(href)]
        switch part(wishes?["link"], "link", isGood: { $0["href"]?.string != nil }) {
        case .good(let own): link = own
        case .bad(let reason): words = Self.joined(words, reason, limit: Self.longestMail)
        case .unwanted: break
        }
        return [
            "address": JSONValue(address),
            "subject": text(wishes?["subject"], "Task \(event.rawValue): \(name) - \(taskID)", limit: 255),
            "content": JSONValue(words),
            "link": link,
            "template": text(wishes?["template"], "simple", limit: 40),
        ]
    }

    private func matrix(_ event: TaskEvent) -> JSONValue {
        let wishes = task["extra"]?["notify"]
        var body: JSONValue = [
            "msgtype": wishes?["matrixMsgtype"] ?? "m.notice",
            "body": text(wishes?["matrixBody"], "\(name) is \(outcome(event)): \(href)", limit: Self.longestMessage),
        ]
        if let format = wishes?["matrixFormat"] { body["format"] = format }
        if let template = wishes?["matrixFormattedBody"] {
            body["formattedBody"] = text(template, "", limit: Self.longestMessage)
        }
        return body
    }

    private func slack(_ event: TaskEvent) -> JSONValue {
        let wishes = task["extra"]?["notify"]
        let standard = "<\(href)|\(name)> is \(outcome(event))"
        var words = text(wishes?["slackText"], standard, limit: Self.longestMessage).string ?? ""
        var body: JSONValue = [:]
        let isList = { (value: JSONValue) in value.array?.allSatisfy { $0.object != nil } ?? false }
        switch part(wishes?["slackBlocks"], "blocks", isGood: isList) {
        case .good(let blocks): body["blocks"] = blocks
        case .bad(let reason): words = Self.joined(words, reason, limit: Self.longestMessage)
        case .unwanted: break
        }
        switch part(wishes?["slackAttachments"], "attachments", isGood: isList) {
        case .good(let attachments): body["attachments"] = attachments
        // Where there are blocks the text is not shown, but attachments always are.
        case .bad(let reason): body["attachments"] = [["text": JSONValue(reason), "fallback": JSONValue(reason)]]
        case .unwanted: break
        }
        body["text"] = JSONValue(words)
        return body
    }

    private static let longestMail = 102_400
    private static let longestMessage = 32_000

    /// A text and, below it, what is wrong; of what gets too long the text is cut.
    private static func joined(_ text: String, _ reason: String, limit: Int) -> String {
        let tail = "\n\n\(reason)"
        return text.prefix(max(0, limit - tail.count)) + tail
    }

    /// What a template says, or the text that is used without one; a template that fails tells why in its place.
    private func text(_ template: JSONValue?, _ standard: String, limit: Int) -> JSONValue {
        guard let template, !template.isNull else { return JSONValue(String(standard.prefix(limit))) }
        do {
            let value = try JSONE.render(template, context: context, now: now)
            return JSONValue(String((value.string ?? value.text()).prefix(limit)))
        } catch {
            return JSONValue(String("The task's own words cannot be read: \(error)".prefix(limit)))
        }
    }

    /// What became of a template that makes more than text.
    private enum Part {
        case unwanted
        case good(JSONValue)
        case bad(String)
    }

    /// What a template makes, or in words why it cannot be used.
    private func part(_ template: JSONValue?, _ what: String, isGood: (JSONValue) -> Bool) -> Part {
        guard let template, !template.isNull else { return .unwanted }
        do {
            let value = try JSONE.render(template, context: context, now: now)
            return isGood(value)
                ? .good(value) : .bad("The task's own \(what) cannot be used: the form is not the right one")
        } catch {
            return .bad(String("The task's own \(what) cannot be read: \(error)".prefix(1000)))
        }
    }

    private var context: JSONObject {
        ["task": task, "status": status, "taskId": JSONValue(taskID), "rootUrl": JSONValue(rootURL)]
    }
}
