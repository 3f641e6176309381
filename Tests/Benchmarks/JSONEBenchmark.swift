// SPDX-License-Identifier: MPL-2.0

import Glibc
import JSON
import JSONE
import Schedules

/// Renders a template from values that are parsed already, as the peers do.
struct JSONEBenchmark {
    private let template: JSONValue
    private let context: JSONObject

    init(_ template: String, _ context: String) throws {
        self.template = try JSONValue(parsing: Benchmarks.contents(of: template))
        guard let context = try JSONValue(parsing: Benchmarks.contents(of: context)).object else {
            print("the context must be a JSON object")
            exit(2)
        }
        self.context = context
    }

    /// Reads the template anew each time: what a peer does that keeps nothing.
    func compileAndRender() throws {
        let now = Timestamp.now()
        try Benchmarks.rate { _ = try JSONE.render(template, context: context, now: now) }
    }

    /// Renders a template that was read before: what a service does that keeps its hooks.
    func render() throws {
        let compiled = try JSONETemplate(template)
        let now = Timestamp.now()
        try Benchmarks.rate { _ = try compiled.render(context, now: now) }
    }

    /// Prints the result, so that the driver can compare it with the peers'.
    func printResult(now: String) throws {
        guard let now = Timestamp(now) else {
            print("the instant must be like 2024-02-10T12:34:56.789Z")
            exit(2)
        }
        print(try JSONE.render(template, context: context, now: now).text(.sorted))
    }
}
