// SPDX-License-Identifier: MPL-2.0

import ArgumentParser
import Core
import JSON
import Schedules

/// `slipway cron`: see what a schedule means.
struct CronCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cron",
        abstract: "Work with the schedules of hooks.",
        subcommands: [Next.self, Batch.self]
    )

    struct Next: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List the next instants of a cron pattern.",
            discussion: """
                The instants are printed in UTC, whatever the time zone in which the pattern is meant.

                Examples:
                  slipway cron next '0 30 9 * * MON-FRI' --count 5
                  slipway cron next '0 30 2 * * *' --zone Europe/Berlin --from 2024-03-30T00:00:00Z
                """
        )

        @Argument(help: "The pattern: [second] minute hour day-of-month month day-of-week.")
        var pattern: String

        @Option(help: "Where to start, an RFC 3339 date-time; now when left out.")
        var from: String?

        @Option(help: "How many instants.")
        var count = 5

        @Option(help: "The time zone whose clocks the pattern means.")
        var zone = "UTC"

        @Flag(help: "Print JSON instead of text.")
        var json = false

        func run() async throws {
            guard 1...10_000 ~= count else { throw Failure(usage: "--count must be between 1 and 10000") }
            guard var last = from.map({ Timestamp($0) }) ?? Timestamp.now() else {
                throw Failure(usage: "--from must be a date-time such as 2024-02-10T12:00:00Z")
            }
            let expression: CronExpression
            do throws(CronError) {
                expression = try CronExpression(pattern)
            } catch {
                throw Failure(usage: "\(error) in \(pattern)")
            }
            let rules: TimeZoneRules
            do throws(TimeZoneError) {
                rules = try TimeZoneFiles.system.rules(of: zone)
            } catch {
                throw Failure(usage: "\(error): \(zone)")
            }
            var instants: [String] = []
            while instants.count < count, let next = expression.next(after: last, in: rules) {
                instants.append(next.iso8601)
                last = next
            }
            guard !instants.isEmpty else { throw Failure("\(pattern) never matches") }
            print(json ? JSONValue(instants).text(.pretty) : instants.joined(separator: "\n"))
        }
    }

    struct Batch: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List the next instants of many patterns in one go, a line of JSON each.",
            discussion: """
                Each line of standard input is an object with a pattern, from and count. Each line of standard output \
                answers it: an object with the instants, fewer than asked for if the pattern ends, or with an error. Example:
                  echo '{"pattern": "0 30 9 * * *", "from": "2024-02-10T12:00:00Z", "count": 2}' | slipway cron batch
                """
        )

        func run() async throws {
            try Lines.answer { line in
                guard let pattern = line["pattern"]?.string else { throw Failure(usage: "no pattern") }
                guard var last = Timestamp(line["from"]?.string ?? "") else {
                    throw Failure(usage: "from must be a date-time such as 2024-02-10T12:00:00Z")
                }
                let count = line["count"]?.int ?? 1
                guard 1...10_000 ~= count else { throw Failure(usage: "count must be between 1 and 10000") }
                do throws(CronError) {
                    let expression = try CronExpression(pattern)
                    var instants: [String] = []
                    while instants.count < count, let next = expression.next(after: last) {
                        instants.append(next.iso8601)
                        last = next
                    }
                    return ["instants": JSONValue(instants)]
                } catch {
                    return ["error": .string(error.description)]
                }
            }
        }
    }
}
