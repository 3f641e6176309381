// SPDX-License-Identifier: MPL-2.0

import JSON
import Postgres

extension InventoryStore {
    /// What was done last to some machines, and the power that was seen last, by machine.
    ///
    /// Only the newest jobs of a machine are looked through: what was seen long ago says nothing.
    func last(_ machines: [String]) async throws -> [String: JSONObject] {
        guard !machines.isEmpty else { return [:] }
        let rows = try await pool.query(
            """
            select m.id::text as machine, j.id as job, j.task_name, j.state, j.created, p.power from unnest(\(machines)::uuid[]) m (id)
            left join lateral (
                select id, task_name, state, created from roller.jobs where machine = m.id
                order by created desc, id desc limit 1) j on true
            left join lateral (
                select coalesce(r.result -> 'power', '{}') as power
                from (select result, created from roller.jobs where machine = m.id order by created desc, id desc limit 50) r
                where r.result ? 'power' order by r.created desc limit 1) p on true
            """
        )
        var last: [String: JSONObject] = [:]
        for row in rows {
            var view: JSONObject = ["last_job": .null]
            view["last_power"] = JobView.text(Self.power(try row.optionalJSON("power")))
            if let job = try row.optionalString("job") {
                let state = JobState(rawValue: try row.string("state")) ?? .lost
                view["last_job"] = [
                    "task_id": .string(job), "task_name": .string(try row.string("task_name")),
                    "status": .string(state.status.rawValue),
                    "created_at": .string(try row.timestamp("created").iso8601),
                ]
            }
            last[try row.string("machine")] = view
        }
        return last
    }

    /// One word for what one control or several said.
    private static func power(_ value: JSONValue?) -> String? {
        let words = (value?.object?.map { $0.value } ?? [value ?? .null]).compactMap(\.string)
        if words.contains("on") { return "on" }
        return words.contains("off") ? "off" : words.first.map { _ in "unknown" }
    }
}
