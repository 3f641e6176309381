// SPDX-License-Identifier: MPL-2.0

/// Decides from what is seen of a machine whether it has rebooted.
///
/// ```
/// waiting for it to go down ──3 echoes lost, or power off──► waiting for it to come back ──echo──► (same boot?) ──► rebooted
///        │ time over, or still the same boot                        │ time over
///        └► stays up                                                └► stays down
/// ```
/// A changed boot id settles it at any time: a quick machine is back before an echo is lost. Time is measured from the
/// moment the method was done.
struct RebootWatch: Hashable {
    /// What was known before.
    struct Mark: Hashable {
        var wasReachable: Bool
        var bootID: String?
    }

    /// Something seen.
    enum Sight: Hashable {
        case echo(Bool)
        case bootID(String)
        case power(PowerState)
    }

    /// What became of it.
    enum Verdict: Hashable {
        /// It rebooted; how we know.
        case rebooted(by: String)
        /// It did not go down; how we know.
        case staysUp(String)
        /// It went down and did not come back.
        case staysDown
    }

    private enum Phase: Hashable {
        case up(lost: Int)
        case down
        /// It answers again; the boot id would say whether it is the same boot.
        case back(since: Duration)
    }

    let mark: Mark
    let downTimeout: Duration
    let upTimeout: Duration
    private var phase: Phase
    /// When it was seen down; nil while it was not.
    private(set) var downAt: Duration?
    /// How long after its first echo a machine may take until it tells its boot id.
    private static let patience = Duration.seconds(60)
    private static let lostEchoes = 3

    init(_ mark: Mark, downTimeout: Duration, upTimeout: Duration) {
        self.mark = mark
        self.downTimeout = downTimeout
        self.upTimeout = upTimeout
        phase = mark.wasReachable ? .up(lost: 0) : .down
        downAt = mark.wasReachable ? nil : .zero
    }

    /// Whether a boot id is worth asking for.
    var wantsBootID: Bool { mark.bootID != nil && phase != .down }

    mutating func see(_ sight: Sight, at now: Duration) -> Verdict? {
        switch (phase, sight) {
        case (_, .bootID(let id)):
            if let before = mark.bootID, id != before { return .rebooted(by: "boot-id") }
            if case .back = phase, mark.bootID != nil { return .staysUp("it is still the same boot") }
        case (.up(let lost), .echo(false)):
            phase = .up(lost: lost + 1)
            if lost + 1 >= Self.lostEchoes { goDown(now) }
        case (.up, .echo(true)):
            phase = .up(lost: 0)
        case (.up, .power(.off)):
            goDown(now)
        case (.down, .echo(true)):
            guard mark.bootID != nil else { return .rebooted(by: "ping") }
            phase = .back(since: now)
        case (.back, .echo(false)):
            phase = .down
        case (.back(let since), .echo(true)):
            if now - since >= Self.patience { return .rebooted(by: "ping") }
        default:
            break
        }
        return timeVerdict(now)
    }

    private mutating func goDown(_ now: Duration) {
        phase = .down
        downAt = now
    }

    private func timeVerdict(_ now: Duration) -> Verdict? {
        switch phase {
        case .up: now >= downTimeout ? .staysUp("it did not go down") : nil
        case .down: now - (downAt ?? .zero) >= upTimeout ? .staysDown : nil
        case .back: nil
        }
    }
}
