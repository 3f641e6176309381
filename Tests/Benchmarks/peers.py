# SPDX-License-Identifier: MPL-2.0
"""The peers' side of a benchmark: one second of work, then operations a second on a line of its own."""

import json
import sys
import time


def rate(work):
    for _ in range(5):
        work()
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < 1:
        work()
        count += 1
    print(count / (time.perf_counter() - start))


def jsone(template, context):
    import jsone

    with open(template) as first, open(context) as second:
        template, context = json.load(first), json.load(second)
    rate(lambda: jsone.render(template, context))


def jsone_result(template, context, now):
    import jsone

    with open(template) as first, open(context) as second:
        template, context = json.load(first), json.load(second)
    print(json.dumps(jsone.render(template, {"now": now, **context})))


def hawk():
    import mohawk

    credentials = {"id": "hooks/project-suite", "key": "x" * 44, "algorithm": "sha256"}
    url = "http://127.0.0.1:8080/api/hooks/v1/hooks/project-suite/decision/trigger"
    body, kind = b'{"a":1}' * 64, "application/json"
    header = mohawk.Sender(credentials, url, "POST", content=body, content_type=kind).request_header
    rate(
        lambda: mohawk.Receiver(
            lambda _: credentials,
            header,
            url,
            "POST",
            content=body,
            content_type=kind,
            seen_nonce=lambda *_: False,
        )
    )


{"jsone": jsone, "jsone-result": jsone_result, "hawk": hawk}[sys.argv[1]](*sys.argv[2:])
