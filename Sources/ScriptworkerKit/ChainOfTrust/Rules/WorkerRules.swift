// SPDX-License-Identifier: MPL-2.0

import JSON

/// What must hold for a task because of the worker that ran it and of the type it is said to be.
struct WorkerRules {
    let chain: Chain
    let policy: ChainPolicy

    /// The checks by type that need nothing but the definitions; parents are rebuilt elsewhere.
    func checkType(_ task: ChainTask) throws(ChainProblem) {
        switch task.kind.checks {
        case .scriptworker:
            guard task.implementation == .scriptworker else {
                throw ChainProblem(
                    "\(task.label): a task of type \(task.kind.name) must run on a scriptworker, not on "
                        + task.implementation.rawValue
                )
            }
        case .dockerImage:
            guard policy.imagePools.contains(task.pool) else {
                throw ChainProblem("\(task.label): \(task.pool) is not a pool that may build images")
            }
        case .parent:
            guard policy.decisionPools.contains(task.pool) else {
                throw ChainProblem("\(task.label): \(task.pool) is not a pool that may run decision tasks")
            }
        case .build:
            break
        }
    }

    /// The checks by worker implementation.
    func checkImplementation(_ task: ChainTask) throws(ChainProblem) {
        switch task.implementation {
        case .dockerWorker: try checkDockerWorker(task)
        case .genericWorker: try checkGenericWorker(task)
        case .scriptworker: break
        }
    }

    private func checkGenericWorker(_ task: ChainTask) throws(ChainProblem) {
        var complaints = ChainComplaints()
        let payload = task.definition["payload"]
        if ChainTask.isTruthy(payload?["features"]?["interactive"]) {
            complaints.add("\(task.label): the task is interactive: features.interactive")
        }
        if ChainTask.isTruthy(payload?["rdpInfo"]) { complaints.add("\(task.label): the task is interactive: rdpInfo") }
        for scope in task.scopes where scope.hasPrefix("generic-worker:allow-rdp:") {
            complaints.add("\(task.label): the task is interactive: \(scope)")
        }
        try complaints.end()
    }

    private func checkDockerWorker(_ task: ChainTask) throws(ChainProblem) {
        let payload = task.definition["payload"]
        guard let features = payload?["features"], let environment = payload?["env"] else {
            throw ChainProblem("\(task.label): a docker-worker task needs payload.features and payload.env")
        }
        var complaints = ChainComplaints()
        if ChainTask.isTruthy(features["interactive"]) {
            complaints.add("\(task.label): the task is interactive: features.interactive")
        }
        if ChainTask.isTruthy(environment["TASKCLUSTER_INTERACTIVE"]) {
            complaints.add("\(task.label): the task is interactive: TASKCLUSTER_INTERACTIVE")
        }
        if chain.links.contains(where: { $0.taskID == task.taskID }) {
            complaints.collect { () throws(ChainProblem) in try checkImage(task) }
        }
        try complaints.end()
    }

    private func checkImage(_ task: ChainTask) throws(ChainProblem) {
        let image = task.definition["payload"]?["image"] ?? .null
        guard image.object != nil else {
            if let types = policy.prebuiltImageTypes, !types.contains(task.kind.name) {
                throw ChainProblem("\(task.label): a task of type \(task.kind.name) may not use a prebuilt image")
            }
            return
        }
        switch image["type"]?.string {
        case "task-image":
            try checkImageTask(task, image)
        case "indexed-image":
            guard try SourceTrace.restrictedScopes(of: chain.head, policy).isEmpty else {
                throw ChainProblem("\(task.label): an indexed image cannot be used together with restricted scopes")
            }
            if let types = policy.prebuiltImageTypes, !types.contains(task.kind.name) {
                throw ChainProblem("\(task.label): a task of type \(task.kind.name) may not use an indexed image")
            }
        default:
            throw ChainProblem("\(task.label): \(image["type"]?.text() ?? "nothing") is not a known type of image")
        }
    }

    private func checkImageTask(_ task: ChainTask, _ image: JSONValue) throws(ChainProblem) {
        let input = task.definition["extra"]?["chainOfTrust"]?["inputs"]?["docker-image"]?.string
        guard let input, input == image["taskId"]?.string else {
            throw ChainProblem(
                "\(task.label): the image comes from \(image["taskId"]?.text() ?? "nowhere"), but "
                    + "extra.chainOfTrust.inputs says \(input ?? "nothing")"
            )
        }
        guard let path = image["path"]?.string,
            let stated = chain.statements[task.taskID]?.json["environment"]?["imageArtifactHash"]?.string
        else { throw ChainProblem("\(task.label): the statement does not tell which image was used") }
        let parts = stated.split(separator: ":", maxSplits: 1).map(String.init)
        let image = try chain.link(input)
        guard parts.count == 2, policy.hashAlgorithms.contains(parts[0]),
            let expected = chain.statements[input]?.json["artifacts"]?[path]?[parts[0]]?.string
        else { throw ChainProblem("\(task.label): \(image.label) states no digest of \(path) to compare with") }
        guard expected == parts[1] else {
            throw ChainProblem(
                "\(task.label): the image used has the \(parts[0]) \(parts[1]), but \(image.label) made \(expected)"
            )
        }
    }
}
