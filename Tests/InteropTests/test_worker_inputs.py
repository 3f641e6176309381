# SPDX-License-Identifier: MPL-2.0
"""Inputs of our scriptworker's tasks on bad roads: redirects to odd places, connections that break, storages that change their mind."""

import hashlib
import http.server
import threading
import time
import urllib.parse

import pytest

from support import eventually
from workers import Bench, Proxy

# Larger than what the worker keeps in memory, so that there is something to continue.
CONTENT = hashlib.sha256(b"seed").digest() * 65_536


@pytest.fixture
def proxy(running):
    """Remembers where the queue says that the input is, so that only this is spoiled."""
    proxy = Proxy(running.root_url)
    proxy.places = set()

    def remember(request, response, content):
        if "input.bin" in request.path and response.getheader("Location"):
            proxy.places.add(urllib.parse.urlsplit(response.getheader("Location")).path)
        return content

    proxy.edit = remember
    yield proxy
    proxy.shutdown()


@pytest.fixture
def bench(running, proxy, tmp_path):
    bench = Bench(
        running, tmp_path, root_url=proxy.base, download_upstream_artifacts="always", transfer_retry_delay=0.05,
        sign_chain_of_trust=False,
    )
    with bench:
        yield bench


MAKE = "import hashlib; data = hashlib.sha256(b'seed').digest() * 65_536\n"
READ = """
import hashlib
entry = task['payload']['upstreamArtifacts'][0]
print(hashlib.sha256((work / 'cot' / entry['taskId'] / entry['paths'][0]).read_bytes()).hexdigest())
print(sorted(path.name for path in (work / 'cot').rglob('*') if path.is_file()))
"""


def given(bench, name="public/input.bin"):
    """A task that has made an artifact, as an input of others."""
    task_id, state, _ = bench.run(MAKE + f"path = out / {name!r}; path.parent.mkdir(exist_ok=True); path.write_bytes(data)")
    assert state == "completed"
    return [{"taskId": task_id, "taskType": "build", "paths": [name], "sha256": {name: hashlib.sha256(CONTENT).hexdigest()}}]


def is_queue(request):
    return request.command == "GET" and request.path.startswith("/api/") and "input.bin" in request.path


def is_storage(request):
    return request.command == "GET" and urllib.parse.urlsplit(request.path).path in request.server.places


class Elsewhere(http.server.ThreadingHTTPServer):
    """Another host that has the content, and remembers what it was told."""

    daemon_threads = True

    def __init__(self):
        elsewhere = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                elsewhere.requests.append((self.path, dict(self.headers.items())))
                self.send_response(200)
                self.send_header("Content-Length", str(len(CONTENT)))
                self.end_headers()
                self.wfile.write(CONTENT)

            def log_message(self, *_):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.requests = []
        # Another name for the same machine is another host.
        self.url = f"http://localhost:{self.server_address[1]}/content"
        threading.Thread(target=self.serve_forever, daemon=True).start()


def test_79_redirects_that_lead_in_circles_or_into_files_are_not_followed(bench, proxy):
    inputs = given(bench)
    for location in (lambda request: proxy.base + request.path, lambda _: "file:///etc/passwd", lambda _: "ftp://127.0.0.1/x"):
        before = proxy.count("input.bin", "GET")

        def lead(request, location=location):
            return is_queue(request) and request.answer(303, headers=[("Location", location(request))])

        with proxy.failing(lead):
            _, state, log = bench.run(READ, upstreamArtifacts=inputs)
        assert (state, b"root:" in log) == ("malformed-payload", False), log
        # A circle is left after ten rounds, and nothing is tried a second time.
        assert proxy.count("input.bin", "GET") - before <= 12


@pytest.mark.parametrize("name", ["public/input.bin", "private/input.bin"])
def test_79_another_host_gets_no_credentials(bench, proxy, name):
    inputs = given(bench, name)
    elsewhere = Elsewhere()

    def lead(request):
        return is_queue(request) and request.answer(303, headers=[("Location", elsewhere.url)])

    with proxy.failing(lead):
        _, state, log = bench.run(READ, upstreamArtifacts=inputs)
    elsewhere.shutdown()
    assert (state, log.decode().splitlines()[-3]) == ("completed", hashlib.sha256(CONTENT).hexdigest()), log
    assert len(elsewhere.requests) == 1
    path, headers = elsewhere.requests[0]
    assert (path, "authorization" in {key.lower() for key in headers}) == ("/content", False)
    # The queue itself was shown a signature where one was needed.
    assert (proxy.count("bewit=", "GET") > 0) == name.startswith("private/")


def breaking(ranges, times, tag='"one"', sizes=(1_000_000, 500_000), content=CONTENT):
    """A storage that breaks off in mid-content a few times, continuing where it is asked to."""

    def serve(request):
        if not is_storage(request):
            return False
        asked = request.headers.get("Range")
        ranges.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and request.headers.get("If-Range") == tag else 0
        rest = content[start:]
        headers = [("Content-Length", str(len(rest))), ("ETag", tag)]
        if start:
            headers.append(("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}"))
        if len(ranges) <= times:
            return request.send_some(206 if start else 200, headers, rest[: sizes[len(ranges) - 1]])
        return request.answer(206 if start else 200, text=rest, headers=headers[1:])

    return serve


def test_a_download_that_is_cut_goes_on_where_it_ended(bench, proxy):
    inputs, ranges = given(bench), []
    with proxy.failing(breaking(ranges, times=2)):
        _, state, log = bench.run(READ, 120, upstreamArtifacts=inputs)
    assert (state, hashlib.sha256(CONTENT).hexdigest() in log.decode()) == ("completed", True), log
    assert ranges[0] is None
    starts = [int(each.removeprefix("bytes=").rstrip("-")) for each in ranges[1:]]
    assert len(starts) == 2 and 0 < starts[0] <= 1_000_000 < starts[1] <= 1_500_000
    assert b"['chain-of-trust.json', 'input.bin']" in log


def test_a_download_whose_content_changed_meanwhile_begins_anew(bench, proxy):
    inputs, first, then = given(bench), [], []
    other = breaking(first, times=1, tag='"old"', content=bytes(len(CONTENT)))
    fresh = breaking(then, times=0, tag='"new"')
    with proxy.failing(lambda request: (fresh if first else other)(request)):
        _, state, log = bench.run(READ, 120, upstreamArtifacts=inputs)
    assert (state, hashlib.sha256(CONTENT).hexdigest() in log.decode()) == ("completed", True), log
    assert (first, len(then)) == ([None], 1)
    assert then[0].startswith("bytes=")


def test_a_storage_that_continues_with_other_content_is_not_believed(bench, proxy):
    """It says 206, but of something else: the parts are never put together."""
    inputs, asked = given(bench), []

    def serve(request):
        if not is_storage(request):
            return False
        asked.append(request.headers.get("Range"))
        if len(asked) == 1:
            return request.send_some(200, [("Content-Length", str(len(CONTENT))), ("ETag", '"one"')], bytes(1_000_000))
        if len(asked) == 2:
            start = int(asked[1].removeprefix("bytes=").rstrip("-"))
            span = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
            return request.answer(206, text=CONTENT[start:], headers=[("ETag", '"two"'), ("Content-Range", span)])
        return False

    with proxy.failing(serve):
        _, state, log = bench.run(READ, 120, upstreamArtifacts=inputs)
    assert (state, hashlib.sha256(CONTENT).hexdigest() in log.decode()) == ("completed", True), log
    assert asked[2:] == [None]


def test_a_download_that_never_comes_makes_the_resource_unavailable(bench, proxy):
    inputs = given(bench)
    with proxy.failing(lambda request: is_storage(request) and request.cut()):
        _, state, log = bench.run(READ, 120, upstreamArtifacts=inputs)
    assert state == "resource-unavailable"
    assert bench.run(READ, upstreamArtifacts=inputs)[1] == "completed"


@pytest.mark.parametrize("damage", ["changed", "short", "empty"])
def test_60_an_input_other_than_announced_is_never_where_scripts_look(bench, proxy, damage):
    inputs = given(bench)
    content = {"changed": b"X" + CONTENT[1:], "short": CONTENT[:-1], "empty": b""}[damage]
    with proxy.failing(lambda request: is_storage(request) and request.answer(200, text=content)):
        _, state, log = bench.run("print('never')", upstreamArtifacts=inputs)
    assert (state, b"never" in log, b"sha256" in log) == ("malformed-payload", False, True), log


def test_an_input_that_does_not_fit_is_not_begun(bench, proxy):
    inputs = given(bench)
    huge = 1 << 50

    def boast(request):
        return is_storage(request) and request.send_some(200, [("Content-Length", str(huge))], bytes(400_000))

    with proxy.failing(boast):
        _, state, log = bench.run("print('never')", upstreamArtifacts=inputs)
    assert (state, b"are free" in log) == ("internal-error", True), log


def test_a_storage_that_asks_for_patience_gets_it(bench, proxy):
    inputs, asked = given(bench), []

    def busy(request):
        if not is_storage(request):
            return False
        asked.append(time.monotonic())
        return len(asked) == 1 and request.answer(503, headers=[("Retry-After", "2")])

    with proxy.failing(busy):
        assert bench.run(READ, 120, upstreamArtifacts=inputs)[1] == "completed"
    assert asked[1] - asked[0] >= 1.9


def test_62_a_missing_input_is_not_waited_for(bench, proxy):
    inputs = given(bench)
    missing = [{**inputs[0], "paths": ["public/absent.bin"]}]
    assert bench.run("print('never')", upstreamArtifacts=missing)[1] == "malformed-payload"
    assert proxy.count("absent.bin", "GET") == 1
    optional = [{**missing[0], "optional": True}]
    assert bench.run(upstreamArtifacts=optional)[1] == "completed"
    eventually(lambda: bench.heartbeat()["state"] == "polling", 30)
