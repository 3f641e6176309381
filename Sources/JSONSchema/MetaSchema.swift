// SPDX-License-Identifier: MPL-2.0

import JSON

/// The schemas of schemas, compiled on first use.
enum MetaSchema {
    static let draft7 = compiled(modern)

    private static let draft4 = compiled(old)

    /// The meta-schema with an address; a trailing `#` does not matter.
    static func named(_ uri: String) -> JSONSchema? {
        let address = uri.hasSuffix("#") ? String(uri.dropLast()) : uri
        switch address {
        case "http://json-schema.org/draft-04/schema": return draft4
        case "http://json-schema.org/draft-06/schema", "http://json-schema.org/draft-07/schema": return draft7
        default: return nil
        }
    }

    /// A text of ours that does not compile shows up in the tests, as every schema would be unknown then.
    private static func compiled(_ text: String) -> JSONSchema? {
        guard let document = try? JSONValue(parsing: text) else { return nil }
        return try? JSONSchema(document)
    }

    private static let types =
        #"{"enum": ["array", "boolean", "integer", "null", "number", "object", "string"]}"#

    /// What drafts 4, 6 and 7 have in common.
    private static let common = #"""
        "title": {"type": "string"},
        "description": {"type": "string"},
        "$schema": {"type": "string"},
        "default": {},
        "minLength": {"$ref": "#/definitions/count"},
        "maxLength": {"$ref": "#/definitions/count"},
        "pattern": {"type": "string"},
        "minItems": {"$ref": "#/definitions/count"},
        "maxItems": {"$ref": "#/definitions/count"},
        "uniqueItems": {"type": "boolean"},
        "minProperties": {"$ref": "#/definitions/count"},
        "maxProperties": {"$ref": "#/definitions/count"},
        "maximum": {"type": "number"},
        "minimum": {"type": "number"},
        "items": {"anyOf": [{"$ref": "#"}, {"$ref": "#/definitions/schemas"}]},
        "definitions": {"type": "object", "additionalProperties": {"$ref": "#"}},
        "properties": {"type": "object", "additionalProperties": {"$ref": "#"}},
        "patternProperties": {"type": "object", "additionalProperties": {"$ref": "#"}},
        "allOf": {"$ref": "#/definitions/schemas"},
        "anyOf": {"$ref": "#/definitions/schemas"},
        "oneOf": {"$ref": "#/definitions/schemas"},
        "not": {"$ref": "#"},
        "format": {"type": "string"},
        "type": {"anyOf": [
            {"$ref": "#/definitions/type"},
            {"type": "array", "items": {"$ref": "#/definitions/type"}, "minItems": 1, "uniqueItems": true}
        ]}
        """#

    private static let modern = #"""
        {
            "$id": "http://json-schema.org/draft-07/schema",
            "definitions": {
                "count": {"type": "integer", "minimum": 0},
                "schemas": {"type": "array", "minItems": 1, "items": {"$ref": "#"}},
                "strings": {"type": "array", "items": {"type": "string"}, "uniqueItems": true},
                "type": \#(types)
            },
            "type": ["object", "boolean"],
            "properties": {
                \#(common),
                "$id": {"type": "string"},
                "$ref": {"type": "string"},
                "$comment": {"type": "string"},
                "readOnly": {"type": "boolean"},
                "writeOnly": {"type": "boolean"},
                "examples": {"type": "array"},
                "multipleOf": {"type": "number", "exclusiveMinimum": 0},
                "exclusiveMaximum": {"type": "number"},
                "exclusiveMinimum": {"type": "number"},
                "additionalItems": {"$ref": "#"},
                "contains": {"$ref": "#"},
                "required": {"$ref": "#/definitions/strings"},
                "additionalProperties": {"$ref": "#"},
                "dependencies": {
                    "type": "object",
                    "additionalProperties": {"anyOf": [{"$ref": "#"}, {"$ref": "#/definitions/strings"}]}
                },
                "propertyNames": {"$ref": "#"},
                "const": {},
                "enum": {"type": "array"},
                "contentMediaType": {"type": "string"},
                "contentEncoding": {"type": "string"},
                "if": {"$ref": "#"},
                "then": {"$ref": "#"},
                "else": {"$ref": "#"}
            }
        }
        """#

    private static let old = #"""
        {
            "id": "http://json-schema.org/draft-04/schema",
            "definitions": {
                "count": {"type": "integer", "minimum": 0},
                "schemas": {"type": "array", "minItems": 1, "items": {"$ref": "#"}},
                "strings": {"type": "array", "minItems": 1, "items": {"type": "string"}, "uniqueItems": true},
                "type": \#(types)
            },
            "type": "object",
            "properties": {
                \#(common),
                "id": {"type": "string"},
                "multipleOf": {"type": "number", "exclusiveMinimum": 0},
                "exclusiveMaximum": {"type": "boolean"},
                "exclusiveMinimum": {"type": "boolean"},
                "additionalItems": {"anyOf": [{"type": "boolean"}, {"$ref": "#"}]},
                "required": {"$ref": "#/definitions/strings"},
                "additionalProperties": {"anyOf": [{"type": "boolean"}, {"$ref": "#"}]},
                "dependencies": {
                    "type": "object",
                    "additionalProperties": {"anyOf": [{"$ref": "#"}, {"$ref": "#/definitions/strings"}]}
                },
                "enum": {"type": "array", "minItems": 1, "uniqueItems": true}
            },
            "dependencies": {"exclusiveMaximum": ["maximum"], "exclusiveMinimum": ["minimum"]}
        }
        """#
}
