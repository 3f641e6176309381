// SPDX-License-Identifier: MPL-2.0

import JSON
import JSONE
import Schedules
import StepKit

/// What a call to a step service came to.
struct Observation: Sendable {
    enum Result: Sendable, Hashable {
        /// It has the step.
        case accepted
        /// It refuses the step for good.
        case refused(String)
        /// It could not be asked, or could not answer; it may say when to come back.
        case unreachable(String, retryAfter: Duration?)
        /// It does not know the step.
        case unknown
        case status(RemoteStatus)
        /// It has been told to stop the step.
        case stopped
    }

    let step: String
    let attempt: Int
    let result: Result
}

/// A call to a step service that has to be made.
struct Effect: Sendable, Hashable {
    enum Kind: Sendable, Hashable {
        case start(body: JSONObject)
        case poll
        case stop
    }

    let step: String
    let attempt: Int
    let remoteUID: String
    let apiURL: String
    let kind: Kind
}

/// A time during which steps are not started.
struct Freeze: Sendable, Hashable {
    let uid: String
    let start: Timestamp
    let end: Timestamp
    let labels: JSONObject
    let apiPrefix: String?
    let stepPattern: String?

    func covers(_ step: StepSpecification, of pipeline: PipelineDefinition, at now: Timestamp) -> Bool {
        guard start <= now, now < end else { return false }
        guard labels.allSatisfy({ pipeline.labels[$0.key] == $0.value }) else { return false }
        if let apiPrefix, !step.apiURL.hasPrefix(apiPrefix) { return false }
        if let stepPattern, !Glob.matches(step.uid, stepPattern) { return false }
        return true
    }
}

/// Patterns in which `*` stands for any text.
enum Glob {
    static func matches(_ text: String, _ pattern: String) -> Bool {
        let pieces = pattern.split(separator: "*", omittingEmptySubsequences: false)
        guard pieces.count > 1, let first = pieces.first, let last = pieces.last else { return text == pattern }
        guard text.hasPrefix(first), text.utf8.count >= first.utf8.count + last.utf8.count else { return false }
        var rest = text.dropFirst(first.count)
        guard rest.hasSuffix(last) else { return false }
        rest = rest.dropLast(last.count)
        for piece in pieces.dropFirst().dropLast() where !piece.isEmpty {
            guard let range = rest.firstRange(of: piece) else { return false }
            rest = rest[range.upperBound...]
        }
        return true
    }
}

/// Decides what happens next in a pipeline: values in, values out.
///
/// The same decisions come out whoever computes them and however often: everything they depend on is stored with the
/// steps, and a step that is to be started is stored as such before its service is told.
struct Evaluation: Sendable {
    /// A line for the audit.
    struct Note: Sendable, Hashable {
        let kind: String
        let step: String
        let data: JSONObject
    }

    let definition: PipelineDefinition
    let now: Timestamp
    /// Whether nothing new may be started.
    var isPaused = false
    /// Whether another pipeline of the same key goes first.
    var isQueued = false
    var isCancelled = false
    var freezes: [Freeze] = []
    private(set) var steps: [String: StepRun]
    private(set) var notes: [Note] = []
    private let specifications: [String: StepSpecification]
    private let graph: StepGraph

    init(_ definition: PipelineDefinition, _ runs: [StepRun], now: Timestamp) {
        self.definition = definition
        self.now = now
        steps = Dictionary(runs.map { ($0.uid, $0) }) { first, _ in first }
        specifications = Dictionary(definition.steps.map { ($0.uid, $0) }) { first, _ in first }
        graph = StepGraph(definition.steps)
    }

    /// The steps in the order of the definition.
    var ordered: [StepRun] { definition.steps.compactMap { steps[$0.uid] } }

    func specification(_ uid: String) -> StepSpecification? { specifications[uid] }

    mutating func note(_ kind: String, _ step: String, _ data: JSONObject = [:]) {
        notes.append(Note(kind: kind, step: step, data: data))
    }

    // MARK: - Changes of one step

    /// Moves a step; a final state is noted with its time.
    private mutating func move(_ uid: String, _ state: RunState, _ message: String) {
        guard var run = steps[uid], run.state != state else { return }
        run.state = state
        run.message = message
        if state == .running, run.started == nil { run.started = now }
        if state.isTerminal {
            run.finished = now
            run.nextCall = nil
            run.ending = nil
        }
        steps[uid] = run
        var data: JSONObject = ["state": .string(state.rawValue), "attempt": JSONValue(run.attempt)]
        if !message.isEmpty { data["message"] = .string(message) }
        note("step", uid, data)
    }

    /// Ends a step that its service has ended, or tries it once more.
    private mutating func end(_ uid: String, _ state: RunState, _ message: String) {
        guard let run = steps[uid], let step = specifications[uid] else { return }
        let mayRetry = !isCancelled && run.ending == nil && step.retries.on.contains(state.rawValue)
        guard mayRetry, run.attempt <= step.retries.limit else {
            move(uid, state, message)
            return
        }
        let doubled = step.retries.backoff << min(run.attempt - 1, 20)
        var next = fresh(run, attempt: run.attempt + 1)
        next.retryAt = now + .seconds(min(doubled, step.retries.longestBackoff))
        next.message = message
        steps[uid] = next
        note(
            "step_retry",
            uid,
            ["state": .string(state.rawValue), "attempt": JSONValue(next.attempt), "message": .string(message)]
        )
    }

    /// A step as it is before another attempt.
    private func fresh(_ run: StepRun, attempt: Int) -> StepRun {
        var next = StepRun(uid: run.uid, position: run.position)
        next.attempt = attempt
        next.parameters = run.parameters
        next.freezeOverridden = run.freezeOverridden
        return next
    }

    // MARK: - What services said

    /// Takes in what calls came to; what belongs to an earlier attempt is ignored.
    mutating func apply(_ observations: [Observation]) {
        for observation in observations {
            guard let run = steps[observation.step], run.attempt == observation.attempt, run.state.isRemote else {
                continue
            }
            apply(observation.result, run)
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
        case .status(.known(let state, let message, let output, let info)):
            answered(uid)
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
            steps[uid]?.message = message
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

    private mutating func answered(_ uid: String) {
        guard let run = steps[uid] else { return }
        if run.unreachableTold { note("reachable", uid) }
        steps[uid]?.failures = 0
        steps[uid]?.unreachableSince = nil
        steps[uid]?.unreachableTold = false
        steps[uid]?.vanished = 0
        steps[uid]?.vanishedSince = nil
    }

    private mutating func schedulePoll(_ uid: String) {
        guard var run = steps[uid] else { return }
        let age = now - (run.started ?? run.intended ?? now)
        if age >= .seconds(30) {
            run.pollInterval = min(run.pollInterval * 1.5, .seconds(30))
        }
        // Nobody's questions shall come at the same moment as everybody else's.
        let spread = Double(80 + (run.position &* 37 &+ run.attempt &* 11 &+ Int(now.milliseconds % 41)) % 41) / 100
        run.nextCall = now + run.pollInterval * spread
        steps[uid] = run
    }

    private mutating func missed(_ uid: String, _ text: String, _ pause: Duration?) {
        guard var run = steps[uid] else { return }
        run.failures += 1
        run.message = text
        let since = run.unreachableSince ?? now
        run.unreachableSince = since
        let backoff = min(Duration.seconds(1 << min(run.failures - 1, 6)), .seconds(60))
        run.nextCall = now + min(max(pause ?? .zero, backoff), .seconds(300))
        let isNews = !run.unreachableTold && now - since >= .seconds(300)
        if isNews { run.unreachableTold = true }
        steps[uid] = run
        if isNews { note("unreachable", uid, ["message": .string(text)]) }
        if run.state == .stopping, let ending = run.ending, now - (run.stopSince ?? now) >= .seconds(60) {
            move(uid, ending, "given up while its service could not be reached")
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

    // MARK: - What follows

    /// Draws all conclusions that need no call and no lock.
    mutating func settle() {
        expire()
        if isCancelled {
            for run in ordered where !run.state.isTerminal { stop(run.uid, .cancelled, "cancelled") }
            return
        }
        var hasChanged = true
        while hasChanged {
            hasChanged = false
            if definition.onFailure == .abort, hasFailure {
                for run in ordered where !run.state.isTerminal {
                    guard let step = specifications[run.uid] else { continue }
                    if run.state == .pending {
                        guard step.when == .success else { continue }
                        move(run.uid, .skipped, "another step failed")
                        hasChanged = true
                    } else if run.state != .stopping, step.when == .success {
                        stop(run.uid, .cancelled, "another step failed")
                        hasChanged = true
                    }
                }
            }
            for run in ordered where run.state == .pending {
                guard let step = specifications[run.uid], requirement(step) == .never else { continue }
                move(run.uid, .skipped, "what it requires did not come about")
                hasChanged = true
            }
        }
        for run in ordered where run.state == .pending && run.readySince == nil {
            guard let step = specifications[run.uid], requirement(step) == .met else { continue }
            steps[run.uid]?.readySince = now
        }
    }

    private mutating func expire() {
        let isOver = definition.deadline.map { $0 <= now } ?? false
        for run in ordered where !run.state.isTerminal && run.state != .stopping {
            guard let step = specifications[run.uid] else { continue }
            let limit = step.timeout.flatMap { limit in run.intended.map { $0 + .seconds(limit) } }
            let isLate = limit.map { $0 <= now } ?? false
            let isPastDeadline = isOver || step.deadline.map { $0 <= now } ?? false
            guard isLate || isPastDeadline else { continue }
            stop(run.uid, .exception, isLate ? "timeout" : "deadline")
        }
    }

    /// Ends a step that goes on; its service is told if it knows of it.
    mutating func stop(_ uid: String, _ ending: RunState, _ message: String) {
        guard let run = steps[uid], !run.state.isTerminal, run.state != .stopping else { return }
        let isDetached = specifications[uid]?.detaches ?? false
        guard run.state.isRemote, !isDetached else {
            move(uid, ending, message)
            return
        }
        move(uid, .stopping, message)
        steps[uid]?.ending = ending
        steps[uid]?.stopSince = now
        steps[uid]?.stopTold = false
        steps[uid]?.nextCall = now
    }

    private var hasFailure: Bool {
        steps.values.contains { run in
            (run.state == .failed || run.state == .exception) && specifications[run.uid]?.isOptional != true
        }
    }

    enum Requirement: Sendable, Hashable {
        case met
        case waiting
        case never
    }

    /// Whether what a step requires has come about, may, or cannot any more.
    func requirement(_ step: StepSpecification) -> Requirement {
        let required = step.requires.compactMap { steps[$0] }
        guard !required.isEmpty else { return .met }
        func isFine(_ run: StepRun) -> Bool {
            run.state == .completed || (run.state.isTerminal && specifications[run.uid]?.isOptional == true)
        }
        func hasFailed(_ run: StepRun) -> Bool { run.state == .failed || run.state == .exception }
        let allOver = required.allSatisfy(\.state.isTerminal)
        switch (step.when, step.mode) {
        case (.success, .all):
            if required.allSatisfy(isFine) { return .met }
            return required.contains { $0.state.isTerminal && !isFine($0) } ? .never : .waiting
        case (.success, .any):
            if required.contains(where: isFine) { return .met }
            return allOver ? .never : .waiting
        case (.always, .all):
            return allOver ? .met : .waiting
        case (.always, .any):
            return required.contains(where: \.state.isTerminal) ? .met : .waiting
        case (.failure, .all):
            guard allOver else { return .waiting }
            return required.contains(where: hasFailed) ? .met : .never
        case (.failure, .any):
            if required.contains(where: hasFailed) { return .met }
            return allOver ? .never : .waiting
        }
    }

    // MARK: - Starting

    /// The steps that could start now if they get their locks, longest ready first.
    var startable: [StepRun] {
        guard !isPaused, !isQueued, !isCancelled else { return [] }
        return ordered.filter { run in
            guard run.state == .pending, let step = specifications[run.uid], requirement(step) == .met else {
                return false
            }
            if let moment = step.notBefore, moment > now { return false }
            if let moment = run.retryAt, moment > now { return false }
            return freeze(step, run) == nil
        }
        .sorted { ($0.readySince ?? now, $0.position) < ($1.readySince ?? now, $1.position) }
    }

    /// The freeze that holds a step back; nil for none.
    func freeze(_ step: StepSpecification, _ run: StepRun) -> Freeze? {
        guard step.respectsFreeze, !run.freezeOverridden else { return nil }
        return freezes.first { $0.covers(step, of: definition, at: now) }
    }

    /// Stores the intent to start a step: what its service will be asked for is computed now and never again.
    mutating func intend(_ uid: String) {
        guard let step = specifications[uid], var run = steps[uid], run.state == .pending else { return }
        let parameters: JSONObject
        do {
            parameters = try rendered(step, run)
        } catch {
            move(uid, .exception, "parameters: \(error)")
            return
        }
        let name = definition.remoteUID(of: step, attempt: run.attempt)
        var request = parameters
        request["uid"] = .string(name)
        run.request = request
        run.remoteUID = name
        run.intended = now
        run.nextCall = now
        run.retryAt = nil
        steps[uid] = run
        move(uid, .starting, "")
    }

    private func rendered(_ step: StepSpecification, _ run: StepRun) throws(JSONEError) -> JSONObject {
        let parameters = run.parameters ?? step.parameters
        guard Templates.areIn(.object(parameters)) else { return parameters }
        var visible = JSONObject()
        for name in graph.ancestors(of: step.uid).sorted() {
            guard let other = steps[name] else { continue }
            visible[name] = [
                "output": .object(other.output), "status": .string(other.state.status),
                "attempt": JSONValue(other.attempt),
            ]
        }
        let context: JSONObject = [
            "pipeline": [
                "uid": .string(definition.uid), "labels": .object(definition.labels), "parameters": [:],
            ],
            "steps": .object(visible),
        ]
        return try JSONE.render(.object(parameters), context: context, now: now).object ?? [:]
    }

    /// The calls that are due, of steps that are not being called already.
    func effects(besides busy: Set<String>) -> [Effect] {
        ordered.compactMap { run in
            guard run.state.isRemote, !busy.contains(run.uid), let next = run.nextCall, next <= now,
                let name = run.remoteUID, let step = specifications[run.uid]
            else { return nil }
            let kind: Effect.Kind =
                switch run.state {
                case .starting: .start(body: run.request ?? [:])
                case .stopping where !run.stopTold: .stop
                default: .poll
                }
            return Effect(step: run.uid, attempt: run.attempt, remoteUID: name, apiURL: step.apiURL, kind: kind)
        }
    }

    /// When something is to be done next without anybody saying so; nil for never.
    var nextMoment: Timestamp? {
        var moments: [Timestamp] = []
        for run in ordered where !run.state.isTerminal {
            guard let step = specifications[run.uid] else { continue }
            if let next = run.nextCall { moments.append(next) }
            if let limit = step.timeout, let intended = run.intended, run.state != .stopping {
                moments.append(intended + .seconds(limit))
            }
            if let deadline = step.deadline, run.state != .stopping { moments.append(deadline) }
            if let deadline = definition.deadline, run.state != .stopping { moments.append(deadline) }
            guard run.state == .pending, requirement(step) == .met else { continue }
            if let moment = step.notBefore, moment > now { moments.append(moment) }
            if let moment = run.retryAt, moment > now { moments.append(moment) }
            if let freeze = freeze(step, run) { moments.append(freeze.end) }
        }
        return moments.min()
    }

    // MARK: - The whole

    /// The state of the pipeline.
    var state: StepState {
        let runs = Array(steps.values)
        if runs.contains(where: { !$0.state.isTerminal }) { return isCancelled ? .stopping : .running }
        if isCancelled { return .cancelled }
        let counting = runs.filter { specifications[$0.uid]?.isOptional != true }
        if counting.contains(where: { $0.state == .failed }) { return .failed }
        if counting.contains(where: { $0.state == .exception }) { return .exception }
        if counting.contains(where: { $0.state == .cancelled }) { return .cancelled }
        return .completed
    }

    // MARK: - Operators

    /// Lets failed steps, or the named ones, run again with everything that waits for them; answers which those are.
    mutating func retry(_ names: Set<String>?) throws(StepProblem) -> [String] {
        let chosen: Set<String>
        if let names {
            for name in names.sorted() {
                guard let run = steps[name] else { throw StepProblem.invalid("There is no step \(name)") }
                guard run.state.isTerminal else {
                    throw StepProblem.conflict("not_finished", "The step \(name) is \(run.state.rawValue)")
                }
            }
            chosen = names
        } else {
            let failed = ordered.filter { [.failed, .exception, .cancelled].contains($0.state) }
            chosen = Set(failed.map(\.uid))
        }
        guard !chosen.isEmpty else { throw StepProblem.conflict("nothing_to_retry", "No step has failed") }
        let completed = chosen.filter { steps[$0]?.state == .completed }
        let later = graph.descendants(of: chosen).filter { name in
            guard let state = steps[name]?.state else { return false }
            if state == .skipped { return true }
            // What is built upon something that is made anew is made anew.
            return !graph.ancestors(of: name).isDisjoint(with: completed)
        }
        if let running = later.sorted().first(where: { steps[$0]?.state.isRemote == true }) {
            throw StepProblem.conflict("not_finished", "The step \(running) goes on")
        }
        for name in chosen.union(later) {
            guard let run = steps[name] else { continue }
            // What was never started is not counted as an attempt.
            steps[name] = fresh(run, attempt: run.intended == nil ? run.attempt : run.attempt + 1)
        }
        let all = definition.steps.map(\.uid).filter { chosen.union(later).contains($0) }
        for name in all { note("step_reset", name, ["attempt": JSONValue(steps[name]?.attempt ?? 1)]) }
        return all
    }

    /// Skips a step that has not been started.
    mutating func skip(_ uid: String) throws(StepProblem) {
        guard steps[uid]?.state == .pending else { throw closed(uid) }
        steps[uid]?.skippedByHand = true
        move(uid, .skipped, "skipped by an operator")
    }

    /// Ends a step as an operator says.
    mutating func resolve(_ uid: String, _ state: RunState, _ reason: String) throws(StepProblem) {
        guard steps[uid]?.state.isTerminal == false else { throw closed(uid) }
        steps[uid]?.ending = nil
        move(uid, state, "resolved: \(reason)")
    }

    /// Stops a step by itself.
    mutating func cancel(_ uid: String) throws(StepProblem) {
        guard steps[uid]?.state.isTerminal == false else { throw closed(uid) }
        stop(uid, .cancelled, "cancelled by an operator")
    }

    /// Replaces the parameters of a step that has not been started.
    mutating func setParameters(_ uid: String, _ parameters: JSONObject) throws(StepProblem) {
        guard steps[uid]?.state == .pending else { throw closed(uid) }
        steps[uid]?.parameters = parameters
    }

    /// Lets a step start in spite of freezes.
    mutating func overrideFreeze(_ uid: String) throws(StepProblem) {
        guard steps[uid]?.state == .pending else { throw closed(uid) }
        steps[uid]?.freezeOverridden = true
    }

    /// Makes a step's service be asked at once.
    mutating func wake(_ uid: String) {
        steps[uid]?.nextCall = now
    }

    private func closed(_ uid: String) -> StepProblem {
        guard let run = steps[uid] else { return StepProblem(404, "not_found", "There is no step \(uid)") }
        return StepProblem.conflict("step_closed", "The step \(uid) is \(run.state.rawValue)")
    }
}
