# SPDX-License-Identifier: MPL-2.0
"""Schedules of a whole suite: punctual fires, pauses, backfills and the ledger, by the PyPI client and the command line."""

import datetime
import statistics

import pytest

from support import eventually, hook, stamp, unique
from test_hook_commands import Line


@pytest.fixture
def line(running, tmp_path):
    return Line(running, tmp_path)


@pytest.fixture
def name(running):
    name = unique("clock")
    yield name
    running.hooks().removeHook("demo", name)


def ledger(running, name, **query):
    return running.get(f"hooks/v1/hooks/demo/{name}/ledger", {"limit": 1000} | query)["entries"]


def created(running, name):
    return [entry for entry in ledger(running, name) if entry["outcome"] == "created"]


def test_every_second_fires_once_and_on_time(running, name):
    # Nobody takes these tasks, so that nothing else happens.
    definition = hook(name, schedule=["* * * * * *"], scheduling={"catchUp": "all", "catchUpLimit": 60})
    definition["task"]["taskQueueId"] = "slipway/nobody"
    definition["task"]["metadata"]["name"] = "of ${scheduledFor}"
    running.hooks().createHook("demo", name, definition)
    eventually(lambda: len(created(running, name)) >= 6)
    running.hooks().updateHook("demo", name, definition | {"schedule": []})
    eventually(lambda: all(entry["outcome"] != "pending" for entry in ledger(running, name)))
    entries = created(running, name)
    dues = [entry["due"] for entry in entries]
    assert len(set(dues)) == len(dues), "an instant fired twice"
    moments = sorted(datetime.datetime.fromisoformat(due.replace("Z", "+00:00")) for due in dues)
    gaps = [(later - earlier).total_seconds() for earlier, later in zip(moments, moments[1:])]
    assert set(gaps) == {1.0}, gaps
    for entry in entries[:3]:
        task = running.queue().task(entry["taskId"])
        assert task["created"] == entry["due"]
        assert task["metadata"]["name"] == f"of {entry['due']}"
    print("lateness, ms:", sorted(entry["latency"]["received"] for entry in entries))
    print("median until the task exists, ms:", statistics.median(entry["latency"]["total"] for entry in entries))


def test_pause_resume_backfill_and_ledger(running, name, line):
    definition = hook(name, schedule=["* * * * * *"])
    definition["task"]["taskQueueId"] = "slipway/nobody"
    running.hooks().createHook("demo", name, definition)
    eventually(lambda: created(running, name))
    assert "paused since" in line.text("pause", f"demo/{name}")
    assert "paused since" in line.text("show", f"demo/{name}")
    status = running.hooks().getHookStatus("demo", name)
    assert "nextScheduledDate" not in status
    begin = datetime.datetime.fromisoformat(status["paused"]["since"].replace("Z", "+00:00"))
    end = begin + datetime.timedelta(seconds=3)
    eventually(lambda: datetime.datetime.now(datetime.timezone.utc) > end + datetime.timedelta(seconds=1))
    before = len(created(running, name))
    assert "next fire" in line.text("resume", f"demo/{name}")
    skipped = [entry for entry in ledger(running, name) if entry.get("reason") == "paused"]
    assert len(skipped) == 1 and skipped[0]["skipped"] >= 3

    window = ["--from", stamp(begin), "--to", stamp(end)]
    rehearsal = line.json("backfill", f"demo/{name}", *window, "--dry-run")
    assert 2 <= len(rehearsal["fires"]) <= 4
    assert line.json("backfill", f"demo/{name}", *window)["fires"] == rehearsal["fires"]
    eventually(lambda: all(running.queue().task(fire["taskId"]) for fire in rehearsal["fires"]))
    eventually(lambda: len(created(running, name)) >= before + len(rehearsal["fires"]))
    again = line.json("backfill", f"demo/{name}", *window)
    assert again == {"fires": [], "settled": len(rehearsal["fires"])}
    text = line.text("ledger", f"demo/{name}")
    assert "skipped: paused" in text and "backfill  created" in text


def test_a_place_has_its_own_clocks(running, name, line):
    definition = hook(name, schedule=["0 30 9 * * *"], scheduling={"timeZone": "Asia/Kathmandu"})
    answer = running.hooks().createHook("demo", name, definition)
    assert answer["scheduling"] == {"timeZone": "Asia/Kathmandu"}
    assert running.hooks().getHookStatus("demo", name)["nextScheduledDate"].endswith("T03:45:00.000Z")
    assert running.hooks().createHook("demo", name, definition) == answer
