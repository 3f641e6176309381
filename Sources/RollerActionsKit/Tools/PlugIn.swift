// SPDX-License-Identifier: MPL-2.0

import JSON

/// A program of the operator's own, as the inventory names it: a file in the folder of plug-ins, and its arguments.
///
/// Whoever writes the inventory cannot run just anything, and nothing passes through a shell.
struct PlugIn {
    private let template: [String]
    /// Where the inventory names it, for those who have to put it right.
    private let place: String

    init(_ template: [String], of place: String) {
        self.template = template
        self.place = place
    }

    /// The command line, with what is known of the machine in place of `{host}` and its kin.
    func words(
        _ job: ActionJob,
        _ target: ActionTarget,
        _ settings: ActionSettings,
        _ control: Control? = nil
    ) throws(ActionError) -> [String] {
        guard let folder = settings.pluginDirectory else {
            throw ActionError(.config, "this worker runs no plug-ins: PLUGINS_DIR is not set")
        }
        guard let program = template.first, !program.isEmpty, !program.hasPrefix("."),
            program.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7f && $0 != UInt8(ascii: "/") })
        else {
            throw ActionError(.config, "\(place) must begin with the name of a plug-in")
        }
        var words = ["\(folder)/\(program)"]
        for element in template.dropFirst() { words.append(try filled(element, job, target, control)) }
        return words
    }

    /// One argument with its placeholders replaced; each stays one argument, whatever is in the values.
    private func filled(
        _ element: String,
        _ job: ActionJob,
        _ target: ActionTarget,
        _ control: Control?
    ) throws(ActionError) -> String {
        var result = element
        let values = [
            "host": try target.host(), "ip": target.address, "fqdn": target.fqdn, "mac": target.mac,
            "worker_id": job.workerID.isEmpty ? nil : job.workerID, "outlet": control?.locator["outlet"]?.string,
            "addr": control?.locator["addr"]?.string,
        ]
        for (name, value) in values where element.contains("{\(name)}") {
            guard let value, !value.hasPrefix("-"), value.utf8.allSatisfy({ $0 >= 0x20 && $0 != 0x7f }) else {
                throw ActionError(.config, "the machine has no usable \(name) for \(place)")
            }
            result = result.replacing("{\(name)}", with: value)
        }
        return result
    }
}
