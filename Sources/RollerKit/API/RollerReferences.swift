// SPDX-License-Identifier: MPL-2.0

package import APIServer

/// What other teams read about roller: the exchange of its messages and their schema.
package enum RollerReferences {
    /// An API without endpoints of its own; the old ones have paths that no reference could describe.
    package static func api(schemas: SchemaStore) -> API {
        API(
            service: "roller",
            title: "Roller",
            description:
                "Roller reboots, reimages and looks after the machines beneath workers, and says what happened.",
            schemas: schemas,
            endpoints: [],
            exchanges: RollerExchanges.references
        )
    }
}
