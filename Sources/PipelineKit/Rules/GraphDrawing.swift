// SPDX-License-Identifier: MPL-2.0

import JSON

/// The steps of a pipeline and their states as a picture, or as data for one.
struct GraphDrawing: Sendable {
    private let definition: PipelineDefinition
    private let states: [String: RunState]
    private let reasons: [String: String]

    /// Draws the steps; `reasons` are what readers see when they point at a step that has not ended.
    init(_ definition: PipelineDefinition, _ runs: [StepRun], reasons: [String: String] = [:]) {
        self.definition = definition
        self.reasons = reasons
        states = Dictionary(runs.map { ($0.uid, $0.state) }) { first, _ in first }
    }

    private func state(_ uid: String) -> RunState { states[uid] ?? .pending }

    /// Nodes and edges.
    var json: JSONValue {
        [
            "nodes": .array(
                definition.steps.map {
                    [
                        "id": .string($0.uid), "description": .string($0.description),
                        "state": .string(state($0.uid).rawValue),
                    ]
                }
            ),
            "edges": .array(
                definition.steps.flatMap { step in
                    step.requires.map { ["from": .string($0), "to": .string(step.uid)] }
                }
            ),
        ]
    }

    /// The picture for Graphviz; names of steps hold nothing that would need escaping there.
    var dot: String {
        var text = "digraph pipeline {\n    rankdir=LR;\n    node [shape=box, style=\"rounded,filled\"];\n"
        for step in definition.steps {
            text += "    \"\(step.uid)\" [fillcolor=\"\(Self.color(state(step.uid)))\"];\n"
        }
        for step in definition.steps {
            for name in step.requires { text += "    \"\(name)\" -> \"\(step.uid)\";\n" }
        }
        return text + "}\n"
    }

    /// A drawing: waves of steps from left to right.
    var svg: String {
        let width = 200
        let height = 44
        let gap = (x: 60, y: 20)
        let waves = StepGraph(definition.steps).waves
        var places: [String: (x: Int, y: Int)] = [:]
        for (column, wave) in waves.enumerated() {
            for (row, name) in wave.enumerated() {
                places[name] = (20 + column * (width + gap.x), 20 + row * (height + gap.y))
            }
        }
        let rows = waves.map(\.count).max() ?? 0
        let size = (x: 40 + waves.count * (width + gap.x) - gap.x, y: 40 + rows * (height + gap.y) - gap.y)
        var text = """
            <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 \(max(size.x, 40)) \(max(size.y, 40))" \
            font-family="sans-serif" font-size="13">
            <title>\(Self.escaped(definition.uid))</title>

            """
        for step in definition.steps {
            guard let to = places[step.uid] else { continue }
            for name in step.requires {
                guard let from = places[name] else { continue }
                let start = (x: from.x + width, y: from.y + height / 2)
                let end = (x: to.x, y: to.y + height / 2)
                let middle = (start.x + end.x) / 2
                text += "<path d=\"M\(start.x) \(start.y) C\(middle) \(start.y) \(middle) \(end.y) \(end.x) \(end.y)\" "
                text += "fill=\"none\" stroke=\"#777\"/>\n"
            }
        }
        for step in definition.steps {
            guard let place = places[step.uid] else { continue }
            let state = state(step.uid)
            let words = [step.description, reasons[step.uid] ?? ""].filter { !$0.isEmpty }.joined(separator: "; ")
            text += "<g><title>\(Self.escaped(words.isEmpty ? state.rawValue : words))</title>"
            text += "<rect x=\"\(place.x)\" y=\"\(place.y)\" width=\"\(width)\" height=\"\(height)\" rx=\"6\" "
            text += "fill=\"\(Self.color(state))\" stroke=\"#555\"/>"
            text += "<text x=\"\(place.x + 10)\" y=\"\(place.y + 19)\">\(Self.escaped(Self.shortened(step.uid)))</text>"
            text += "<text x=\"\(place.x + 10)\" y=\"\(place.y + 36)\" fill=\"#444\">\(state.rawValue)</text></g>\n"
        }
        return text + "</svg>\n"
    }

    private static func color(_ state: RunState) -> String {
        switch state {
        case .pending: "#eeeeee"
        case .starting, .running: "#cfe4ff"
        case .stopping: "#ffe3c2"
        case .completed: "#cdeccd"
        case .failed, .exception: "#f6c9c9"
        case .cancelled, .skipped: "#dddddd"
        }
    }

    private static func shortened(_ name: String) -> String {
        name.count > 24 ? "\(name.prefix(23))…" : name
    }

    private static func escaped(_ text: String) -> String {
        text.reduce(into: "") { result, character in
            switch character {
            case "&": result += "&amp;"
            case "<": result += "&lt;"
            case ">": result += "&gt;"
            case "\"": result += "&quot;"
            default: result.append(character)
            }
        }
    }
}
