// SPDX-License-Identifier: MPL-2.0

import JSON
import Pulse

/// The messages about Mercurial repositories.
enum PushMessages {
    /// The message about a push, with the routing key `push.<repository>`.
    ///
    /// Its member `payload` has the shape of the messages that Mozilla's Mercurial server publishes about pushes.
    static func push(_ push: Pushlog.Push, of repository: HgRepository, exchange: String) -> PulseMessage {
        let link = "\(repository.url)/json-pushes?version=2&startID=\(push.id - 1)&endID=\(push.id)"
        let heads = push.nodes.suffix(1).map { JSONValue.string($0) }
        let payload: JSONValue = [
            "version": 1,
            "source": "hg",
            "event": "push",
            "eventId": .string("\(repository.name):\(push.id)"),
            "repository": .string(repository.name),
            "push": [
                "id": JSONValue(push.id),
                "user": .string(push.user),
                "date": .string(push.date.iso8601),
                "changesets": .array(push.changesets),
            ],
            "payload": [
                "type": "changegroup.1",
                "data": [
                    "repo_url": .string(repository.url),
                    "heads": .array(heads),
                    "source": "pushlog",
                    "pushlog_pushes": [
                        [
                            "pushid": JSONValue(push.id),
                            "time": JSONValue(Int(push.date.milliseconds / 1000)),
                            "user": .string(push.user),
                            "push_json_url": .string(link),
                            "push_full_json_url": .string(link + "&full=1"),
                        ]
                    ],
                ],
            ],
        ]
        return PulseMessage(
            exchange: exchange,
            routingKey: RoutingWords.key(["push", repository.name]),
            payload: payload
        )
    }

    /// The message about a repository that was made anew, with the routing key `reset.<repository>`.
    static func reset(of repository: HgRepository, from old: Int, to new: Int, exchange: String) -> PulseMessage {
        PulseMessage(
            exchange: exchange,
            routingKey: RoutingWords.key(["reset", repository.name]),
            payload: [
                "version": 1,
                "source": "hg",
                "event": "reset",
                "eventId": .string("\(repository.name):\(old)-\(new)"),
                "repository": .string(repository.name),
                "url": .string(repository.url),
                "lastPushId": JSONValue(new),
                "previousPushId": JSONValue(old),
            ]
        )
    }
}
