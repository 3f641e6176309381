// SPDX-License-Identifier: MPL-2.0

import JSON
import Notices
import Schedules

/// Decides who is told of a job, and in which words.
package struct NotificationRules: Sendable {
    package let settings: NotificationSettings

    package init(_ settings: NotificationSettings) {
        self.settings = settings
    }

    /// What is said when a job was accepted: nothing about those that only look.
    func accepted(_ job: Job, machine: Machine?) -> [Notification] {
        guard !job.isReadOnly else { return [] }
        let user = settings.user(job.clientID) ?? job.clientID
        let text = "\(Self.subject(job, machine)) requested by \(user) ..."
        return chat(job, key: "accepted", subject: text, body: text)
    }

    /// Whether nothing is said of the end of a job whatever its machine.
    func isSilent(_ job: Job) -> Bool {
        Self.isQuiet(job) && (!settings.mailsReadOnly || settings.address(job.clientID) == nil)
    }

    private static func isQuiet(_ job: Job) -> Bool { job.isReadOnly && job.state == .succeeded }

    /// What is said when a job has ended.
    ///
    /// Only those who asked hear of work that went well and changed nothing; of failures everybody does.
    func ended(_ job: Job, machine: Machine?, summary: String) -> [Notification] {
        let subject = Self.subject(job, machine)
        let isQuiet = Self.isQuiet(job)
        let started = (job.started ?? job.created).iso8601
        var all: [Notification] = []
        var addresses: [String] = []
        if !isQuiet, let email = settings.email { addresses.append(email) }
        if !isQuiet || settings.mailsReadOnly, let own = settings.address(job.clientID), !addresses.contains(own) {
            addresses.append(own)
        }
        let link = Self.link(job)
        let verdict = "\(job.status.rawValue): \(summary)"
        for address in addresses {
            all.append(
                Notification(
                    channel: .email,
                    target: address,
                    subject: Self.cut(subject, to: 255),
                    body: Self.fenced(verdict) + "\n\n\(started): \(Self.plain(job.clientID))",
                    link: link,
                    linkText: link == nil ? nil : Self.cut(subject, to: 40),
                    key: "job:\(job.id):ended:email:\(address)",
                    job: job.id,
                    machine: job.machine
                )
            )
        }
        if !isQuiet {
            all += chat(job, key: "ended", subject: subject, body: "\(subject): \(verdict)")
        }
        return all
    }

    /// Something that must not wait for the end of a job, such as a host whose key has changed.
    func alert(_ job: Job, machine: Machine?, key: String, text: String) -> [Notification] {
        let subject = Self.subject(job, machine)
        var all = chat(job, key: "alert:\(key)", subject: subject, body: "\(subject): \(text)")
        if let email = settings.email {
            all.append(
                Notification(
                    channel: .email,
                    target: email,
                    subject: Self.cut(subject, to: 255),
                    body: Self.fenced(text),
                    link: nil,
                    linkText: nil,
                    key: "job:\(job.id):alert:\(key):email:\(email)",
                    job: job.id,
                    machine: job.machine,
                    isCollapsible: false
                )
            )
        }
        for index in all.indices { all[index].isCollapsible = false }
        return all
    }

    private func chat(_ job: Job, key: String, subject: String, body: String) -> [Notification] {
        var targets: [(Notice.Channel, String)] = []
        if let room = settings.matrixRoom { targets.append((.matrix, room)) }
        if let channel = settings.slackChannel { targets.append((.slack, channel)) }
        if let url = settings.webhookURL { targets.append((.webhook, url)) }
        if settings.logs { targets.append((.log, "log")) }
        return targets.map { channel, target in
            Notification(
                channel: channel,
                target: target,
                subject: Self.cut(subject, to: 255),
                body: Self.cut(Self.oneLine(body), to: 4000),
                link: nil,
                linkText: nil,
                key: "job:\(job.id):\(key):\(channel.rawValue):\(target)",
                job: job.id,
                machine: job.machine
            )
        }
    }

    // MARK: - Words

    /// Where, which worker, what: `MDC1 t-linux64-ms-001[10.0.0.1] reboot`.
    static func subject(_ job: Job, _ machine: Machine?) -> String {
        let place = dataCenter(machine).map { "\($0) " } ?? ""
        let address = machine?.ip.map { "[\($0)]" } ?? ""
        let trial = job.isDryRun ? " (dry run)" : ""
        return "\(place)\(job.worker.workerID)\(address) \(job.taskName)\(trial)"
    }

    /// The property `datacenter`, or the fourth label of the full name.
    static func dataCenter(_ machine: Machine?) -> String? {
        if let named = machine?.properties["datacenter"]?.string { return named }
        let labels = (machine?.fqdn ?? "").split(separator: ".")
        return labels.count > 3 ? labels[3].uppercased() : nil
    }

    /// The worker's page at the site whose button was pressed.
    static func link(_ job: Job) -> String? {
        guard let origin = job.origin, origin.hasPrefix("https://") || origin.hasPrefix("http://"),
            let provisioner = job.worker.provisionerID, let type = job.worker.workerType,
            let group = job.worker.workerGroup
        else { return nil }
        let url = "\(origin)/provisioners/\(provisioner)/worker-types/\(type)/workers/\(group)/\(job.worker.workerID)"
        return url.utf8.count <= 1024 && url.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F } ? url : nil
    }

    /// Text as a block that Markdown leaves alone.
    static func fenced(_ text: String) -> String {
        "```\n" + cut(text.replacing("```", with: "'''"), to: 60_000) + "\n```"
    }

    private static func plain(_ text: String) -> String { text.replacing("`", with: "'") }

    private static func oneLine(_ text: String) -> String {
        String(text.map { $0.isNewline ? "\t" : $0 })
    }

    static func cut(_ text: String, to count: Int) -> String {
        text.count <= count ? text : String(text.prefix(count - 1)) + "…"
    }
}
