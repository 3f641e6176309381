// SPDX-License-Identifier: MPL-2.0

/// The members of a JSON object in the order in which they were added.
///
/// Comparison ignores the order. Small objects are searched linearly; larger ones keep an index beside their members.
public struct JSONObject: Sendable {
    /// A name that compares byte by byte.
    @usableFromInline
    struct Name: Hashable, Sendable {
        let text: String

        @usableFromInline
        static func == (first: Name, second: Name) -> Bool { hasSameBytes(first.text, second.text) }

        @usableFromInline
        func hash(into hasher: inout Hasher) { combineBytes(of: text, into: &hasher) }
    }

    /// Above this many members an index pays for itself.
    @usableFromInline static let linearLimit = 24

    @usableFromInline var members: [(key: String, value: JSONValue)] = []
    @usableFromInline var positions: [Name: Int]?

    /// Makes an object without members.
    public init() {}

    /// Makes an object from pairs; when a name occurs twice, the last value wins in the first one's place.
    public init(_ pairs: some Sequence<(key: String, value: JSONValue)>) {
        for (key, value) in pairs { self[key] = value }
    }

    /// The number of members.
    @inlinable public var count: Int { members.count }

    /// Whether there are no members.
    @inlinable public var isEmpty: Bool { members.isEmpty }

    /// The names in order.
    public var keys: [String] { members.map(\.key) }

    /// The values in order.
    public var values: [JSONValue] { members.map(\.value) }

    /// The value of the member with a name; assigning nil removes the member.
    public subscript(_ key: String) -> JSONValue? {
        @inlinable get { position(of: key).map { members[$0].value } }
        _modify {
            guard let position = position(of: key) else {
                var value: JSONValue?
                defer { if let value { append(key, value) } }
                yield &value
                return
            }
            var value: JSONValue? = members[position].value
            members[position].value = .null
            defer {
                if let value { members[position].value = value } else { remove(at: position) }
            }
            yield &value
        }
        set {
            switch (position(of: key), newValue) {
            case (let position?, let value?): members[position].value = value
            case (let position?, nil): remove(at: position)
            case (nil, let value?): append(key, value)
            case (nil, nil): break
            }
        }
    }

    /// Removes the member with a name and returns its value.
    @discardableResult
    public mutating func removeValue(forKey key: String) -> JSONValue? {
        guard let position = position(of: key) else { return nil }
        let value = members[position].value
        remove(at: position)
        return value
    }

    /// Makes room for a number of members.
    @inlinable
    public mutating func reserveCapacity(_ count: Int) {
        members.reserveCapacity(count)
    }

    /// Adds a member that the object is known not to have.
    @inlinable
    package mutating func append(new key: String, _ value: JSONValue) {
        members.append((key, value))
        if members.count > Self.linearLimit { addToIndex(key) }
    }

    /// Whether there is a member with a name.
    @inlinable
    public func contains(_ key: String) -> Bool {
        position(of: key) != nil
    }

    @inlinable
    func position(of key: String) -> Int? {
        if members.count > Self.linearLimit { return indexedPosition(of: key) }
        for index in members.indices where hasSameBytes(members[index].key, key) { return index }
        return nil
    }

    @usableFromInline
    func indexedPosition(of key: String) -> Int? {
        positions?[Name(text: key)]
    }

    private mutating func append(_ key: String, _ value: JSONValue) {
        members.append((key, value))
        if members.count > Self.linearLimit { addToIndex(key) }
    }

    /// Enters the last member.
    @usableFromInline
    mutating func addToIndex(_ key: String) {
        if positions != nil {
            positions?[Name(text: key)] = members.count - 1
        } else {
            buildIndex()
        }
    }

    private mutating func remove(at position: Int) {
        members.remove(at: position)
        if positions != nil { buildIndex() }
    }

    private mutating func buildIndex() {
        guard members.count > Self.linearLimit else {
            positions = nil
            return
        }
        var index: [Name: Int] = [:]
        index.reserveCapacity(members.count * 2)
        for (position, member) in members.enumerated() { index[Name(text: member.key)] = position }
        positions = index
    }
}

extension JSONObject: RandomAccessCollection {
    /// The position of the first member.
    @inlinable public var startIndex: Int { 0 }

    /// The position behind the last member.
    @inlinable public var endIndex: Int { members.count }

    /// The member at a position.
    @inlinable public subscript(position: Int) -> (key: String, value: JSONValue) { members[position] }
}

extension JSONObject: Hashable {
    /// Tells whether both have the same names with equal values, in whatever order.
    public static func == (first: JSONObject, second: JSONObject) -> Bool {
        guard first.count == second.count else { return false }
        for (position, member) in first.members.enumerated() {
            let other = second.members[position]
            if hasSameBytes(member.key, other.key) {
                guard member.value == other.value else { return false }
            } else {
                guard let value = second[member.key], value == member.value else { return false }
            }
        }
        return true
    }

    /// Feeds the members independently of their order.
    public func hash(into hasher: inout Hasher) {
        var sum = 0
        for member in members {
            var one = Hasher()
            combineBytes(of: member.key, into: &one)
            member.value.hash(into: &one)
            sum &+= one.finalize()
        }
        hasher.combine(members.count)
        hasher.combine(sum)
    }
}

extension JSONObject: ExpressibleByDictionaryLiteral {
    /// Makes an object from a literal; when a name occurs twice, the last one wins.
    public init(dictionaryLiteral elements: (String, JSONValue)...) {
        for (key, value) in elements { self[key] = value }
    }
}

extension JSONObject: CustomStringConvertible {
    /// The compact text.
    public var description: String { JSONValue.object(self).text() }
}
