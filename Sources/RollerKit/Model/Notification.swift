// SPDX-License-Identifier: MPL-2.0

package import Core
import Expressions
package import Notices

/// A text for people, on its way to one place.
package struct Notification: Sendable, Hashable {
    /// How it gets there.
    package var channel: Notice.Channel
    /// The address, room, channel or URL.
    package var target: String
    package var subject: String
    package var body: String
    package var link: String?
    package var linkText: String?
    /// What is said only once has the same key every time.
    package var key: String
    package var job: String?
    package var machine: String?
    /// Whether it may be put together with others about the same machine when there are many.
    package var isCollapsible = true
}

/// Who is told what.
///
/// ## Configuration keys
/// - `NOTIFY_EMAIL`: an address that gets a mail about every job that ends.
/// - `NOTIFY_MATRIX_ROOM`, `NOTIFY_SLACK_CHANNEL`: where a line about every start and end goes, through the notify service.
/// - `NOTIFY_WEBHOOK_URL`, `NOTIFY_WEBHOOK_SECRET`: where the same goes as a signed JSON document.
/// - `NOTIFY_IRC_CHANNEL`: accepted and ignored, with a warning; the notify service speaks IRC no longer.
/// - `NOTIFY_READ_ONLY`: whether the requester gets a mail about jobs that only looked; default true.
/// - `CLIENT_ID_USER_REGEX`: finds a person's name in a client id, as group 2.
/// - `USER_EMAIL_TEMPLATE`: makes a mail address of the name, `{user}`.
package struct NotificationSettings: Sendable, Hashable {
    package var email: String?
    package var matrixRoom: String?
    package var slackChannel: String?
    package var webhookURL: String?
    package var mailsReadOnly = true
    private let userPattern = #"^mozilla(-auth0/ad\|Mozilla-LDAP\||-ldap\/)([^ @]+)(@mozilla\.com)?$"#
    package var userMail = "{user}@mozilla.com"
    /// Whether everything is said in the log as well.
    package var logs = true

    /// What `userPattern` means.
    private let userExpression: RegularExpression?

    package init() { userExpression = try? RegularExpression(userPattern) }

    package init(settings: Settings) {
        email = settings.optional("notify.email", "the address that gets a mail about every job that ends")
        matrixRoom = settings.optional("notify.matrix.room", "the Matrix room that jobs are announced in")
        slackChannel = settings.optional("notify.slack.channel", "the Slack channel that jobs are announced in")
        webhookURL = settings.url("notify.webhook.url", "the URL that jobs are announced to")
        mailsReadOnly = settings.bool(
            "notify.read.only",
            default: true,
            "whether requesters get a mail about jobs that only looked"
        )
        userExpression = settings.expression(
            "client.id.user.regex",
            default: userPattern,
            "finds a person's name in a client id, as group 2"
        )
        userMail = settings.string("user.email.template", default: userMail, "makes a mail address of {user}")
        if !userMail.contains("{user}") {
            settings.fail("user.email.template", "must contain {user}, or everybody's mail would go to one address")
        }
    }

    /// The person behind a client id, if it names one.
    package func user(_ clientID: String) -> String? {
        // What takes too long to tell names nobody.
        guard let groups = try? userExpression?.firstMatch(in: clientID)?.groups, groups.count > 2,
            let user = groups[2], !user.isEmpty
        else { return nil }
        return user
    }

    /// The address of the person behind a client id.
    package func address(_ clientID: String) -> String? {
        user(clientID).map { userMail.replacing("{user}", with: $0) }
    }
}
