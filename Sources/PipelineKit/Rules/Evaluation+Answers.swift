// SPDX-License-Identifier: MPL-2.0

import JSON
import Schedules
import StepKit

/// What services said.
extension Evaluation {
    /// Takes in what calls came to; what belongs to an earlier attempt is ignored.
    mutating func apply(_ observations: [Observation]) {
        for observation in observations {
            guard let run = steps[observation.step], run.attempt == observation.attempt else { continue }
            guard run.state.isRemote else {
                regressed(observation.result, run)
                continue
            }
            apply(observation.result, run)
            // There was news while the call was under way, and the answer may be older than that.
            if run.hints != observation.hints, steps[run.uid]?.state.isRemote == true { steps[run.uid]?.nextCall = now }
        }
    }

    private mutating func apply(_ result: Observation.Result, _ run: StepRun) {
        let uid = run.uid
        switch result {
        case .accepted:
            answered(uid)
            guard run.state == .starting else { return }
            move(uid, .running, "")
            steps[uid]?.nextCall = now + .milliseconds(250)
        case .refused(let text):
            end(uid, run.ending ?? .exception, text)
        case .unreachable(let text, let pause):
            missed(uid, text, pause)
        case .unknown:
            vanish(uid)
        case .status(.garbage(let text)):
            missed(uid, text, nil)
        case .status(.known(let state, let message, let output, let info, let updated)):
            answered(uid)
            if state.isTerminal {
                steps[uid]?.remoteEnded = true
                steps[uid]?.remoteUpdated = updated
            }
            take(state, message, output, info, run)
        case .stopped:
            answered(uid)
            steps[uid]?.stopTold = true
            steps[uid]?.nextCall = now
        }
    }

    private mutating func take(
        _ state: RunState,
        _ message: String,
        _ output: JSONObject,
        _ info: JSONObject,
        _ run: StepRun
    ) {
        let uid = run.uid
        steps[uid]?.remoteInfo = info
        guard state.isTerminal else {
            if run.state == .starting { move(uid, .running, message) }
            // Why a step is stopped is known here, and stays what is told of it.
            if run.state != .stopping { steps[uid]?.message = message }
            schedulePoll(uid)
            return
        }
        steps[uid]?.output = output
        if run.state == .stopping, let ending = run.ending, ending == .exception || state == .cancelled {
            move(uid, ending, run.message)
        } else {
            end(uid, state, message)
        }
    }

    /// Notes, once, that a service says of a step to go on that it had said to have ended; nothing else follows from it.
    mutating func regressed(_ result: Observation.Result, _ run: StepRun) {
        guard case .status(.known(let state, let message, _, _, _)) = result, !state.isTerminal, run.remoteEnded,
            !run.regressTold
        else { return }
        steps[run.uid]?.regressTold = true
        var data: JSONObject = ["state": .string(run.state.rawValue), "attempt": JSONValue(run.attempt)]
        if !message.isEmpty { data["message"] = .string(message) }
        note("remote_regressed", run.uid, data)
    }

    private mutating func answered(_ uid: String) {
        guard let run = steps[uid] else { return }
        if run.unreachableTold { note("reachable", uid) }
        steps[uid]?.failures = 0
        steps[uid]?.unreachableSince = nil
        steps[uid]?.unreachableTold = false
        steps[uid]?.vanished = 0
        steps[uid]?.vanishedSince = nil
    }

    /// Asks again after a while: soon where nobody else would tell of the step, later where its service tells by itself.
    private mutating func schedulePoll(_ uid: String) {
        guard var run = steps[uid] else { return }
        let age = now - (run.started ?? run.intended ?? now)
        // People take their time, and their service was made to tell.
        let longest = Duration.seconds(run.remoteInfo["missing"] == nil ? 30 : 60)
        if run.hints > 0 {
            run.pollInterval = min(run.pollInterval * 2, longest)
        } else if age >= .seconds(30) {
            run.pollInterval = min(run.pollInterval * 1.5, longest)
        }
        // Nobody's questions shall come at the same moment as everybody else's.
        let spread = Double(80 + (run.position &* 37 &+ run.attempt &* 11 &+ Int(now.milliseconds % 41)) % 41) / 100
        var next = now + run.pollInterval * spread
        // What is not urgent comes in bunches, which cost less.
        if run.pollInterval >= .seconds(10) { next = Timestamp(milliseconds: (next.milliseconds / 1000 + 1) * 1000) }
        run.nextCall = next
        steps[uid] = run
    }

    private mutating func missed(_ uid: String, _ text: String, _ pause: Duration?) {
        guard var run = steps[uid] else { return }
        run.failures += 1
        if run.state != .stopping { run.message = text }
        let since = run.unreachableSince ?? now
        run.unreachableSince = since
        let backoff = min(Duration.seconds(1 << min(run.failures - 1, 6)), .seconds(60))
        // Whoever was sent away together shall not come back together.
        let spread = 1 + Double((run.position &* 37 &+ run.failures &* 11 &+ Int(now.milliseconds % 41)) % 41) / 160
        run.nextCall = now + min(max(pause ?? .zero, backoff * spread), .seconds(300))
        let isNews = !run.unreachableTold && now - since >= .seconds(300)
        if isNews { run.unreachableTold = true }
        steps[uid] = run
        if isNews { note("unreachable", uid, ["message": .string(text)]) }
        if run.state == .stopping, let ending = run.ending, now - (run.stopSince ?? now) >= .seconds(60) {
            let reason = run.message.isEmpty ? "stopped" : run.message
            move(uid, ending, "\(reason); given up while its service could not be reached")
        } else if specifications[uid]?.failsUnreachable == true, run.failures >= 10, now - since >= .seconds(1800) {
            end(uid, .exception, "unreachable: \(text)")
        }
    }

    private mutating func vanish(_ uid: String) {
        guard var run = steps[uid] else { return }
        if run.state == .stopping, let ending = run.ending {
            move(uid, ending, run.message)
            return
        }
        run.vanished += 1
        let since = run.vanishedSince ?? now
        run.vanishedSince = since
        run.nextCall = now + .seconds(5)
        steps[uid] = run
        if run.vanished >= 3, now - since >= .seconds(10) { end(uid, .exception, "step vanished") }
    }
}
