// SPDX-License-Identifier: MPL-2.0

import Glibc
public import JSON
public import JSONSchema
import Synchronization

/// The JSON schemas of all services, read from `<directory>/<service>/<version>/<name>.json`.
///
/// A schema is read and compiled the first time it is needed, and kept.
public final class SchemaStore: Sendable {
    /// The folder that holds one folder per service.
    public let directory: String
    private let compiled = Mutex<[String: JSONSchema]>([:])

    /// Makes a store over a folder, without looking into it.
    public init(directory: String) {
        self.directory = directory.count > 1 && directory.hasSuffix("/") ? String(directory.dropLast()) : directory
    }

    /// Finds the folder that ships with the program.
    ///
    /// `SCHEMAS_DIRECTORY` decides if it is set. Otherwise it is the nearest folder `schemas` beside the executable or
    /// above it, then in or above the working directory.
    public static func locate() throws(SchemaError) -> SchemaStore {
        if let chosen = getenv("SCHEMAS_DIRECTORY") {
            let directory = String(cString: chosen)
            guard LocalFile.isDirectory(directory) else {
                throw SchemaError(message: "SCHEMAS_DIRECTORY names \(directory), which is not a folder")
            }
            return SchemaStore(directory: directory)
        }
        for start in [LocalFile.executable(), LocalFile.workingDirectory()].compactMap({ $0 }) {
            var folder = start[...]
            while let slash = folder.lastIndex(of: "/") {
                let candidate = "\(folder)/schemas"
                if LocalFile.isDirectory(candidate + "/common") { return SchemaStore(directory: candidate) }
                folder = folder[..<slash]
            }
        }
        throw SchemaError(message: "cannot find the folder of JSON schemas; set SCHEMAS_DIRECTORY")
    }

    /// The compiled schema `name`, such as `v1/task.json`, of a service.
    public func schema(_ service: String, _ name: String) throws -> JSONSchema {
        let path = Self.path(service, name)
        if let schema = compiled.withLock({ $0[path] }) { return schema }
        guard let document = document(path: path) else {
            throw SchemaError(message: "cannot read the schema \(path) in \(directory)")
        }
        let schema = try JSONSchema(document, id: "/schemas/\(path)") { [self] reference in
            self.document(reference: reference, from: path)
        }
        compiled.withLock { $0[path] = schema }
        return schema
    }

    /// The text of a schema as a value; nil if it cannot be read.
    public func document(_ service: String, _ name: String) -> JSONValue? {
        document(path: Self.path(service, name))
    }

    /// Tells whether a schema's file exists.
    func contains(_ service: String, _ name: String) -> Bool {
        access("\(directory)/\(Self.path(service, name))", R_OK) == 0
    }

    /// The paths of all schemas of a service, sorted.
    func names(of service: String) -> [String] {
        LocalFile.list("\(directory)/\(service)", depth: 2).filter { $0.hasSuffix(".json") }
            .map { "\(service)/\($0)" }
    }

    func document(path: String) -> JSONValue? {
        // Names come from addresses too; no piece of them may climb out of the folder.
        guard path.split(separator: "/").allSatisfy({ !$0.hasPrefix(".") }) else { return nil }
        guard let bytes = LocalFile.read("\(directory)/\(path)") else { return nil }
        return try? JSONValue(parsing: bytes)
    }

    private func document(reference: String, from path: String) -> JSONValue? {
        let target = reference.prefix { $0 != "#" }
        if let range = target.firstRange(of: "/schemas/") {
            return document(path: String(target[range.upperBound...]))
        }
        guard !target.isEmpty, let slash = path.lastIndex(of: "/") else { return nil }
        return document(path: "\(path[...slash])\(target)")
    }

    private static func path(_ service: String, _ name: String) -> String {
        "\(service)/\(name[..<(name.utf8.firstIndex(of: UInt8(ascii: "#")) ?? name.endIndex)])"
    }
}

/// A schema that is missing or makes no sense.
public struct SchemaError: Error, Sendable, CustomStringConvertible {
    /// What is wrong, in one line.
    public let message: String
    /// The message.
    public var description: String { message }
}
