// SPDX-License-Identifier: MPL-2.0

import Core

/// What the numbers of triggers mean.
enum TriggerMetrics {
    static func describe() {
        Metrics.describe("triggers_messages_total", "Messages of the bus, by trigger and what became of them.")
        Metrics.describe("triggers_dead_letters_total", "Messages that could not be read at their third delivery.")
        Metrics.describe("triggers_polls_total", "Looks for new diffs, by outcome.")
        Metrics.describe("triggers_webhooks_total", "Announcements of builds, by outcome.")
        Metrics.describe("triggers_runs_total", "What was dealt with, by trigger and outcome.")
        Metrics.describe("triggers_tasks_total", "Triggered tasks that ended, by state.")
        Metrics.describe("triggers_waiting", "What was observed and is not dealt with yet.")
        Metrics.describe("triggers_leftovers", "Triggers that no listener has in its file any more, but still there.")
        Metrics.describe("triggers_waiting_seconds", "How long the oldest of it waits.")
    }
}
