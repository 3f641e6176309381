// SPDX-License-Identifier: MPL-2.0

import Core
import Postgres

/// Writes triggered fires down, those that are triggered at the same time with one commit.
final class TriggerAcceptance: Sendable {
    /// What became of a draft.
    enum Outcome: Sendable {
        /// It is a fire now, under a lease of the caller.
        case fire(Fire)
        /// Its key was accepted before.
        case taken
        /// The hook is not defined any more as the draft takes it to be.
        case outdated
    }

    private struct Item: Sendable {
        let draft: FireDraft
        let version: Int
    }

    private let rounds: Coalescer<Item, Outcome>
    /// Writes to a store; company may come from all that is under way.
    init(fires: FireStore, underWay: UnderWay) {
        rounds = Coalescer(expecting: { underWay.count }) { items in
            do {
                return try await Self.accept(items, fires).map { .success($0) }
            } catch let error as PostgresError where items.count > 1 && error.sqlState != nil {
                // The server refused, so nothing was written; whatever it is about shall fail alone.
                var results: [Result<Outcome, any Error>] = []
                for item in items {
                    do { results.append(.success(try await Self.accept([item], fires)[0])) } catch {
                        results.append(.failure(error))
                    }
                }
                return results
            } catch {
                return items.map { _ in .failure(error) }
            }
        }
    }

    /// Writes down a draft that makes a task, if its hook's definition still has a version.
    func accept(_ draft: FireDraft, version: Int) async throws -> Outcome {
        try await rounds.submit(Item(draft: draft, version: version))
    }

    private static func accept(_ items: [Item], _ fires: FireStore) async throws -> [Outcome] {
        struct Key: Hashable {
            let name: HookName
            let version: Int
        }
        // In one order everywhere, so that rounds with the same chosen ids do not wait for each other in circles.
        let groups = Dictionary(grouping: items.indices) { Key(name: items[$0].draft.name, version: items[$0].version) }
            .sorted { ($0.key.name.description, $0.key.version) < ($1.key.name.description, $1.key.version) }
            .map { (key: $0.key, indices: $0.value.sorted { items[$0].draft.taskID < items[$1].draft.taskID }) }
        let accepted = try await fires.accept(
            groups.map { group in
                FireStore.VersionedDrafts(
                    name: group.key.name,
                    version: group.key.version,
                    drafts: group.indices.map { items[$0].draft }
                )
            },
            slots: items.count
        )
        var outcomes = [Outcome](repeating: .taken, count: items.count)
        for (group, fires) in zip(groups, accepted) {
            guard let fires else {
                for index in group.indices { outcomes[index] = .outdated }
                continue
            }
            // Of several requests with the same chosen id one makes the fire.
            var made = Dictionary(fires.map { ($0.taskID, $0) }) { first, _ in first }
            for index in group.indices {
                if let fire = made.removeValue(forKey: items[index].draft.taskID) { outcomes[index] = .fire(fire) }
            }
        }
        return outcomes
    }
}
