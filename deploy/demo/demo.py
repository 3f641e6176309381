# SPDX-License-Identifier: MPL-2.0
"""Slipway's main job as a timeline: an event becomes a task, the task runs on proven inputs, everyone hears of it."""

import datetime
import gzip
import hashlib
import importlib.machinery
import importlib.util
import json
import pathlib
import sys
import time
import urllib.request

import taskcluster

from bus import Bus, publish
from machine import roller
from release import release
from shipit import shipit

TOP = pathlib.Path(__file__).resolve().parents[2]
PUSHES = "exchange/another-team/v1/pushes"


def load_suite():
    loader = importlib.machinery.SourceFileLoader("suite", str(TOP / "deploy" / "local" / "suite"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("suite", loader))
    sys.dont_write_bytecode = True
    loader.exec_module(module)
    return module


class Timeline:
    def __init__(self):
        self.start = self.last = time.monotonic()

    def __call__(self, text):
        now = time.monotonic()
        print(f"{now - self.start:8.3f} s  (+{now - self.last:6.3f})  {text}", flush=True)
        self.last = now

    def detail(self, text):
        print(f"{'':23}{text}", flush=True)


def check(condition, text):
    if not condition:
        raise SystemExit(f"demo: {text}")


def stamp(moment):
    return moment.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def task_template(name, payload):
    """A JSON-e template; deadlines are relative to the moment of firing."""
    return {
        "taskQueueId": "slipway/script",
        "created": {"$fromNow": ""},
        "deadline": {"$fromNow": "1 hour"},
        "expires": {"$fromNow": "1 day"},
        "metadata": {
            "name": name,
            "description": "Part of the demo",
            "owner": "release@example.com",
            "source": "https://example.com/demo",
        },
        "payload": payload,
    }


def task_definition(name, payload):
    """A definition that needs no rendering any more."""
    now = datetime.datetime.now(datetime.timezone.utc)
    return task_template(name, payload) | {
        "created": stamp(now),
        "deadline": stamp(now + datetime.timedelta(hours=1)),
        "expires": stamp(now + datetime.timedelta(days=1)),
    }


def hook_definition(name, template, schema=None, **triggers):
    return {
        "metadata": {"name": name, "description": "Part of the demo", "owner": "release@example.com"},
        "task": template,
        "triggerSchema": schema or {"type": "object"},
        **triggers,
    }


def main():
    timeline = Timeline()
    suite = load_suite().Suite()
    values = suite.up()
    timeline("suite is up: PostgreSQL, RabbitMQ, " + ", ".join(load_suite().SERVICES))

    root = values["TASKCLUSTER_ROOT_URL"]
    options = {
        "rootUrl": root,
        "credentials": {
            "clientId": values["TASKCLUSTER_CLIENT_ID"],
            "accessToken": values["TASKCLUSTER_ACCESS_TOKEN"],
        },
    }
    hooks, queue = taskcluster.Hooks(options), taskcluster.Queue(options)
    run = taskcluster.slugId()[:6].replace("-", "x").replace("_", "y")
    events = ("task-defined", "task-pending", "task-running", "task-completed", "task-failed", "task-exception")
    # The other team's exchange is there before a hook asks for it, so nobody has to wait for a second try.
    theirs = [(PUSHES, "#")]
    bus = Bus(values["AMQP_URL"], [(f"exchange/taskcluster-queue/v1/{event}", "#") for event in events] + theirs)

    # 1. A first task makes the artifact that the others will prove.
    first = taskcluster.slugId()
    queue.createTask(first, task_definition("compile", {"action": "compile", "product": "demo", "maxRunTime": 60}))
    timeline(f"first task {first} created through the queue's API")
    bus.wait("task-completed", lambda m: m["status"]["taskId"] == first)
    timeline("first task completed; its artifact is the next one's input")
    url = f"{root}/api/queue/v1/task/{first}/artifacts/public/build/target.txt"
    digest = hashlib.sha256(fetch(url)).hexdigest()

    # 2. A hook with a binding, a trigger schema and a template.
    pushed = f"pushed-{run}"
    hooks.createHook(
        "demo",
        pushed,
        hook_definition(
            "On every push",
            task_template(
                "count for ${payload.pusher}",
                {
                    "action": "count",
                    "pusher": {"$eval": "payload.pusher"},
                    "maxRunTime": 60,
                    "upstreamArtifacts": [
                        {
                            "taskId": {"$eval": "payload.upstream.taskId"},
                            "taskType": "build",
                            "paths": ["public/build/target.txt"],
                            "sha256": {"public/build/target.txt": {"$eval": "payload.upstream.sha256"}},
                        }
                    ],
                },
            ),
            schema={
                "type": "object",
                "required": ["pusher", "branch", "upstream"],
                "properties": {"branch": {"enum": ["release"]}, "pusher": {"type": "string"}},
            },
            bindings=[{"exchange": PUSHES, "routingKeyPattern": f"push.{run}.#"}],
        ),
    )
    timeline(f"hook demo/{pushed} created through the API with Hawk credentials")

    upstream = {"taskId": first, "sha256": digest}
    wait_for_binding(values, PUSHES, f"push.{run}.ready")
    timeline("pulse-listener has bound the hook's queue")
    publish(values["AMQP_URL"], PUSHES, f"push.{run}.main", {"branch": "main", "pusher": "nobody", "upstream": upstream})
    sent = time.time()
    publish(values["AMQP_URL"], PUSHES, f"push.{run}.release", {"branch": "release", "pusher": "ada", "upstream": upstream})
    timeline("another team published one message that does not match the schema and one that does")
    arrived, message = bus.wait("task-defined", lambda m: is_from(queue, m, "count for ada"))
    second = message["status"]["taskId"]
    timeline(f"task {second} created from the event, {1000 * (arrived - sent):.0f} ms after it was published")
    arrived, message = bus.wait("task-completed", lambda m: m["status"]["taskId"] == second)
    timeline("scriptworker claimed it, checked its input's sha256, ran the script, uploaded and reported")
    made = [m for _, e, m in bus.messages if e == "task-defined" and is_from(queue, m, "count for")]
    check(len(made) == 1, f"expected exactly one task from two messages, found {len(made)}")
    artifact = f"{root}/api/queue/v1/task/{second}/artifacts/public/build/counts.json"
    result = json.loads(fetch(artifact))
    check(result["counts"]["public/build/target.txt"]["sha256"] == digest, "the input was not the upstream artifact")
    check(result["for"] == "ada", "the payload was not substituted")
    phases(timeline, message["status"]["runs"][-1])

    # 3. A clock, a button and a secret URL.
    ticking, button, secret = f"ticking-{run}", f"button-{run}", f"secret-{run}"
    due = (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=4)).replace(microsecond=0)
    note = lambda text: task_template(text, {"action": "note", "text": text, "maxRunTime": 60})
    hooks.createHook(
        "demo",
        ticking,
        hook_definition("Every day", note(f"tick {run}"), schedule=[f"{due.second} {due.minute} {due.hour} * * *"]),
    )
    hooks.createHook("demo", button, hook_definition("A button", note(f"button {run} of ${{payload.who}}")))
    hooks.createHook("demo", secret, hook_definition("A webhook", note(f"webhook {run}")))
    timeline(f"three more hooks: one due at {due:%H:%M:%S} UTC, one for triggerHook, one for its secret URL")

    third = hooks.triggerHook("demo", button, {"who": "grace"})["taskId"]
    timeline(f"triggerHook made task {third}")
    token = hooks.getTriggerToken("demo", secret)["token"]
    request = urllib.request.Request(
        f"{root}/api/hooks/v1/hooks/demo/{secret}/trigger/{token}",
        data=b"{}",
        headers={"Content-Type": "application/json"},
        method="POST",
    )
    with urllib.request.urlopen(request) as answer:
        fourth = json.load(answer)["taskId"]
    timeline(f"the secret URL made task {fourth}, without credentials")
    arrived, message = bus.wait("task-defined", lambda m: is_from(queue, m, f"tick {run}"))
    late = arrived - due.timestamp()
    timeline(f"the clock made task {message['status']['taskId']}, {1000 * late:.0f} ms after its time")
    check(0 <= late < 1, f"the scheduled hook fired {late:.3f} s after its time")
    for task in (third, fourth, message["status"]["taskId"]):
        bus.wait("task-completed", lambda m: m["status"]["taskId"] == task)
    timeline("all three completed")

    # 4. What was built is signed and published by workers that trust scopes, not payloads.
    release(timeline, check, fetch, suite, load_suite().BINARIES, values, queue, bus, task_definition, first)

    # 5. A machine that does not listen is rebooted by the gentlest means that helps.
    roller(timeline, check, suite, load_suite().BINARIES, values)

    # 6. A release is built, approved by two people of different groups, and published.
    building = task_template("build ${payload.version}", {"action": "note", "text": "built", "maxRunTime": 60})
    publishing = task_definition("publish", {"action": "note", "text": "published", "maxRunTime": 60})
    shipit(timeline, check, load_suite().BINARIES, values, hooks, run, hook_definition("build", building), publishing)

    print("\nFire history")
    for hook in (pushed, ticking, button, secret):
        for fire in hooks.listLastFires("demo", hook)["lastFires"]:
            task = fire["taskId"]
            print(f"  demo/{hook}: {fire['firedBy']}, {fire['result']}, task {fire['taskState']}, {fire['taskCreateTime']}")
            links = [f"{root}/api/queue/v1/task/{task}", f"{root}/api/queue/v1/task/{task}/artifacts/public/logs/live_backing.log"]
            for link in links:
                with urllib.request.urlopen(link) as answer:
                    check(answer.status == 200, f"{link} does not open")
                print(f"    {link}")
    bus.close()
    timeline("done")


def fetch(url):
    """The bytes behind a public link, whatever encoding they travelled in."""
    with urllib.request.urlopen(url) as answer:
        body = answer.read()
        return gzip.decompress(body) if answer.headers.get("Content-Encoding") == "gzip" else body


def wait_for_binding(values, exchange, key, seconds=90):
    """Waits until a message to `exchange` reaches a queue, by asking the broker to return it otherwise."""
    import pika

    connection = pika.BlockingConnection(pika.URLParameters(values["AMQP_URL"]))
    channel = connection.channel()
    channel.confirm_delivery()
    channel.exchange_declare(exchange, "topic", durable=True)
    limit = time.monotonic() + seconds
    while True:
        try:
            channel.basic_publish(exchange, key, b"{}", pika.BasicProperties(content_type="application/json"), mandatory=True)
            break
        except pika.exceptions.UnroutableError:
            check(time.monotonic() < limit, "pulse-listener did not bind the hook's queue")
            time.sleep(0.02)
    connection.close()


def is_from(queue, message, name):
    return queue.task(message["status"]["taskId"])["metadata"]["name"].startswith(name)


def phases(timeline, run):
    moment = lambda name: datetime.datetime.fromisoformat(run[name].replace("Z", "+00:00"))
    claimed = (moment("started") - moment("scheduled")).total_seconds()
    ran = (moment("resolved") - moment("started")).total_seconds()
    timeline.detail(f"pending for {1000 * claimed:.0f} ms, claimed to resolved in {1000 * ran:.0f} ms")


if __name__ == "__main__":
    main()
