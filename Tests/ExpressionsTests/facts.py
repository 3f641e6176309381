#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""What Python's re and node's RegExp say, as the table that the tests of Expressions compare with.

usage: facts.py > Facts.swift, with node in the PATH
"""

import json
import re
import subprocess

COMMON = [
    r"^(?P<path>/acme/product)(/|\.git|$)", r"^(?P<path>/mozilla-(central|unified))(/|$)",
    r"^(?P<path>/releases/mozilla-(beta|release|esr\d+))(/|$)", r"^(?P<path>/o/scriptworker(?:|-scripts))(/|\.git|$)",
    r"^/api/queue/v1/task/(?P<taskId>[^/]+)(/runs/\d+)?/artifacts/(?P<filepath>.*)$",
    r"(?P<a>x|xy)(?P<b>y?)z", r"^(?P<a>a+?)(?P<b>a*)$", r"(?P<a>[a-c_.]+)-(?P<b>[^@]*)$", r"^((?P<a>b)|c)+$", r"^$", "",
    r"(?P<w>\w+)@(?P<h>[\w.-]+)", r"a|^b|c$", r"(?P<a>(ab|a)(bc|c)?)d", r"\[(?P<a>[0-9]+)\]", r"\bfoo\b", r"\Bo", r"(\d+)-\1",
    r"^[A-Za-z0-9_-]{8}[Q-T]", r"x{2}", r"x{2,}y", r"^x{1,2}?", r"a{,2}b", r"a{x}", "é+", r"[à-ü]", r"\u00e9", r"\x41\x2d", r"(?=b)",
    r"b(?!c)", r"(?<=a)b", r"(?<!a)b", r"^.$", r"^..$", r"\s+", r"\S\s", r"[\s-]", r"[^\n]$", r"\.\*\+\?\(\)\[\]\{\}\^\$\|\\\/", r"\t\n\r\f\v",
    r"[\b]", r"\0", r"[.*+?]", r"[\]\-]", r"\D\W", r"(a*)*", r"(a|b)*?c", r"((a)|b)+", r"(?:a(b)?)+", r"\w+$", r"\d",
    "😀", "^[😀-😂]$", r"(?P<n>a)(?P=n)", r"(?i:PRODUCT)", r"a++", r"a**", r"*a", "(", ")", "[", r"[b-a]", "(?P<n>a", r"(?P<1>a)",
    r"a{3,2}", r"\Z", r"\A", r"\q", r"[\w-a]", r"(?R)", r"(?&x)", r"(*FAIL)", r"(*UTF)a", r"(?C1)", r"\Qa\E", r"\K", r"\R", r"\h", r"\X", r"\N",
    r"a\Z", r"(?#note[)a", r"[[:alpha:]]+", r"[a[b]+", r"\g1", "\\", r"(?>a+)b", r"(?i)product", r"(a)(?(1)b|c)", r"\3", r"[]a]", r"[^]a]", r"[]", r"[^]",
    r"\cJ", r"\c1", r"[\cJ]", r"\u{1F600}", r"\ud83d\ude00", r"\ud83d", r"\x4", r"\u12", r"\U0001F600", r"\p{Lu}", r"\P{L}", r"\p{Greek}", r"(?<n>a)\k<n>",
    r"\k<m>", r"}", r"]", r"a?+", r"a{2}+", r"a+?+", r"\-", r"\@", r"[\d-z]", r"[\S]", r"^\S+$", r"[^\s]", r"(?s).", r"(?m)^b", r"(?x) a", r"(?a)\w",
    r"()\1", r"(a)|\1b", r"(?P<y>\d{4})-(?P<m>\d\d)$", r"^(?:exchange/taskcluster-hooks/.*)", r"^.*(MS|ms|yosemite)-.*",
]
TEXTS = [
    "/acme/product", "/acme/product.git", "/acme/products", "/mozilla-unified", "/releases/mozilla-esr115/file", "/o/scriptworker-scripts",
    "/api/queue/v1/task/abc/runs/12/artifacts/", "/api/queue/v1/task/abc/artifacts/public/a b.zip", "xyz", "xxyyz", "aaaa", "a", "", "b", "bcb",
    "a.b-c-d", "-", "me@example.com", "abcd", "ab", "abab", "[17]", "c", "é", "éa foo b", "a\nb", "a\n", "\n", "\r", "\u2028", "\u00a0x", "\x0b", "\x00", "\x08",
    "12-12", "२३", "ab c\ufeff", "😀", "A-", "a{,2}b", "a{x}", "aZ", "ΑΒ", ".*+?()[]{}^$|\\/", "}]@", "\t\n\r\f\x0b", "2024-02", "2024-02\n",
    "exchange/taskcluster-hooks/v1/x", "t-w1064-ms-001", "KsBe7cQ9QzS8o2Kq0bQ1Xw", "\ud800".encode("utf-16", "surrogatepass")[:0].decode("utf-16"),
    "😁!", "a\r\nb", "ABC", "Product",
]
NODE = """
const [patterns, texts] = JSON.parse(require('fs').readFileSync(0, 'utf8'));
console.log(JSON.stringify(patterns.map(pattern => {
  let regex;
  try { regex = new RegExp(pattern, 'u'); } catch { return null; }
  return texts.map(text => { const m = regex.exec(text); return m ? [...m].map(x => x === undefined ? null : x) : 0; });
})));
"""


def python(pattern):
    """None for what is no expression, else for each text the groups of search, and whether match and fullmatch match."""
    try:
        compiled = re.compile(pattern)
    except (re.error, OverflowError):
        return None
    rows = []
    for text in TEXTS:
        match = compiled.search(text)
        if match is None:
            rows.append(0)
            continue
        named = {name: value for name, value in match.groupdict().items() if value is not None}
        rows.append([[match[0], *match.groups()], named, bool(compiled.match(text)), bool(compiled.fullmatch(text))])
    return rows


def compact(rows):
    """The rows that match, by the number of the text."""
    return None if rows is None else {str(index): row for index, row in enumerate(rows) if row != 0}


def text(name, value):
    lines = ",\n".join(json.dumps(each) for each in value)
    return f'    static let {name} = ##"""\n[\n{lines}\n]\n"""##\n'


def main():
    patterns = list(dict.fromkeys(COMMON))
    texts = list(dict.fromkeys(TEXTS))
    TEXTS[:] = texts
    script = [re.sub(r"\(\?P<", "(?<", re.sub(r"\(\?P=(\w+)\)", r"\\k<\1>", pattern)) for pattern in patterns]
    done = subprocess.run(["node", "-e", NODE], input=json.dumps([script, texts]), check=True, capture_output=True, text=True)
    print("// SPDX-License-Identifier: MPL-2.0\n")
    print("// Made by facts.py: what the two languages themselves say about expressions and texts.\n")
    print("// swift-format-ignore-file\n")
    print("enum Facts {")
    print("    /// The texts, which the rows below refer to by number.")
    print(text("texts", texts))
    print("    /// Expression and, unless it is none, what `search` finds where: groups, groups by name, `match`, `fullmatch`.")
    print(text("python", [[pattern, compact(python(pattern))] for pattern in patterns]))
    print("    /// Expression and, unless it is none, the groups where it matches.")
    print(text("ecmaScript", [[pattern, compact(rows)] for pattern, rows in zip(script, json.loads(done.stdout))]), end="")
    print("}")


if __name__ == "__main__":
    main()
