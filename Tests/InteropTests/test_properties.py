# SPDX-License-Identifier: MPL-2.0
"""JSON-e against the PyPI implementation and cron against croniter: random cases, one process for thousands of them.

Each test prints its seed; SLIPWAY_SEED repeats another run. What differs on purpose is listed where it is allowed for, and
asserted, so that an agreement that appears or vanishes is noticed.
"""

import datetime
import importlib.util
import json
import os
import random
import subprocess

import croniter
import jsone
import pytest

from conftest import TOP
from support import BINARIES

SEED = int(os.environ.get("SLIPWAY_SEED", "20240210"))
# SLIPWAY_FUZZ=10 makes ten times as many cases.
DEPTH = int(os.environ.get("SLIPWAY_FUZZ", "1"))
TEMPLATES = 15_000 * DEPTH
PATTERNS = 6000 * DEPTH


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# The vectors that are compared one by one elsewhere, with their context and the oracle.
differential = load(TOP / "Tests" / "JSONETests" / "differential.py")


def batch(command, cases):
    """The answers of one process to all cases."""
    lines = "".join(json.dumps(case) + "\n" for case in cases)
    done = subprocess.run([str(BINARIES / "slipway"), command, "batch"], input=lines, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.split("\n")[:-1]]
    assert len(answers) == len(cases)
    return answers


# ---------------------------------------------------------------- JSON-e


class Templates:
    """Random templates over the vectors' context: mostly sensible ones, so that rendering gets deep into them."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        # Names bound by the operators around the place that is being generated.
        self.bound = []

    def pick(self, *choices):
        return self.random.choice(choices)

    # Expressions come in kinds, since most operators fail on most pairs of values. `wild` ones may be anything.

    def number(self, depth):
        if depth <= 0:
            return self.pick("0", "1", "2", "3", "7", "-1", "a.b", "zero", "len(list)", "list[0]", "a.c[1]")
        return self.pick(
            lambda: f"({self.number(depth - 1)} {self.pick('+', '-', '*')} {self.number(depth - 1)})",
            lambda: f"{self.number(depth - 1)} {self.pick('+', '-', '*')} {self.number(depth - 1)}",
            lambda: f"{self.pick('min', 'max')}({self.number(depth - 1)}, {self.number(depth - 1)})",
            lambda: f"{self.pick('abs', 'floor', 'ceil')}({self.number(depth - 1)})",
            lambda: f"len({self.pick(self.string, self.list)(depth - 1)})",
            lambda: f"-{self.number(0)}",
            lambda: f"{self.number(0)} ** {self.pick('0', '1', '2', '3')}",
            lambda: f"{self.list(depth - 1)}[{self.pick('0', '-1', '1')}]",
        )()

    def string(self, depth):
        if depth <= 0:
            return self.pick("'x'", "''", "s", "'a b'", "a.d.e", '"q"', "typeof(list)", "'1.5'")
        return self.pick(
            lambda: f"({self.string(depth - 1)} + {self.string(depth - 1)})",
            lambda: f"{self.pick('lowercase', 'uppercase', 'strip', 'lstrip', 'rstrip')}({self.string(depth - 1)})",
            lambda: f"str({self.pick(self.number, self.boolean, self.string)(depth - 1)})",
            lambda: f"join({self.pick('list', 'a.c', '[s, 2]', 'split(s, chr)'.replace('chr', repr('l')))}, {self.string(0)})",
            lambda: f"{self.string(depth - 1)}[{self.pick('0', '1:', ':2', '-2:', '1:2', '0:0')}]",
            lambda: f"typeof({self.any(depth - 1)})",
            lambda: f"fromNow('{self.pick('1 day', '2 hours', '-3 minutes', '1 week 2 days', '1 year')}')",
        )()

    def list(self, depth):
        if depth <= 0:
            return self.pick("list", "a.c", "[]", "[1, 2]", "['x', 'y']", "[[1], [2]]")
        return self.pick(
            lambda: "[" + ", ".join(self.any(depth - 1) for _ in range(self.random.randrange(4))) + "]",
            lambda: f"({self.list(depth - 1)} + {self.list(depth - 1)})",
            lambda: f"{self.list(depth - 1)}[{self.pick('1:', ':1', '-1:', '0:2', ':')}]",
            lambda: f"range({self.pick('0', '1', '-2')}, {self.pick('0', '3', '5')}{self.pick('', ', 2')})",
            lambda: f"split({self.string(depth - 1)}, {self.pick(chr(39) + ' ' + chr(39), chr(39) + 'x' + chr(39))})",
        )()

    def object(self, depth):
        if depth <= 0:
            return self.pick("a", "a.d", "{}", "{p: 1}")
        names = self.random.sample(["p", "q", "'r s'", '"t"'], 2)
        return "{" + ", ".join(f"{name}: {self.any(depth - 1)}" for name in names) + "}"

    def boolean(self, depth):
        if depth <= 0:
            return self.pick("true", "false", "t", "f", "defined('a')", "defined('nope')")
        return self.pick(
            lambda: f"{self.number(depth - 1)} {self.pick('<', '>', '<=', '>=', '==', '!=')} {self.number(depth - 1)}",
            lambda: f"{self.string(depth - 1)} {self.pick('<', '>=', '==', '!=')} {self.string(depth - 1)}",
            lambda: f"({self.boolean(depth - 1)} {self.pick('&&', '||')} {self.boolean(depth - 1)})",
            lambda: f"!{self.boolean(0)}",
            lambda: f"!({self.any(depth - 1)})",
            lambda: f"{self.pick(self.number, self.string)(depth - 1)} in {self.pick('list', 'a.c', '[1, s]')}",
            lambda: f"{self.string(depth - 1)} in {self.pick(self.string, self.object)(depth - 1)}",
            lambda: f"{self.pick(self.list, self.object, self.string)(0)} {self.pick('==', '!=')} {self.any(0)}",
        )()

    def any(self, depth):
        kinds = [self.number, self.string, self.list, self.object, self.boolean, lambda _: "null", lambda _: "n"]
        if self.bound:
            kinds += [lambda _: self.random.choice(self.bound)] * 3
        return self.random.choice(kinds)(depth)

    def wild(self, depth):
        """Mostly an expression, sometimes a damaged one."""
        text = self.any(depth)
        if self.random.random() < 0.08 and text:
            place = self.random.randrange(len(text))
            text = text[:place] + self.pick("", "(", "]", " ", ".", "'", "@", "+", "[", "1") + text[place + 1 :]
        return text

    def template(self, depth):
        if depth <= 0:
            return self.pick(
                1, 0, None, True, "plain", "x$${y}", [], {}, -7, "ü\u2028",
                "${" + self.wild(0) + "}",
                {"$eval": self.wild(1)},
            )
        return self.pick(
            lambda: {"$eval": self.wild(2)},
            lambda: f"a${{{self.pick(self.number, self.string, self.boolean)(2)}}}b",
            lambda: "${" + self.wild(2) + "}",
            lambda: [self.template(depth - 1) for _ in range(self.random.randrange(4))],
            lambda: {self.key(): self.template(depth - 1) for _ in range(self.random.randrange(4))},
            lambda: self.conditional(depth),
            lambda: self.let(depth),
            lambda: self.mapping(depth),
            lambda: self.reduction(depth),
            lambda: self.choice(depth),
            lambda: {self.pick("$merge", "$mergeDeep"): [self.mergeable(depth) for _ in range(self.random.randrange(3))]},
            lambda: {self.pick("$flatten", "$flattenDeep", "$reverse"): [self.template(depth - 1) for _ in range(3)]},
            lambda: {self.pick("$flatten", "$reverse", "$json"): self.template(depth - 1)},
            lambda: {"$sort": {"$eval": self.pick("list", "a.c", "['b', 'a', s]", "[1, s]", "range(3, 0, -1)", "[[1]]", "[]", "n")}, **self.pick({}, {}, {"by(each)": "each"}, {"by(each)": "-each"})},
            lambda: {"$json": self.template(depth - 1)},
            lambda: {"$fromNow": self.pick("1 day", "2 hours 5 minutes", "-1 week", "", "1 year 1 month", "soon")},
            lambda: {"$find": {"$eval": self.list(1)}, "each(y)": self.with_names(["y"], lambda: self.boolean(1))},
            lambda: self.spoiled(self.template(depth - 1)),
        )()

    def key(self):
        return self.pick("p", "q", "r", "${s}", "${a.d.e}", "$$escaped", "x y", "", "${'p' + s}", "$")

    def with_names(self, names, make):
        self.bound += names
        try:
            return make()
        finally:
            del self.bound[len(self.bound) - len(names) :]

    def conditional(self, depth):
        result = {"$if": self.pick(self.boolean(1), self.wild(1))}
        if self.random.random() < 0.8:
            result["then"] = self.template(depth - 1)
        if self.random.random() < 0.6:
            result["else"] = self.template(depth - 1)
        return self.pick(result, result, [result, 1], {"k": result})

    def let(self, depth):
        return {
            "$let": {"q": self.template(depth - 1), "w": {"$eval": self.wild(1)}},
            "in": self.with_names(["q", "w"], lambda: self.template(depth - 1)) or "in",
        }

    def mapping(self, depth):
        if self.random.random() < 0.3:
            body = self.with_names(["y.key", "y.val"], lambda: self.template(depth - 1))
            return {"$map": {"p": 1, "q": "two"}, "each(y)": self.pick({"${y.key}!": body}, body)}
        names = self.pick(["x"], ["x", "i"])
        body = self.with_names(names, lambda: self.template(depth - 1))
        return {"$map": {"$eval": self.list(1)}, f"each({','.join(names)})": body}

    def reduction(self, depth):
        body = self.with_names(["acc", "x"], lambda: self.template(depth - 1))
        return {"$reduce": {"$eval": self.list(1)}, "initial": self.pick(0, "", [], {}, None), "each(acc,x)": body}

    def choice(self, depth):
        cases = {self.boolean(1): self.template(depth - 1) for _ in range(2)}
        if self.random.random() < 0.5:
            return {"$match": cases}
        return {"$switch": cases | self.pick({}, {"$default": self.template(depth - 1)})}

    def mergeable(self, depth):
        return self.pick({self.key(): self.template(depth - 1)}, {"$eval": self.object(1)}, self.template(depth - 1))

    def spoiled(self, template):
        """An operator with a property too many, a wrong argument or an unknown name."""
        return self.pick({"$if": "t", "then": template, "x": 1}, {"$eval": template}, {"$nope": template}, {"$let": template, "in": 1})


def inexact(value):
    """Whether a result holds what Python prints or computes in another way than JSON's own language does.

    Python counts with integers of any length and keeps them apart from fractions; the service counts as JavaScript does.
    """
    if isinstance(value, dict):
        return any(inexact(each) for each in value.values())
    if isinstance(value, list):
        return any(inexact(each) for each in value)
    if isinstance(value, float):
        return True
    return isinstance(value, int) and abs(value) >= 2**53


# Where Python refuses an operator without result, the original leaves it out or makes an empty object of it.
MARKERS = ("uncalled functions", "$let value must be an object", "is reserved")


def agree(expected, actual):
    if "result" in expected:
        return actual == {"result": expected["result"]} or (inexact(expected["result"]) and "result" in actual)
    return "error" in actual or any(each in expected["text"] for each in MARKERS)


def same_kind(expected, actual):
    # Where the Python code crashes instead of refusing, any refusal is right.
    return expected["kind"] in ("crash", actual["error"].split(":")[0].split(" ")[0])


def compare(templates):
    cases = [{"template": each, "context": differential.CONTEXT, "now": differential.NOW} for each in templates]
    failures, rendered, refused, otherwise = [], 0, 0, 0
    for template, actual in zip(templates, batch("jsone", cases)):
        expected = differential.oracle(template)
        rendered += "result" in expected
        if not agree(expected, actual):
            failures.append(f"{json.dumps(template, ensure_ascii=False)}\n  python:  {expected}\n  slipway: {actual}")
        elif "error" in actual:
            refused += 1
            otherwise += not same_kind(expected, actual)
    failures.sort(key=len)
    assert not failures, f"{len(failures)} of {len(templates)} differ, for example\n" + "\n".join(failures[:12])
    print(f"{rendered} templates rendered, {refused} were refused, {otherwise} of these for another reason")
    # Of several mistakes in one template the two find another one first now and then.
    assert otherwise <= refused * 0.03
    return rendered, refused


def test_random_templates_render_as_the_python_implementation_renders_them():
    print(f"SLIPWAY_SEED={SEED}")
    source = Templates(SEED)
    rendered, refused = compare([source.template(source.random.randrange(1, 4)) for _ in range(TEMPLATES)])
    assert rendered > TEMPLATES / 4 and refused > TEMPLATES / 50, "the generator has lost its balance"


TEMPLATE_ERROR, INTERPRETER_ERROR = {"kind": "TemplateError"}, {"kind": "InterpreterError"}
# template, what Python makes of it, what we do, and why
JSONE_DELIBERATE = [
    ({"$find": ["$${1 + 1}"], "each(y)": "t"}, "2", "${1 + 1}", "what is found is not rendered again"),
    ({"$eval": "[1, 2][1 nope]"}, INTERPRETER_ERROR, 2, "what stands where a range would end is not evaluated"),
    ({"$json": {"$if": "f", "then": 1}}, TEMPLATE_ERROR, "{}", "no result is an empty object here"),
    ({"$let": {"$if": "f", "then": {}}, "in": 1}, TEMPLATE_ERROR, 1, "no result binds no names"),
    ({"$nope": {"$if": "f", "then": 1}}, TEMPLATE_ERROR, {}, "a key without value is not looked at"),
    ({"$let": {}, "in": None}, None, TEMPLATE_ERROR, "null is no `in` clause"),
    ({"$eval": "join([[1, 2], n], '-')"}, "[1, 2]-None", "1,2-", "lists are joined as JavaScript joins them"),
    ({"$eval": "t in [1]"}, True, False, "true is not 1"),
    ({"$eval": "t == 1"}, True, False, "true is not 1"),
    ({"$sort": [0, False]}, [0, False], TEMPLATE_ERROR, "false is no number"),
    ({"$eval": "1 < 1.5"}, INTERPRETER_ERROR, True, "all numbers are of one kind"),
    ({"$eval": "2 ** 53 + 1 == 2 ** 53"}, False, True, "numbers are doubles"),
]


@pytest.mark.parametrize("template, theirs, ours, why", JSONE_DELIBERATE, ids=[each[3] for each in JSONE_DELIBERATE])
def test_deliberate_differences_from_python(template, theirs, ours, why):
    def kind_or_result(answer):
        if "result" in answer:
            return answer["result"]
        return {"kind": answer.get("kind") or answer["error"].split(":")[0].split(" ")[0]}

    actual = batch("jsone", [{"template": template, "context": differential.CONTEXT, "now": differential.NOW}])[0]
    assert (kind_or_result(differential.oracle(template)), kind_or_result(actual)) == (theirs, ours), why


def test_our_own_vectors_render_as_the_python_implementation_renders_them():
    vectors = list(differential.vectors())
    assert len(vectors) > 400
    compare(vectors)


# How a refusal begins in Python, and here, where the original in JavaScript words it in another way than Python does.
WORDED_OTHERWISE = {
    "SyntaxError: unterminated ${..} expression": "SyntaxError: Found end of string, expected }",
    "TemplateError: offset string: ": "TemplateError: String: ",
    "InterpreterError: infix: in": "InterpreterError: Infix: in",
}


def test_our_own_vectors_are_refused_in_the_words_of_the_python_implementation():
    vectors = list(differential.vectors())
    cases = [{"template": each, "context": differential.CONTEXT, "now": differential.NOW} for each in vectors]
    same, wrong = 0, []
    for template, actual in zip(vectors, batch("jsone", cases)):
        expected = differential.oracle(template)
        if expected.get("kind", "crash") == "crash":
            continue
        theirs, ours = expected["text"], actual["error"]
        same += theirs == ours
        is_known = any(theirs.startswith(a) and ours.startswith(b) for a, b in WORDED_OTHERWISE.items())
        if theirs != ours and not is_known:
            wrong.append(f"{json.dumps(template, ensure_ascii=False)}\n  python:  {theirs}\n  slipway: {ours}")
    assert not wrong, "\n".join(wrong[:12])
    assert same > 300


# ---------------------------------------------------------------- cron

START = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)
COUNT = 5


class Patterns:
    """Random patterns of six fields in the part of the language that both implementations have."""

    RANGES = [(0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 6)]
    MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
    DAYS = "sun mon tue wed thu fri sat".split()

    def __init__(self, seed):
        self.random = random.Random(seed)

    def field(self, index):
        low, high = self.RANGES[index]
        roll = self.random.random()
        if roll < 0.35:
            return "*"
        if roll < 0.6:
            return self.name(index, self.random.randint(low, high))
        if roll < 0.75:
            first, last = sorted(self.random.sample(range(low, high + 1), 2))
            return f"{self.name(index, first)}-{self.name(index, last)}" + self.random.choice(["", "", "/2", "/3"])
        if roll < 0.85:
            return f"*/{self.random.randint(2, high)}"
        values = sorted(self.random.sample(range(low, high + 1), self.random.randint(2, 4)))
        return ",".join(self.name(index, each) for each in values)

    def name(self, index, value):
        if index == 4 and self.random.random() < 0.3:
            return self.cased(self.MONTHS[value - 1])
        if index == 5 and self.random.random() < 0.3:
            return self.cased(self.DAYS[value])
        return str(value)

    def cased(self, text):
        return self.random.choice([text, text.upper(), text.capitalize()])

    def pattern(self):
        fields = [self.field(index) for index in range(6)]
        if self.random.random() < 0.08:
            fields[3] = "L"
        if self.random.random() < 0.08:
            fields[5] = f"{self.random.randint(0, 6)}#{self.random.randint(1, 5)}"
        if self.random.random() < 0.08:
            fields[5] = f"L{self.random.randint(0, 6)}"
        return fields


def for_croniter(fields):
    """The same pattern as croniter spells it: seconds come last."""
    return " ".join(fields[1:] + fields[:1])


def for_us(fields):
    """The same pattern as hooks spell it: the last Friday is 5L, not L5."""
    day = fields[5]
    if day.startswith("L"):
        day = f"{day[1:]}L"
    return " ".join(fields[:5] + [day])


def spelled(moment):
    return moment.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def croniter_says(fields, start, count=COUNT):
    try:
        source = croniter.croniter(for_croniter(fields), start, max_years_between_matches=50)
        return {"instants": [spelled(source.get_next(datetime.datetime)) for _ in range(count)]}
    except croniter.CroniterBadDateError:
        return {"instants": []}
    except (croniter.CroniterBadCronError, croniter.CroniterNotAlphaError) as error:
        return {"error": str(error)}


def ask(patterns):
    return batch("cron", [{"pattern": text, "from": spelled(start), "count": COUNT} for text, start in patterns])


def is_everything(text, low, high):
    """A range from the first value to the last: a star for croniter, a restriction for us."""
    names = {"sun": "0", "sat": "6"}
    return "-".join(names.get(each.lower(), each) for each in text.split("-")) == f"{low}-{high}"


def differs_on_purpose(fields):
    """Where croniter combines days of the month and of the week in ways of its own."""
    day, weekday = fields[3], fields[5]
    counted = "#" in weekday or "L" in weekday
    return (day != "*" and (counted or is_everything(weekday, 0, 6))) or (weekday != "*" and is_everything(day, 1, 31))


def test_random_patterns_match_when_croniter_says():
    print(f"SLIPWAY_SEED={SEED}")
    source = Patterns(SEED)
    patterns, starts = [], []
    while len(patterns) < PATTERNS:
        fields = source.pattern()
        if differs_on_purpose(fields):
            continue
        patterns.append(fields)
        starts.append(START + datetime.timedelta(seconds=source.random.randrange(4 * 366 * 86400)))
    answers = ask([(for_us(fields), start) for fields, start in zip(patterns, starts)])
    failures = []
    for fields, start, actual in zip(patterns, starts, answers):
        expected = croniter_says(fields, start)
        never = expected == {"instants": []} and "Invalid explicit day" in actual.get("error", "")
        if actual != expected and not never:
            failures.append(f"{for_us(fields)} after {spelled(start)}\n  croniter: {expected}\n  slipway:  {actual}")
    assert not failures, f"{len(failures)} of {PATTERNS} differ, for example\n" + "\n".join(failures[:10])
    assert sum("instants" in each for each in answers) > PATTERNS * 0.9


# pattern of hooks, what croniter makes of the same text, what we make of it, and why ours is wanted
DELIBERATE = [
    ("0 0 0 15 * 1#2", "never", "24-02-12 24-02-15 24-03-11", "restricted kinds of days are alternatives"),
    ("0 0 0 */31 3 0-6", "24-03-01 25-03-01 26-03-01", "24-03-01 24-03-02 24-03-03", "only a bare star is no restriction"),
    ("0 0 22-2 * * *", "24-02-10 24-02-10 24-02-11", "error", "ranges do not wrap: the original refuses them"),
    ("0 0 0 * * FRI-MON", "24-02-11 24-02-12 24-02-16", "error", "neither do ranges of names"),
    ("0 0 0 1,1 * *", "24-03-01 24-04-01 24-05-01", "error", "a value given twice is taken for a mistake, as in the original"),
    ("0 0 0 * * L", "error", "error", "a bare L is no day of the week"),
    ("0 0 0 30 2 *", "never", "error", "a day that cannot come is told at once"),
    ("0 0 0 31 4,6 *", "never", "never", "but several months are not looked through"),
]


@pytest.mark.parametrize("text, theirs, ours, why", DELIBERATE, ids=[each[0] for each in DELIBERATE])
def test_deliberate_differences_from_croniter(text, theirs, ours, why):
    start = datetime.datetime(2024, 2, 10, 12, tzinfo=datetime.timezone.utc)

    def days(answer):
        if "error" in answer:
            return "error"
        return " ".join(each[2:10] for each in answer["instants"][:3]) or "never"

    assert (days(croniter_says(text.split(), start)), days(ask([(text, start)])[0])) == (theirs, ours), why


def test_patterns_of_five_fields_begin_with_minutes_for_both():
    source = Patterns(SEED + 1)
    cases = []
    for _ in range(100):
        fields = source.pattern()
        if differs_on_purpose(fields):
            continue
        cases.append((["0"] + fields[1:], START))
    answers = ask([(for_us(fields).removeprefix("0 "), start) for fields, start in cases])
    for (fields, start), actual in zip(cases, answers):
        expected = croniter_says(fields, start)
        assert actual == expected or "Invalid explicit day" in actual.get("error", ""), for_us(fields)
