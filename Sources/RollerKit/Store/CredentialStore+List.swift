// SPDX-License-Identifier: MPL-2.0

import Glibc
import JSON
import Schedules

extension CredentialStore {
    /// What may be said of a credential.
    struct Facts: Sendable {
        var name: String
        /// The names of its members.
        var members: [String]
        var modified: Timestamp
        /// Why it cannot be used; nil if it can.
        var problem: String?
        /// Other credentials with a secret of it.
        var twins: [String] = []
    }

    /// All credentials by name.
    func list() throws(Problem) -> [Facts] {
        guard let directory else {
            throw Problem(description: "there is no folder for credentials; set CREDENTIALS_DIR")
        }
        guard let stream = opendir(directory) else {
            throw Problem(description: "the folder of credentials cannot be read: \(String(cString: strerror(errno)))")
        }
        defer { closedir(stream) }
        var facts: [Facts] = []
        var owners: [String: [String]] = [:]
        while let entry = readdir(stream) {
            let file = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            guard file.hasSuffix(".json"), case let name = String(file.dropLast(5)), CredentialName.isValid(name),
                let modified = Self.modified("\(directory)/\(file)")
            else { continue }
            var one = Facts(name: name, members: [], modified: modified)
            do {
                let credential = try load(name)
                one.members = credential.json.object?.keys.sorted() ?? []
                for secret in Set(credential.secrets) { owners[secret, default: []].append(name) }
            } catch {
                one.problem = error.description
            }
            facts.append(one)
        }
        for names in owners.values where names.count > 1 {
            for index in facts.indices where names.contains(facts[index].name) {
                facts[index].twins = Set(facts[index].twins + names.filter { $0 != facts[index].name }).sorted()
            }
        }
        return facts.sorted { $0.name < $1.name }
    }

    /// What is wrong with a credential that somebody needs, and with the key file that it names.
    func problems(with name: String) -> [String] {
        let credential: Credential
        do throws(Problem) { credential = try load(name) } catch { return [error.description] }
        guard let file = credential.privateKeyFile else { return [] }
        var facts = stat()
        guard stat(file, &facts) == 0 else { return ["the key file of the credential \(name) is not there"] }
        return facts.st_mode & 0o077 == 0 ? [] : ["the key file of the credential \(name) can be read by others"]
    }

    private static func modified(_ path: String) -> Timestamp? {
        var facts = stat()
        guard stat(path, &facts) == 0 else { return nil }
        return Timestamp(milliseconds: Int64(facts.st_mtim.tv_sec) * 1000 + Int64(facts.st_mtim.tv_nsec) / 1_000_000)
    }
}
