// SPDX-License-Identifier: MPL-2.0

package import Core
package import HTTPClient
package import Schedules
package import TaskclusterClient

/// A letter to a person.
package struct Letter: Sendable, Hashable {
    package let address: String
    package let subject: String
    /// Markdown.
    package let text: String
    /// When there was something to write about.
    package let date: Timestamp
    /// The same whenever the same letter is sent again, and different for every other.
    package let id: String
}

/// A way in which letters leave.
package protocol LetterSender: Sendable {
    /// Sends a letter, or says why it cannot go.
    func send(_ letter: Letter) async throws(LetterError)
}

/// Why a letter did not go.
package struct LetterError: Error, Sendable, CustomStringConvertible {
    package let description: String
    /// Whether the same letter may go later.
    package let isTransient: Bool
}

/// Sends letters through the notify service of the deployment.
package struct NotifySender: LetterSender {
    let client: TaskclusterClient

    package init(client: TaskclusterClient) {
        self.client = client
    }

    package func send(_ letter: Letter) async throws(LetterError) {
        do {
            try await client.notify.email(to: letter.address, subject: letter.subject, content: letter.text)
        } catch {
            throw LetterError(description: "\(error.code): \(error.message)", isTransient: error.isRetriable)
        }
    }
}

/// Which way letters leave.
package enum LetterSenders {
    /// The mail server that the settings name, or else the notify service.
    package static func sender(
        _ settings: Settings,
        client: TaskclusterClient,
        transport: CurlTransport
    ) -> any LetterSender {
        let url = settings.optional("smtp.url", "a mail server for letters to owners, as smtp://host:port or smtps://…")
        let user = settings.optional("smtp.user", "the account at the mail server")
        let password = settings.optional("smtp.password", secret: true, "the account's password")
        let requiresTLS = settings.bool("smtp.tls", default: true, "say nothing before the connection is encrypted")
        let authorities = settings.path(
            "smtp.ca.file",
            "a PEM file of the authorities that may vouch for the mail server"
        )
        let from = settings.string("mail.from", default: "hooks@localhost", "the address that letters come from")
        guard let url else { return NotifySender(client: client) }
        if !["smtp://", "smtps://"].contains(where: url.hasPrefix) || url.contains("@") {
            settings.fail("smtp.url", "must begin with smtp:// or smtps:// and name no account")
        }
        if password != nil, !requiresTLS, url.hasPrefix("smtp://") {
            settings.fail("smtp.tls", "cannot be off when there is a password")
        }
        return SMTPSender(
            transport: transport,
            server: MailServer(
                url: url,
                requiresTLS: requiresTLS,
                user: user,
                password: password,
                authorities: authorities
            ),
            from: from
        )
    }
}
