// SPDX-License-Identifier: MPL-2.0

import JSON
import JSONE
import Schedules
import Testing

/// What a template gives, or how it fails.
private func outcome(_ template: String, _ context: String) throws -> String {
    let template = try JSONValue(parsing: template)
    let context = try JSONValue(parsing: context).object ?? [:]
    do throws(JSONEError) {
        let now = Timestamp(milliseconds: 1_484_843_240_974)
        return try JSONE.render(template, context: context, now: now).javascriptText(.sorted)
    } catch {
        return error.description
    }
}

struct OperatorTests {
    @Test(arguments: [
        (#"{"a":[1,true,null,"x"]}"#, "{}", #"{"a":[1,true,null,"x"]}"#),
        (#"[1,{"$if":"false","then":2},3]"#, "{}", "[1,3]"),
        (#"{"a":{"$if":"false","then":2},"b":1}"#, "{}", #"{"b":1}"#),
        (#"{"$if":"false","then":2}"#, "{}", "null"),
        (#"{"$if":"x","then":"${x}","else":"no"}"#, #"{"x":0}"#, #""no""#),
        (#"{"$if":"true","then":1,"else":"${nope}"}"#, "{}", "1"),
        (
            #"{"a${x}":1,"$$if":"y","$$$if":2,"$$1":3,"$1":4,"$":5,"$a-b":6}"#, #"{"x":7}"#,
            ##"{"$":5,"$$if":2,"$1":4,"$a-b":6,"$if":"y","a7":1}"##
        ),
        (#"{"${'$if'}":"x"}"#, "{}", #"{"$if":"x"}"#),
        (#"{"$eval":"{a: nope, b: 2, a: 1}"}"#, "{}", #"{"a":1,"b":2}"#),
        (#"{"$let":{"a":1,"b":{"$if":"true","then":2}},"in":{"$eval":"a + b + c"}}"#, #"{"c":3,"a":9}"#, "6"),
        (#"[{"$let":{"a":1},"in":"${a}"},"${a}"]"#, #"{"a":2}"#, #"["1","2"]"#),
        (#"{"$let":{"min":1},"in":{"$eval":"defined('min') && defined('x') && min == 1"}}"#, #"{"x":null}"#, "true"),
        (#"{"$map":[2,4],"each(x)":{"$eval":"x / 2"}}"#, "{}", "[1,2]"),
        (#"{"$map":[2,4],"each(x, i)":{"$eval":"[x, i]"}}"#, "{}", "[[2,0],[4,1]]"),
        (#"{"$map":[1,2,3],"each(x)":{"$if":"x != 2","then":{"$eval":"x"}}}"#, "{}", "[1,3]"),
        (#"{"$map":{"a":1,"b":2},"each(y)":{"${y.key}x":{"$eval":"y.val + 1"}}}"#, "{}", #"{"ax":2,"bx":3}"#),
        (#"{"$map":{"a":1},"each(v,k)":{"${k}":{"$eval":"v"}}}"#, "{}", #"{"a":1}"#),
        (#"{"$reduce":[1,2,3],"initial":10,"each(acc,x)":{"$eval":"acc + x"}}"#, "{}", "16"),
        (#"{"$reduce":[1,2,3],"initial":0,"each(a,x,i)":{"$if":"i > 0","then":{"$eval":"a + x"}}}"#, "{}", "5"),
        (#"{"$reduce":[],"initial":"${x}","each(a,x)":1}"#, "{}", #""${x}""#),
        (#"{"$find":[1,2,4],"each(x)":"x > 1"}"#, "{}", "2"),
        (#"[{"$find":[1],"each(x,i)":"i > 1"}]"#, "{}", "[]"),
        (#"{"$match":{"x == 1":"one","true":"any","false":"no"}}"#, #"{"x":1}"#, #"["any","one"]"#),
        (#"{"$switch":{"x == 1":"one","$default":"other"}}"#, #"{"x":2}"#, #""other""#),
        (#"[{"$switch":{"x == 1":"one"}}]"#, #"{"x":2}"#, "[]"),
        (#"{"$merge":[{"a":1,"b":1},{"b":2},{"$if":"false","then":{}}]}"#, "{}", #"{"a":1,"b":2}"#),
        (#"{"$mergeDeep":[{"a":{"b":[1]}},{"a":{"b":[2],"c":3}}]}"#, "{}", #"{"a":{"b":[1,2],"c":3}}"#),
        (#"{"$flatten":[[1,[2]],3]}"#, "{}", "[1,[2],3]"),
        (#"{"$flattenDeep":[[1,[2]],3]}"#, "{}", "[1,2,3]"),
        (#"{"$sort":[3,1,2]}"#, "{}", "[1,2,3]"),
        (#"{"$sort":[]}"#, "{}", "[]"),
        (
            #"{"$sort":[{"a":2,"n":0},{"a":1},{"a":2,"n":1}],"by(x)":"x.a"}"#, "{}",
            #"[{"a":1},{"a":2,"n":0},{"a":2,"n":1}]"#
        ),
        (#"{"$reverse":[3,1]}"#, "{}", "[1,3]"),
        (#"{"$json":{"b":1.0,"a":[true,"é"]}}"#, "{}", ##""{\"a\":[true,\"é\"],\"b\":1}""##),
        (#"{"$fromNow":"1 day"}"#, "{}", #""2017-01-20T16:27:20.974Z""#),
        (#"{"$fromNow":"","from":"2020-01-01T00:00:00Z"}"#, "{}", #""2020-01-01T00:00:00.000Z""#),
        (#"{"$fromNow":"1h","from":null}"#, #"{"now":"2020-01-01T00:00:00.5Z"}"#, #""2020-01-01T01:00:00.500Z""#),
        (#"{"$fromNow":"1h","from":"yesterday"}"#, "{}", "null"),
        (#"{"$eval":"now"}"#, "{}", #""2017-01-19T16:27:20.974Z""#),
        (#""{{ jinja }} $x $$y ${'}'} $${z} $$${1} \\${2}""#, "{}", ##""{{ jinja }} $x $$y } ${z} $${1} \\2""##),
        (
            #""a${null}b${true}c${1e}d""#, "{}",
            "SyntaxError: Found: e token, expected one of: !=, &&, (, *, **, +, -, ., /, <, <=, ==, >, >=, [, in, ||"
        ),
    ])
    func `H87: operators give these results`(_ template: String, _ context: String, _ expected: String) throws {
        #expect(try outcome(template, context) == expected)
    }

    @Test(arguments: [
        (#"{"$eval":1}"#, "TemplateError: $eval must be given a string expression"),
        (#"{"$eval":"1","$if":"1"}"#, "TemplateError: only one operator allowed"),
        (#"{"$eval":"1","b":1,"a":1}"#, "TemplateError: $eval has undefined properties: a b"),
        (#"{"$if":"true","$then":1}"#, "TemplateError: $if Syntax error: $then: should be spelled then: (no $)"),
        (#"{"$foo":1}"#, "TemplateError: $<identifier> is reserved; use $$<identifier>"),
        (#"{"$then":1}"#, "TemplateError: $<identifier> is reserved; use $$<identifier>"),
        (#"{"a":[0,{"b":"${x}"}]}"#, "InterpreterError at template.a[1].b: unknown context value x"),
        (#"{"a-b":"${x}"}"#, #"InterpreterError at template["a-b"]: unknown context value x"#),
        (#"{"$let":{"a":1}}"#, "TemplateError: $let operator requires an `in` clause"),
        (#"{"$let":{"a":1},"in":null}"#, "TemplateError: $let operator requires an `in` clause"),
        (#"{"$let":[],"in":1}"#, "TemplateError: $let value must be an object"),
        (#"{"$let":{"a-b":1},"in":1}"#, "TemplateError: top level keys of $let must follow /[a-zA-Z_][a-zA-Z0-9_]*/"),
        (#"{"$map":1,"each(x)":1}"#, "TemplateError: $map value must evaluate to an array or object"),
        (#"{"$map":[]}"#, "TemplateError: $map must have exactly two properties"),
        (#"{"$map":[],"each(x,i,j)":1}"#, "TemplateError: $map has undefined properties: each(x,i,j)"),
        (#"{"$map":[],"each()":1}"#, "TemplateError: $map has undefined properties: each()"),
        (#"{"$map":[],"each(x) ":1}"#, "TemplateError: $map has undefined properties: each(x) "),
        (#"{"$map":{"a":1},"each(x)":1}"#, "TemplateError: $map on objects expects each(x) to evaluate to an object"),
        (#"{"$reduce":[],"each(a,b)":1}"#, "TemplateError: $reduce must have exactly three properties"),
        (#"{"$switch":{"true":1,"1":2}}"#, "TemplateError: $switch can only have one truthy condition"),
        (#"{"$match":1}"#, "TemplateError: $match can evaluate objects only"),
        (#"{"$merge":[1]}"#, "TemplateError: $merge value must evaluate to an array of objects"),
        (#"{"$sort":[1,"a"]}"#, "TemplateError: $sorted values to be sorted must have the same type"),
        (#"{"$sort":[[1]]}"#, "TemplateError: $sorted values to be sorted must have the same type"),
        (#"{"$flatten":1}"#, "TemplateError: $flatten value must evaluate to an array"),
        (#"{"$fromNow":1}"#, "TemplateError: $fromNow expects a string"),
        (#""${[1]}""#, "TemplateError: interpolation of '[1]' produced an array or object"),
        (#""${min}""#, "TemplateError: evaluated template contained uncalled functions"),
        (#"{"a":{"$eval":"[min]"}}"#, "TemplateError: evaluated template contained uncalled functions"),
        (#"{"$json":{"$eval":"min"}}"#, "TemplateError: evaluated template contained uncalled functions"),
        (#""${1""#, "SyntaxError: Found end of string, expected }"),
    ])
    func `misused operators are refused in these words`(_ template: String, _ expected: String) throws {
        #expect(try outcome(template, "{}") == expected)
    }

    @Test func `names in the context must be identifiers`() throws {
        #expect(
            try outcome("1", #"{"a-b":1}"#)
                == "TemplateError: top level keys of context must follow /[a-zA-Z_][a-zA-Z0-9_]*/"
        )
        #expect(try outcome(#""${payload['a-b']}""#, #"{"payload":{"a-b":1}}"#) == #""1""#)
    }
}

struct ExpressionTests {
    private static let context = #"{"a":{"b":1,"c":[1,2,3]},"s":"aüc","n":null,"f":false,"payload":{"n":1.0}}"#

    private static func value(of expression: String) throws -> String {
        try outcome(JSONValue.object(["$eval": .string(expression)]).text(), context)
    }

    @Test(arguments: [
        ("-2 ** 2", "4"), ("2 ** 3 ** 2", "512"), ("2 ** -1", "0.5"), ("1 + 2 in [3]", "true"),
        ("1 + 2 * 3 - 4 / 2", "5"),
        ("a.b", "1"), ("a['b']", "1"), ("a['x']", "null"), ("a.c[-1]", "3"), ("[1,2,3][-4]", "1"), ("s[1]", #""ü""#),
        ("s[1:]", #""üc""#), ("a.c[:2]", "[1,2]"), ("a.c[2:1]", "[]"), ("a.c[-2:-1]", "[2]"),
        ("a.c[0:null]", "[1,2,3]"),
        ("'b' in a", "true"), ("'x' in 'axb'", "true"), ("{a: 1} in [{a: 1}]", "true"), ("\"1\" == 1", "false"),
        ("1 == 1.0", "true"), ("null == false", "false"), ("!(a.b)", "false"), ("!!'x'", "true"), ("f || n", "false"),
        ("true || nope", "true"), ("false && nope", "false"), ("{k: 1, \"k 2\": 2, k: 3,}", #"{"k":3,"k 2":2}"#),
        ("[]", "[]"),
        ("01", "1"), ("truex == 1 || true", "InterpreterError: unknown context value truex"),
        ("0.1 + 0.2", "0.30000000000000004"),
        ("1000000000000000000000", "1e+21"), ("1 / 10000000", "1e-7"), ("'a\\b'", #""a\\b""#), ("\"it's\"", #""it's""#),
        ("2 ** 1024", "null"), ("str(payload.n)", #""1""#), ("'a' < 'b'", "true"), ("typeof(min)", #""function""#),
        ("min == min", "true"), ("min == max", "false"),
    ])
    func `expressions have these values`(_ expression: String, _ expected: String) throws {
        #expect(try Self.value(of: expression) == expected)
    }

    @Test(arguments: [
        ("x", "InterpreterError: unknown context value x"), ("!a.b", "InterpreterError: infix: . expects objects"),
        ("-a.b", "InterpreterError: unary - expects number"),
        ("1 in [1] == true", "InterpreterError: Infix: in expects Array, string, or object on right side"),
        ("1 < 2 < 3", "InterpreterError: infix: < expects numbers/strings < numbers/strings"),
        ("a.x", "InterpreterError: object has no property \"x\""),
        ("a[1]", "InterpreterError: object keys must be strings"), ("[1][1]", "InterpreterError: index out of bounds"),
        ("[1]['a']", "InterpreterError: should only use integers to access arrays or strings"),
        ("[1][null:1]", "InterpreterError: cannot perform interval access with non-integers"),
        ("1 / 0", "InterpreterError: division by zero"),
        ("1 + 'a'", "InterpreterError: infix: + expects numbers/strings + numbers/strings"),
        ("1 - 'a'", "InterpreterError: infix: - expects number - number"),
        ("1()", "InterpreterError: 1 is not callable"), ("n()", "InterpreterError: null is not callable"),
        ("1[0]", "InterpreterError: infix: \"[..]\" expects object, array, or string"),
        ("", "SyntaxError: Unexpected end of input"), ("1 +", "SyntaxError: Unexpected end of input"),
        ("a.in", "SyntaxError: Found: in token, expected one of: identifier"),
        (
            "[1,]",
            "SyntaxError: Found: ] token, expected one of: !, (, +, -, [, false, identifier, null, number, string, true, {"
        ),
        ("(1", "SyntaxError: Unexpected end of input"),
        (
            "1 2",
            "SyntaxError: Found: 2 token, expected one of: !=, &&, (, *, **, +, -, ., /, <, <=, ==, >, >=, [, in, ||"
        ),
        ("a @ b", "SyntaxError: Unexpected input for 'a @ b' at '@ b'"),
        ("'a", "SyntaxError: Unexpected input for ''a' at ''a'"),
        ("min()", "BuiltinError: invalid arguments to builtin: min: expected at least 1 arguments"),
        ("min('a')", "BuiltinError: invalid arguments to builtin: min"),
        ("len(1)", "BuiltinError: invalid arguments to builtin: len"),
        ("len('a', 'b')", "BuiltinError: invalid arguments to builtin: len"),
        ("number('x')", "BuiltinError: invalid arguments to builtin: number"),
        ("range(1, 2, 0)", "BuiltinError: invalid arguments to builtin: range"),
        ("join([{}], '')", "BuiltinError: invalid arguments to builtin: join"),
        ("fromNow('x')", "BuiltinError: String: 'x' isn't a time expression"),
    ])
    func `H94: broken expressions are refused in these words`(_ expression: String, _ expected: String) throws {
        #expect(try Self.value(of: expression) == expected)
    }

    @Test(arguments: [
        ("min(3, 1.5)", "1.5"), ("max(1)", "1"), ("sqrt(9)", "3"), ("ceil(1.2) + floor(-1.2) + abs(-4)", "4"),
        ("range(1, 4)", "[1,2,3]"),
        ("range(5, 1)", "[]"), ("range(5, 1, -1)", "[5,4,3,2]"), ("uppercase('ß')", #""SS""#),
        ("lowercase('Ä')", #""ä""#), ("str(null)", #""null""#),
        ("number(' 0x10 ')", "16"), ("number('')", "0"), ("number('-1.5e1')", "-15"), ("len('aü😀')", "3"),
        ("len([1])", "1"), ("strip(' a\u{2003}')", #""a""#),
        ("lstrip(' a ')", #""a ""#), ("rstrip(' a ')", #"" a""#), ("split('a,b', ',')", #"["a","b"]"#),
        ("split('ab', '')", #"["a","b"]"#),
        ("split('a1b', 1)", #"["a","b"]"#), ("join([1, 'a', true, null], '-')", #""1-a-true-""#),
        ("fromNow('1 day', '2020-01-01T00:00:00Z')", #""2020-01-02T00:00:00.000Z""#),
        (
            "[typeof(1), typeof(''), typeof([]), typeof({}), typeof(null), typeof(true)]",
            #"["number","string","array","object","null","boolean"]"#
        ),
        ("[defined('a'), defined('x'), defined('min'), defined('now')]", "[true,false,true,true]"),
    ])
    func `built-in functions give these results`(_ expression: String, _ expected: String) throws {
        #expect(try Self.value(of: expression) == expected)
    }
}
