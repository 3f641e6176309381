# SPDX-License-Identifier: MPL-2.0
"""Uploads of our scriptworker to a queue and a storage that cut, refuse, stand still and answer garbage."""

import time

import pytest

from worker_faults import bench, proxy  # noqa: F401 (fixtures)
from workers import Bench, size, verdict


def quick(running, proxy, folder, **changes):
    """A worker that does not wait long between attempts to move an artifact; how long it would is tested by itself."""
    return Bench(running, folder, root_url=proxy.base, transfer_retry_delay=0.05, **changes)


def test_48_an_upload_that_is_cut_begins_again_with_its_declaration(running, proxy, tmp_path):
    def declared():
        return proxy.count("big.bin", "POST")

    def cut(request):
        # The client library begins again by itself on connections that were used before, so all are cut for a while.
        is_big = request.command == "PUT" and int(request.headers.get("Content-Length", 0)) > 1_000_000
        return is_big and declared() < 3 and request.cut(100_000)

    with quick(running, proxy, tmp_path) as bench, proxy.failing(cut):
        _, state, _ = bench.run("(out / 'public/big.bin').write_bytes(os.urandom(2_000_000))", 90)
    assert (state, declared()) == ("completed", 3)


def test_49_a_storage_that_refuses_for_ever_makes_the_resource_unavailable(running, proxy, tmp_path):
    def refuse(request):
        return request.command == "PUT" and int(request.headers.get("Content-Length", 0)) == 7_777 and request.answer(500)

    with quick(running, proxy, tmp_path) as bench, proxy.failing(refuse):
        code = "(out / 'public/odd.bin').write_bytes(bytes(7777)); (out / 'public/even.bin').write_bytes(bytes(8))"
        task_id, state, _ = bench.run(code)
        assert state == "resource-unavailable"
        assert proxy.count("odd.bin", "POST") == 5
        names = {each["name"] for each in bench.queue.listArtifacts(task_id, 0)["artifacts"]}
        assert {"public/even.bin", "public/logs/live_backing.log"} <= names


@pytest.mark.parametrize(
    "fault", [lambda request: request.answer(500), lambda request: request.cut(), lambda request: request.answer(200, text=b"<html>")]
)
def test_50_a_queue_that_takes_no_artifact_lets_the_task_run_again(running, proxy, tmp_path, fault):
    def fail(request):
        return request.command == "POST" and "runs/0/artifacts" in request.path and "odd.bin" in request.path and fault(request)

    with quick(running, proxy, tmp_path) as bench, proxy.failing(fail):
        task_id = bench.create("(out / 'public/odd.bin').write_bytes(b'x')")
        assert bench.result(task_id, 120)[0] == "completed"
        assert [verdict(run) for run in bench.runs(task_id)] == ["intermittent-task", "completed"]
        # The API client repeats what it can repeat, so there are at least as many calls as attempts.
        assert proxy.count("runs/0/artifacts/public%2Fodd.bin", "POST") >= 5
        assert bench.process.poll() is None


@pytest.mark.parametrize("status", [403, 400])
def test_50_an_artifact_that_the_queue_refuses_is_not_tried_again(bench, proxy, status):
    def refuse(request):
        return request.command == "POST" and "odd.bin" in request.path and request.answer(status)

    with proxy.failing(refuse):
        task_id, state, _ = bench.run("(out / 'public/odd.bin').write_bytes(b'x')")
    assert state == "internal-error"
    assert "public/logs/live_backing.log" in bench.names(task_id)
    assert proxy.count("odd.bin", "POST") == 1


def test_51_an_upload_that_stands_still_is_ended_and_tried_again(running, proxy, tmp_path):
    stalled = []

    def stall(request):
        if request.command == "PUT" and int(request.headers.get("Content-Length", 0)) == 3_000_000 and not stalled:
            stalled.append(time.monotonic())
            time.sleep(20)
            return request.cut()
        return False

    with quick(running, proxy, tmp_path, artifact_upload_timeout=2) as bench, proxy.failing(stall):
        start = time.monotonic()
        _, state, _ = bench.run("(out / 'public/big.bin').write_bytes(os.urandom(3_000_000))", 90)
        assert (state, len(stalled)) == ("completed", 1)
        assert proxy.count("big.bin", "POST") == 2
        # The stalled attempt was not waited for to its end.
        assert time.monotonic() - start < 20 or "no answer in time" in bench.text()


def test_52_an_upload_may_take_as_long_as_its_limit_says(running, proxy, tmp_path):
    """A storage that takes six seconds (full size: 400 s, beyond every limit but the configured one)."""
    slow = size("SLOW_UPLOAD", 6, 400)

    def wait(request):
        if request.command == "PUT" and int(request.headers.get("Content-Length", 0)) == 3_000_000:
            time.sleep(slow)
        return False

    with quick(running, proxy, tmp_path, artifact_upload_timeout=1200) as bench, proxy.failing(wait):
        _, state, _ = bench.run("(out / 'public/big.bin').write_bytes(os.urandom(3_000_000))", slow + 90)
        assert (state, proxy.count("big.bin", "POST")) == ("completed", 1)


def test_what_the_storage_did_not_receive_as_sent_is_sent_again(running, proxy, tmp_path):
    lies = []

    def lie(request):
        if request.command == "PUT" and int(request.headers.get("Content-Length", 0)) == 4_444 and not lies:
            lies.append(request.path)
            return request.answer(200, headers=[("ETag", '"d41d8cd98f00b204e9800998ecf8427e"')])
        return False

    with quick(running, proxy, tmp_path) as bench, proxy.failing(lie):
        task_id, state, _ = bench.run("(out / 'public/odd.bin').write_bytes(bytes(4444))")
        assert (state, proxy.count("odd.bin", "POST")) == ("completed", 2)
        assert "holds other bytes than were sent" in bench.text()
