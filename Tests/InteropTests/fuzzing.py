# SPDX-License-Identifier: MPL-2.0
"""What the tests share that call services with anything at all: the caller, bodies and paths that hurt, schemathesis."""

import json
import os
import urllib.parse

import mohawk
import requests
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

SEED = int(os.environ.get("SLIPWAY_SEED", "20240210"))
DEPTH = int(os.environ.get("SLIPWAY_FUZZ", "1"))
# A long poll without work takes its time; whoever is gone before has not been refused.
LONG_POLLS = {"claimWork"}

# What a generator for schemas does not think of.
NASTY = {
    "nul": '{"x": "a\\u0000b"}',
    "nul in a key": '{"a\\u0000b": 1}',
    "lone surrogate": '{"x": "\\ud800"}',
    "lone low surrogate in a key": '{"\\udc00x": 1}',
    "number beyond doubles": '{"x": 1e400}',
    "long number": '{"x": ' + "9" * 2000 + "}",
    "tiny number": '{"x": 1e-400}',
    "duplicate keys": '{"x": 1, "x": 2}',
    "deep arrays": '{"x": ' + "[" * 400 + "]" * 400 + "}",
    "too deep": '{"x": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "noncharacters": '{"x": "\\uffff\\ufdd0\U0010ffff"}',
    "byte order mark": '\ufeff{"x": 1}',
    "long key": '{"' + "k" * 100_000 + '": 1}',
    "prototype": '{"__proto__": {"x": 1}, "constructor": 1}',
}

# Pieces of paths and queries that are wrong, or that somebody on the way would like to change.
PIECES = ["%00", "%", "%zz", "%ff", "%C0%80", "%ED%A0%80", "..", ".", "%2e%2e", "%0a", "%F4%90%80%80", "a" * 5000, "+", "%2B", "ü"]


class Caller:
    """Sends a case signed or not, and checks what holds for every answer."""

    # What is sent with every request.
    headers = {}

    def __init__(self, running, root=None):
        self.root = root or running.root_url
        credentials = running.options["credentials"]
        self.credentials = {"id": credentials["clientId"], "key": credentials["accessToken"], "algorithm": "sha256"}
        self.session = requests.Session()
        self.counts = {}

    def send(self, method, target, body=None, content_type=None, signed=True, name=None, timeout=120):
        headers = dict(self.headers)
        if content_type:
            headers["Content-Type"] = content_type
        if signed:
            sender = mohawk.Sender(
                self.credentials, self.root + target, method, content=body or b"", content_type=content_type or "", ext="e30="
            )
            headers["Authorization"] = sender.request_header
        request = requests.Request(method, self.root + "/", headers=headers, data=body).prepare()
        # The client library would normalise the path; servers have to see it as it was made.
        request.url = self.root + target
        answer = self.session.send(request, timeout=timeout, allow_redirects=False)
        self.check(answer, f"{method} {target} {(body or b'')[:2000]!r}", name)
        self.counts[answer.status_code] = self.counts.get(answer.status_code, 0) + 1
        return answer

    def check(self, answer, what, name):
        text = f"{what}\n  {answer.status_code} {answer.text[:2000]}"
        assert answer.status_code < 500, text
        assert answer.headers["Access-Control-Allow-Origin"] == "*", text
        if answer.status_code == 204:
            assert answer.content == b"", text
            return
        if answer.status_code < 400:
            return
        assert answer.headers["Content-Type"] == "application/json; charset=utf-8", text
        body = answer.json()
        if body == {"error": "Not found"}:
            assert answer.status_code == 404, text
            return
        assert {"code", "message", "requestInfo"} <= set(body), text
        assert {"method", "params", "payload", "time"} <= set(body["requestInfo"]), text
        if name:
            assert body["requestInfo"]["method"] == name, text
        trailer = f"\n* errorCode:  {body['code']}\n* statusCode: {answer.status_code}\n* time:       "
        assert "\n\n---\n\n* method:     " in body["message"] and trailer in body["message"], text


def spelled(query):
    """A query string of whatever the generator made."""
    pairs = []
    for key, value in (query or {}).items():
        for each in value if isinstance(value, list) else [value]:
            pairs.append((str(key), each if isinstance(each, str) else json.dumps(each)))
    return "?" + urllib.parse.urlencode(pairs) if pairs else ""


def encoded(body):
    """The bytes of a body; none for an endpoint without."""
    if isinstance(body, bytes):
        return body
    try:
        return json.dumps(body).encode()
    except TypeError:
        return None


def run(caller, operation, name, mode, examples):
    cases = operation.as_strategy(generation_mode=mode)
    turn = [0]

    @seed(SEED)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    @given(case=cases)
    def each(case):
        turn[0] += 1
        path = operation.path
        for key, value in (case.path_parameters or {}).items():
            text = str(value)
            path = path.replace("{" + key + "}", text if "%" in text else urllib.parse.quote(text, safe=""))
        body = encoded(case.body) if operation.body else None
        # One in five comes without credentials.
        signed = turn[0] % 5 != 0
        try:
            caller.send(
                operation.method.upper(),
                path + spelled(case.query),
                body,
                "application/json" if body is not None else None,
                signed,
                name,
                timeout=1 if name in LONG_POLLS else 120,
            )
        except requests.Timeout:
            assert name in LONG_POLLS, path

    try:
        each()
    except Unsatisfiable:
        # An endpoint that takes nothing cannot be called wrongly.
        assert mode is GenerationMode.NEGATIVE, name
