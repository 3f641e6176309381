// SPDX-License-Identifier: MPL-2.0

package import JSON

/// What an action is, as far as those need to know who ask for it.
package struct ActionDescription: Sendable, Hashable {
    /// The task name in requests.
    package var name: String
    /// A few words for a button.
    package var title: String
    /// What it does, in Markdown.
    package var summary: String
    /// Whether whoever works on the machine notices.
    package var isDestructive: Bool
    /// Whether it only looks; such work may be repeated at will.
    package var isReadOnly: Bool
    /// Whether the worker has to be a machine of the inventory.
    package var needsMachine: Bool
    /// Kinds of controllers of which the machine needs at least one; empty for none.
    package var controls: [ControllerKind]
    /// Whether the request has to repeat the machine's name as `confirm`.
    package var needsConfirmation: Bool
    /// The JSON schema of the parameters it takes from the query, as an object schema.
    package var parameters: JSONValue

    package init(
        _ name: String,
        title: String,
        summary: String,
        isDestructive: Bool,
        isReadOnly: Bool = false,
        needsMachine: Bool = true,
        controls: [ControllerKind] = [],
        needsConfirmation: Bool = false,
        parameters: JSONValue = ["type": "object"]
    ) {
        self.name = name
        self.title = title
        self.summary = summary
        self.isDestructive = isDestructive
        self.isReadOnly = isReadOnly
        self.needsMachine = needsMachine
        self.controls = controls
        self.needsConfirmation = needsConfirmation
        self.parameters = parameters
    }
}

/// The actions of a deployment, by name.
package struct ActionCatalogue: Sendable {
    /// In the order they are shown.
    package let actions: [ActionDescription]
    private let byName: [String: ActionDescription]

    package init(_ actions: [ActionDescription]) {
        self.actions = actions
        byName = Dictionary(actions.map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })
    }

    package subscript(_ name: String) -> ActionDescription? { byName[name] }

    /// The part of the catalogue with the given names, in their order, and the names that are not in it.
    package func limited(to names: [String]) -> (catalogue: ActionCatalogue, unknown: [String]) {
        (ActionCatalogue(names.compactMap { byName[$0] }), names.filter { byName[$0] == nil })
    }
}
