// SPDX-License-Identifier: MPL-2.0

package import Core

/// The way in which letters leave.
package enum LetterSenders {
    /// The sender that the settings ask for: the notify service of the deployment.
    package static func sender(_ settings: Settings, _ foundation: HooksFoundation) throws -> any LetterSender {
        NotifySender(client: foundation.client)
    }
}
