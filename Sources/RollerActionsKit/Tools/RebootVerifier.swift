// SPDX-License-Identifier: MPL-2.0

import Core
import JSON
import RollerKit
import Synchronization

/// How long a machine may take to go down and to come back.
struct RebootLimits: Hashable {
    var down: Duration
    var up: Duration

    /// The limits of the machine, else those of the settings; a machine that boots slowly gets its time.
    init(_ target: ActionTarget, _ settings: ActionSettings) {
        func seconds(_ name: String) -> Duration? {
            target.properties[name]?.double.map { .milliseconds(Int64(min(max($0, 0), 7200) * 1000)) }
        }
        down = seconds("down_timeout") ?? settings.downTimeout
        up = max(seconds("up_timeout") ?? settings.upTimeout, target.bootTime ?? .zero)
    }
}

/// Watches a machine go down and come back.
struct RebootVerifier {
    let context: ActionContext
    let limits: RebootLimits

    /// What was found out.
    struct Finding: Hashable {
        /// `boot-id`, `ping`, `power`, or `none`.
        var evidence: String
        var seconds: Double?
        var isVerified: Bool
    }

    /// How the machine is to be watched.
    private enum Manner: String {
        case auto, none, power, ping, ssh
    }

    static let noEvidence = "nobody can say whether it rebooted"

    private var manner: Manner {
        context.target.properties["verify"]?.string.flatMap(Manner.init(rawValue:)) ?? .auto
    }

    /// What is known before a method is tried.
    func mark() async throws(ActionError) -> RebootWatch.Mark {
        guard manner == .auto || manner == .ping || manner == .ssh, hasAddress else {
            return RebootWatch.Mark(wasReachable: true, bootID: nil)
        }
        // One lost echo says nothing: a machine taken for down would only have to answer to have "come back".
        var answers = false
        for _ in 0..<3 where !answers { answers = try await self.answers() }
        return RebootWatch.Mark(wasReachable: answers, bootID: answers ? await bootID(tells: true) : nil)
    }

    /// Listens to the machine while a method is at it: a quick machine may be back before a slow method has ended.
    func listen() -> EchoMonitor? {
        guard manner == .auto || manner == .ping || manner == .ssh, hasAddress else { return nil }
        return EchoMonitor { try await answers() }
    }

    /// Watches until it is clear; throws what to write into the record when the machine did not reboot.
    func verify(
        _ mark: RebootWatch.Mark,
        method: String,
        heard: [Bool] = []
    ) async throws(ActionError) -> Finding {
        if manner == .none { return Finding(evidence: "none", isVerified: false) }
        try await context.conduct.beginVerifying()
        let number = try await context.conduct.begin("verify", control: method, arguments: [])
        do throws(ActionError) {
            let finding = manner == .power || !hasAddress ? try await watchPower() : try await watch(mark, heard)
            let summary = "the machine rebooted, says \(finding.evidence)"
            await context.conduct.end(number, AttemptEnd(.ok, summary: summary))
            return finding
        } catch {
            await context.conduct.end(
                number,
                AttemptEnd(error.outcome, errorClass: error.kind.name, summary: error.message)
            )
            throw error
        }
    }

    /// Machines are not always in DNS; without any name there is nothing to ping.
    private var hasAddress: Bool { context.target.address != nil || context.target.fqdn != nil }

    private func answers() async throws(ActionError) -> Bool {
        try await Pinger(tools: context.tools).answers(try context.target.host())
    }

    /// The machine's boot id; one that does not tell is watched by its echoes, and the log says why.
    private func bootID(tells: Bool = false) async -> String? {
        guard manner != .ping, let control = context.target.controls(.ssh).first else { return nil }
        do throws(ActionError) {
            return try await SSHClient(context: context, control: control).bootID()
        } catch {
            if tells {
                await context.conduct.note(
                    "boot-id",
                    ["unknown": JSONValue(context.tools.redactor.clean(error.message))]
                )
            }
            return nil
        }
    }

    private func watch(_ mark: RebootWatch.Mark, _ heard: [Bool]) async throws(ActionError) -> Finding {
        let clock = ContinuousClock()
        let start = clock.now
        var watch = RebootWatch(mark, downTimeout: limits.down, upTimeout: limits.up)
        for echo in heard {
            if let verdict = watch.see(.echo(echo), at: .zero) { return try finding(verdict, watch, .zero) }
        }
        var nextLook = Duration.zero
        while true {
            try await context.conduct.checkpoint()
            let round = clock.now
            let answers = try await answers()
            var verdict = watch.see(.echo(answers), at: clock.now - start)
            if verdict == nil, answers, watch.wantsBootID, clock.now - start >= nextLook, let id = await bootID() {
                verdict = watch.see(.bootID(id), at: clock.now - start)
                nextLook = clock.now - start + .seconds(2)
            }
            if let verdict { return try finding(verdict, watch, clock.now - start) }
            try await context.pause(max(.milliseconds(20), .seconds(1) - (clock.now - round)))
        }
    }

    private func finding(
        _ verdict: RebootWatch.Verdict,
        _ watch: RebootWatch,
        _ time: Duration
    ) throws(ActionError) -> Finding {
        switch verdict {
        case .rebooted(let evidence):
            return Finding(evidence: evidence, seconds: (time / .milliseconds(100)).rounded() / 10, isVerified: true)
        case .staysUp(let why):
            throw ActionError(.other, "the machine did not reboot: \(why)")
        case .staysDown:
            throw ActionError(
                .unreachable,
                "the machine went down and did not come back within \(limits.up.settingsText)"
            )
        }
    }

    /// A machine that cannot be pinged: its controller must show it off, then on.
    ///
    /// Where the inventory says that the controller's word is enough, `on` alone will do.
    private func watchPower() async throws(ActionError) -> Finding {
        guard let control = context.target.controls.first(where: { PowerAccess.readable.contains($0.kind) }) else {
            throw ActionError(.unverified, Self.noEvidence)
        }
        let access = PowerAccess(context: context, control: control)
        let end = ContinuousClock.now + limits.down
        var wasOff = manner == .power
        while ContinuousClock.now < end {
            try await context.conduct.checkpoint()
            let state = try await access.power()
            if state == .on, wasOff { return Finding(evidence: "power", isVerified: true) }
            if state == .off { wasOff = true }
            try await context.pause(.seconds(1))
        }
        throw ActionError(.unverified, Self.noEvidence)
    }
}

/// Collects echoes, one a second, until it is told to stop.
final class EchoMonitor: Sendable {
    private let task: Task<Void, Never>

    init(_ answers: @escaping @Sendable () async throws -> Bool) {
        let box = Box()
        // Ends when it is cancelled, which `stop` does.
        task = Task {
            while !Task.isCancelled {
                guard let answer = try? await answers(), !Task.isCancelled else { return }
                box.heard.withLock { $0.append(answer) }
                do { try await Task.sleep(for: .seconds(1)) } catch { return }
            }
        }
        self.box = box
    }

    private final class Box: Sendable {
        let heard = Mutex<[Bool]>([])
    }

    private let box: Box

    /// What was heard, in order.
    func stop() -> [Bool] {
        task.cancel()
        return box.heard.withLock { $0 }
    }
}
