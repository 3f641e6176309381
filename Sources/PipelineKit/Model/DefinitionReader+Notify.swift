// SPDX-License-Identifier: MPL-2.0

import JSON

extension DefinitionReader {
    /// Who is told of what.
    mutating func notifyRules(_ json: JSONValue?) -> [NotifyRule] {
        guard let json else { return [] }
        guard let list = json.array, list.count <= 50 else {
            fail("notify", "type", "notify has to be a list of up to 50 rules")
            return []
        }
        return list.enumerated().compactMap { notifyRule($1, "notify[\($0)]") }
    }

    private mutating func notifyRule(_ json: JSONValue, _ path: String) -> NotifyRule? {
        guard let object = json.object else {
            fail(path, "type", "\(path) has to be an object")
            return nil
        }
        allowOnly(object, ["on", "type", "target", "every_s", "digest_s"], path)
        let words = strings(object, "on", path)
        let events = words.compactMap { NotifyRule.shortWords[$0] ?? NotifyRule.Event(rawValue: $0) }
        if words.isEmpty || events.count < words.count {
            let known = NotifyRule.Event.allCases.map(\.rawValue).joined(separator: ", ")
            fail("\(path).on", "value", "\(path).on has to be of \(known)")
        }
        let target = text(object, "target", path) ?? ""
        guard let channel = text(object, "type", path).flatMap(NotifyRule.Channel.init(rawValue:)) else {
            fail("\(path).type", "value", "\(path).type has to be email, matrix, slack, pulse or webhook")
            return nil
        }
        if let problem = problem(with: target, channel) {
            fail("\(path).target", "value", "\(path).target \(problem)")
        }
        let interval = int(object, "every_s", path, 60...2_592_000)
        let digest = int(object, "digest_s", path, 1...604_800)
        if digest != nil, channel == .pulse || channel == .webhook {
            fail("\(path).digest_s", "value", "\(path).digest_s is for people; \(channel.rawValue) is told each thing")
        }
        return NotifyRule(
            events: events,
            channel: channel,
            target: target,
            interval: interval ?? 86_400,
            digest: digest
        )
    }

    private func problem(with target: String, _ channel: NotifyRule.Channel) -> String? {
        guard (1...2000).contains(target.utf8.count), target.utf8.allSatisfy({ $0 > 32 && $0 != 127 }) else {
            return "has to name a recipient"
        }
        switch channel {
        case .email:
            return NotifyRule.isAddress(target) ? nil : "has to be an address"
        case .pulse:
            let isWord = target.utf8.count <= 100 && target.utf8.allSatisfy { $0 < 127 && $0 != UInt8(ascii: "#") }
            return isWord ? nil : "has to be the last words of a routing key"
        case .webhook:
            // A definition that was checked before is not checked against addresses of today.
            guard services != nil else { return nil }
            return ServiceAddress.problem(target, allowed: webhooks)?.message
        case .matrix, .slack:
            return nil
        }
    }
}
