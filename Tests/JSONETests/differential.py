# SPDX-License-Identifier: MPL-2.0
"""Compares `slipway jsone render` with the Python implementation of JSON-e.

usage: differential.py PATH-OF-SLIPWAY        (needs the package json-e)

Prints every difference and exits with status 1 when there is one. Of failures only the kind is compared, since
texts differ between implementations. Python refuses to compare integers with fractions, JavaScript and the service do not:
those vectors are left out.
"""
import itertools
import json
import subprocess
import sys
import tempfile

import jsone

NOW = "2017-01-19T16:27:20.974Z"
CONTEXT = {
    "a": {"b": 1, "c": [1, 2, 3], "d": {"e": "x"}},
    "s": "hällo",
    "n": None,
    "t": True,
    "f": False,
    "zero": 0,
    "list": [3, 1, 2],
    "objects": [{"k": "b", "v": 2}, {"k": "a", "v": 1}],
    "now": NOW,
}
ATOMS = ["1", "0", "2.5", "'x'", "''", "true", "null", "[1, 2]", "[]", "{a: 1}", "{}", "s", "a", "a.b", "a.c", "zero", "f"]
OPERATORS = ["+", "-", "*", "/", "**", "<", ">", "<=", ">=", "==", "!=", "in", "&&", "||"]
EXPRESSIONS = [
    "a.c[0]", "a.c[-1]", "a.c[3]", "a.c[1:]", "a.c[:1]", "a.c[-2:]", "a.c[5:]", "a.d.e", "a['d']['e']", "a['x']", "a.x",
    "s[0]", "s[1:3]", "s[-1]", "'abc'[1:2]", "-1", "+1", "!1", "!''", "!!a", "(1 + 2) * 3", "2 ** 3 ** 2", "-2 ** 2",
    "1 + 2 in [3]", "{x: 1, 'y z': [2]}", "{x: 1}.x", "[1, 2][0]", "min(1, 2)", "max(1, 2.5)", "sqrt(4)", "ceil(1.5)",
    "floor(-1.5)", "abs(-3)", "range(0, 4)", "range(4, 0, -2)", "lowercase('ÄB')", "uppercase('äb')", "str(1)", "str(true)",
    "str(null)", "len(s)", "len(list)", "strip('  a ')", "lstrip(' a ')", "rstrip(' a ')", "split('a b', ' ')",
    "split('a1b', 1)", "split('ab', '')", "join(['a', 'b'], '-')", "join([1, 2], ' ')", "fromNow('1 day')",
    "fromNow('-2 hours')", "fromNow('1 week 2 days', '2020-01-01T00:00:00.000Z')", "typeof(s)", "typeof(1)", "typeof(a)",
    "typeof(n)", "typeof(t)", "typeof(list)", "typeof(min)", "defined('a')", "defined('zzz')", "number('1.5')", "nope",
    "a.", "a[", "a[]", "(", ")", "1 +", "* 1", "[1", "{a}", "{a: 1", "f(", "1 2", "'abc", "@", "min()", "min('a')", "len(1)",
    "sqrt('a')", "strip(1)", "split(1, 2)", "range(1)", "str([])", "n.x", "s.x", "1.x", "list[0:1][0]", "list['a']", "a[1]",
    "n[0]", "s()", "a.b()", "len", "a.in", "truex", "nullx", "inx", "1.5.5", "0.1 + 0.2 == 0.3", "x == 1 || t", "t || x",
    "f && x", "-'a'", "+n", "-a", "1 in 1", "1 in 'a'", "1 in a", "'b' in a", "'ll' in s", "[1] in [[1]]", "{a: 1} in [{a: 1}]",
]
TEMPLATES = [
    "plain", "${a.b}", "x${s}y${n}z", "$${a}", "$$${a.b}", "${t} ${f}", "${a}", "${list}", "${", "${1", "${'}'}", "${{x: 1}.x}",
    "$a $$a {a} }", {"${s}": 1}, {"$$if": 1}, {"$$$x": 1}, {"$x": 1}, {"$": 1}, {"$1": 1}, {"$a-b": 1}, {"$$1": 1}, {"$eval": 1},
    {"$eval": "a", "x": 1}, {"$if": "t", "then": 1}, {"$if": "f", "then": 1}, [{"$if": "f", "then": 1}, 2], {"k": {"$if": "f", "then": 1}},
    {"$if": "f", "then": 1, "else": 2}, {"$if": "t", "else": 2}, {"$if": "list", "then": {"$eval": "list"}},
    {"$let": {"q": 1}, "in": {"$eval": "q"}}, {"$let": {"q": {"$eval": "a.b"}, "r": "${s}"}, "in": "${q}${r}"}, {"$let": {"q": 1}},
    {"$let": 1, "in": 1}, {"$let": {"q r": 1}, "in": 1}, {"$let": {"a": 5}, "in": [{"$eval": "a"}, {"$let": {"a": 6}, "in": "${a}"}, "${a}"]},
    {"$let": {"$if": "t", "then": {"q": 4}}, "in": "${q}"},
    {"$map": {"$eval": "list"}, "each(x)": {"$eval": "x * 2"}}, {"$map": {"$eval": "list"}, "each(x,i)": "${i}:${x}"},
    {"$map": {"$eval": "list"}, "each(x)": {"$if": "x > 1", "then": {"$eval": "x"}}}, {"$map": {"p": 1, "q": 2}, "each(y)": {"${y.key}!": "${y.val}"}},
    {"$map": {"p": 1}, "each(v,k)": {"${k}": "${v}"}}, {"$map": {"p": 1}, "each(x)": 1}, {"$map": 1, "each(x)": 1}, {"$map": [], "each(x y)": 1},
    {"$reduce": {"$eval": "list"}, "initial": 0, "each(acc,x)": {"$eval": "acc + x"}}, {"$reduce": [1], "initial": 0, "each(acc,x,i)": "${i}"},
    {"$reduce": 1, "initial": 0, "each(a,b)": 1}, {"$find": {"$eval": "list"}, "each(x)": "x < 3"}, [{"$find": [1], "each(x)": "x > 1"}],
    {"$find": 1, "each(x)": "x"}, {"$match": {"a.b == 1": "one", "t": "true", "f": "no"}}, {"$match": 1}, {"$switch": {"a.b == 1": 1, "f": 2}},
    {"$switch": {"f": 2, "$default": "${s}"}}, [{"$switch": {"f": 2}}], {"$switch": {"t": 1, "a": 2}}, {"$switch": 1},
    {"$merge": [{"p": 1}, {"p": 2, "q": 3}]}, {"$merge": []}, {"$merge": [1]}, {"$merge": 1}, {"$mergeDeep": [{"p": {"q": [1]}}, {"p": {"q": [2], "r": 3}}]},
    {"$mergeDeep": []}, {"$flatten": [[1], 2, [[3]]]}, {"$flatten": 1}, {"$flattenDeep": [[1], 2, [[3]]]}, {"$sort": {"$eval": "list"}},
    {"$sort": ["b", "a", "B"]}, {"$sort": [1, "a"]}, {"$sort": [[1], [2]]}, {"$sort": {"$eval": "objects"}, "by(o)": "o.k"},
    {"$sort": {"$eval": "objects"}, "by(o)": "o"}, {"$sort": []}, {"$sort": 1}, {"$reverse": {"$eval": "list"}}, {"$reverse": 1}, {"$json": {"b": 1, "a": "ä"}},
    {"$json": {"$eval": "a"}}, {"$fromNow": "2 days 3 hours"}, {"$fromNow": "1 year"}, {"$fromNow": "1 fortnight"}, {"$fromNow": 1},
    {"$fromNow": "1 month", "from": "2020-01-31T00:00:00.000Z"}, {"$eval": "1", "$if": "1"}, {"x": ["${nope}"]}, {"x": [{"y": {"$eval": "a.nope"}}]},
    {"x y": "${nope}"}, [[["${nope}"]]], {"$eval": "min"}, [{"$eval": "[min]"}], {"a": 1, "b": [2, {"c": None}]}, None, 1.5, True, [], {},
]


def oracle(template):
    try:
        result = jsone.render(template, CONTEXT)
        return {"result": json.loads(json.dumps(result))}
    except jsone.JSONTemplateError as error:
        return {"kind": type(error).__name__, "text": str(error)}
    except Exception as error:
        return {"kind": "crash", "text": repr(error)}


def ours(binary, template, context_file):
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(template, file)
        file.flush()
        command = [binary, "jsone", "render", "--template", file.name, "--context", context_file, "--now", NOW, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    answer = json.loads(done.stdout)
    if done.returncode == 0:
        return {"result": answer}
    return {"kind": answer["error"].split(":")[0].split(" ")[0], "text": answer["error"]}


def vectors():
    yield from TEMPLATES
    for expression in EXPRESSIONS:
        yield {"$eval": expression}
    for left, operator, right in itertools.product(ATOMS, OPERATORS, ATOMS):
        if operator in ("<", ">", "<=", ">=") and "2.5" in (left, right):
            continue
        if (hash_of(left, operator, right)) % 8 == 0:
            yield {"$eval": f"{left} {operator} {right}"}


def hash_of(*parts):
    return sum(ord(character) * (index + 1) for index, character in enumerate("".join(parts)))


def main():
    binary = sys.argv[1]
    count, failures = 0, 0
    with tempfile.NamedTemporaryFile("w", suffix=".json") as context_file:
        json.dump(CONTEXT, context_file)
        context_file.flush()
        for template in vectors():
            expected, actual = oracle(template), ours(binary, template, context_file.name)
            count += 1
            both_fail = "kind" in expected and "kind" in actual
            if both_fail and (expected["kind"] in ("crash", actual["kind"])):
                continue
            if expected != actual:
                failures += 1
                print(json.dumps(template, ensure_ascii=False), "\n  python:", expected, "\n  slipway:", actual)
    print(f"{count} vectors, {failures} differences")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
