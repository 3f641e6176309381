# SPDX-License-Identifier: MPL-2.0
"""Events from outside reach the bus and fire hooks: signed webhooks, pushes to Mercurial, the minutes of the clock."""

import base64
import hashlib
import hmac
import http.server
import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
import urllib.parse

import pika
import pytest
import requests
import taskcluster

from conftest import TOP
from support import eventually, hook, template, unique, wait_bound

SECRETS = {"GITHUB_OLD": "the secret before", "HMAC_KEY": "a shared key", "GITLAB_TOKEN": "a token of ours"}
STANDARD_KEY = base64.b64encode(b"0123456789abcdef01234567").decode()


class Collector:
    """Everything that is published to some exchanges, with message ids, through a durable queue that outlives us all."""

    def __init__(self, url, exchanges):
        self.url, self.messages, self.stopped = url, [], False
        self.queue = f"queue/slipway/{unique('collector')}"
        self.connection = pika.BlockingConnection(pika.URLParameters(url))
        self.channel = self.connection.channel()
        self.channel.queue_declare(self.queue, durable=True)
        for exchange in exchanges:
            self.channel.exchange_declare(exchange, "topic", durable=True)
            self.channel.queue_bind(self.queue, exchange, "#")
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        for method, properties, body in self.channel.consume(self.queue, auto_ack=True, inactivity_timeout=0.1):
            if self.stopped:
                break
            payload = json.loads(body) if method else {}
            # Waiting for a binding leaves empty messages.
            if "eventId" in payload:
                self.messages.append((method.exchange, method.routing_key, properties.message_id, payload))

    def of(self, source):
        return [entry for entry in list(self.messages) if entry[0].endswith(f"/{source}")]

    def close(self):
        self.stopped = True
        self.thread.join()
        self.channel.queue_delete(self.queue)
        self.connection.close()


class Pushlog(http.server.BaseHTTPRequestHandler):
    """A Mercurial repository's pushlog in the documented form."""

    pushes, last, broken = {}, 0, 0

    @classmethod
    def push(cls, count=1):
        for _ in range(count):
            cls.last += 1
            cls.pushes[cls.last] = {"changesets": [f"{cls.last:040x}"], "date": 1700000000 + cls.last, "user": "dev"}

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        if Pushlog.broken > 0 or url.path != "/app/json-pushes" or query.get("version") != "2":
            Pushlog.broken -= 1
            self.send_error(503)
            return
        start, end = int(query.get("startID", Pushlog.last - 10)), int(query.get("endID", Pushlog.last))
        pushes = {str(number): push for number, push in Pushlog.pushes.items() if start < number <= end}
        body = json.dumps({"lastpushid": Pushlog.last, "pushes": pushes}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


class Bridges:
    """The bridges of the running suite, configured for these tests."""

    def __init__(self, running, collector):
        self.running, self.collector = running, collector
        self.root = running.root_url
        self.direct = running.values["BRIDGES_URL"]
        self.github_secret = (running.suite.state / "github-secret").read_text().strip()
        self.session = requests.Session()

    def post(self, source, body, headers, direct=True, **options):
        url = f"{self.direct if direct else self.root}/webhooks/{source}"
        return self.session.post(url, data=body, headers=headers, timeout=120, **options)

    def github(self, payload, delivery, event="push", secret=None, direct=True, **headers):
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        code = hmac.new((secret or self.github_secret).encode(), body, hashlib.sha256).hexdigest()
        fields = {
            "Content-Type": "application/json",
            "X-GitHub-Event": event,
            "X-GitHub-Delivery": delivery,
            "X-Hub-Signature-256": f"sha256={code}",
        }
        return self.post("github", body, fields | headers, direct)


@pytest.fixture(scope="module")
def bridges(running):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pushlog)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    path = running.suite.local / "bridges.json"
    before = path.read_text()
    folder = running.suite.state / "bridge-secrets"
    folder.mkdir(exist_ok=True)
    for name, value in (SECRETS | {"STANDARD": f"whsec_{STANDARD_KEY}"}).items():
        (folder / name).write_text(value + "\n")
    secret = lambda *names: [{"file": str(folder / name)} for name in names]
    name = unique("app")
    configuration = json.loads(before)
    configuration["webhooks"]["sources"] |= {
        "github": {
            "kind": "github",
            "secrets": [{"file": str(running.suite.state / "github-secret")}, *secret("GITHUB_OLD")],
            "rate": {"perSecond": 5000, "burst": 50000},
        },
        "bitbucket": {"kind": "bitbucket", "secrets": secret("HMAC_KEY")},
        "gitlab": {"kind": "gitlab", "secrets": secret("GITLAB_TOKEN", "STANDARD")},
        "billing": {"kind": "standard", "secrets": secret("STANDARD")},
        "nagios": {
            "kind": "hmac",
            "secrets": secret("HMAC_KEY"),
            "signature": {"header": "X-Sig", "algorithm": "sha512", "encoding": "base64", "prefix": "v1="},
            "event": {"pointer": "/state"},
            "routingKey": [{"literal": "alert"}, {"pointer": "/host"}, {"pointer": "/state"}],
            "bodyLimit": 500,
            "rate": {"perSecond": 0.01, "burst": 3},
        },
    }
    configuration["hg"] = {
        "interval": "100ms",
        "repositories": [{"name": name, "url": f"http://127.0.0.1:{server.server_port}/app"}],
    }
    path.write_text(json.dumps(configuration))
    sources = [*configuration["webhooks"]["sources"], "clock", "hg"]
    collector = Collector(running.amqp_url, [f"exchange/slipway/v1/{source}" for source in sources])
    running.suite.restart("pulse-listener")
    result = Bridges(running, collector)
    result.repository = name
    try:
        yield result
    finally:
        path.write_text(before)
        running.suite.restart("pulse-listener")
        collector.close()
        server.shutdown()


def test_a_webhook_fires_a_hook_once_however_often_it_comes(bridges, running):
    name = unique("webhook")
    exchange, key = "exchange/slipway/v1/github", f"pull_request.octo.{name}.opened"
    definition = hook(
        name,
        schema={"type": "object", "required": ["eventId"]},
        bindings=[{"exchange": exchange, "routingKeyPattern": key}],
    )
    definition["task"] = template(f"{name} #${{payload.body.number}} by ${{payload.organization}}")
    running.hooks().createHook("demo", name, definition)
    wait_bound(running.hooks(), "demo", name)
    payload = {"action": "opened", "number": 7, "repository": {"name": name, "owner": {"login": "octo"}}}
    answer = bridges.github(payload, name, "pull_request", direct=False)
    assert answer.status_code == 202, answer.text
    assert answer.json() == {"eventId": name, "exchange": exchange, "routingKey": key}
    for _ in range(3):
        again = bridges.github(payload, name, "pull_request")
        assert again.status_code == 200 and again.json()["duplicate"] is True
    assert bridges.github(payload | {"number": 8}, name, "pull_request").status_code == 409

    def fires():
        try:
            return running.hooks().listLastFires("demo", name)["lastFires"]
        except taskcluster.exceptions.TaskclusterRestFailure:
            return []

    eventually(fires)
    time.sleep(1)
    made = fires()
    assert len(made) == 1, made
    assert made[0]["result"] == "success", made
    task = running.queue().task(made[0]["taskId"])
    assert task["metadata"]["name"] == f"{name} #7 by octo"
    running.hooks().removeHook("demo", name)


def test_every_form_of_signature(bridges):
    assert bridges.github({}, unique("d")).status_code == 202
    assert bridges.github({}, unique("d"), secret=SECRETS["GITHUB_OLD"]).status_code == 202
    assert bridges.github({}, unique("d"), secret="wrong").status_code == 403
    ping = bridges.github({"zen": "z"}, unique("d"), "ping")
    assert ping.status_code == 200
    form = b"payload=" + urllib.parse.quote('{"ref": "refs/heads/main"}').encode()
    answer = bridges.github(form, unique("d"), **{"Content-Type": "application/x-www-form-urlencoded"})
    assert answer.status_code == 202

    body = json.dumps({"repository": {"full_name": "team/app"}}).encode()
    code = hmac.new(SECRETS["HMAC_KEY"].encode(), body, hashlib.sha256).hexdigest()
    fields = {"Content-Type": "application/json", "X-Event-Key": "repo:push", "X-Request-UUID": unique("b")}
    answer = bridges.post("bitbucket", body, fields | {"X-Hub-Signature": f"sha256={code}"})
    assert (answer.status_code, answer.json()["routingKey"]) == (202, "repo.team.app.push")
    assert bridges.post("bitbucket", body, fields).status_code == 403
    test = {"Content-Type": "application/json", "X-Event-Key": "diagnostics:ping"}
    assert bridges.post("bitbucket", b'{"test": true}', test).status_code == 200

    body = json.dumps({"project": {"path_with_namespace": "group/sub/app"}}).encode()
    fields = {"Content-Type": "application/json", "X-Gitlab-Event": "Push Hook", "X-Gitlab-Event-UUID": unique("g")}
    answer = bridges.post("gitlab", body, fields | {"X-Gitlab-Token": SECRETS["GITLAB_TOKEN"]})
    assert (answer.status_code, answer.json()["routingKey"]) == (202, "push.group/sub.app._")
    assert bridges.post("gitlab", body, fields | {"X-Gitlab-Token": "guess"}).status_code == 403

    def standard(body, identity, moment):
        key = base64.b64decode(STANDARD_KEY)
        code = base64.b64encode(hmac.new(key, f"{identity}.{moment}.".encode() + body, hashlib.sha256).digest())
        return {"webhook-id": identity, "webhook-timestamp": str(moment), "webhook-signature": f"v1,{code.decode()}"}

    now = int(time.time())
    assert bridges.post("gitlab", body, fields | standard(body, unique("g"), now)).status_code == 202
    body = b'{"type": "invoice.paid"}'
    plain = {"Content-Type": "application/json"}
    answer = bridges.post("billing", body, plain | standard(body, unique("s"), now))
    assert (answer.status_code, answer.json()["routingKey"]) == (202, "invoice.paid")
    assert bridges.post("billing", body, plain | standard(body, unique("s"), now - 900)).status_code == 403


def test_a_noisy_source_is_held_back_alone(bridges):
    def send(body):
        code = base64.b64encode(hmac.new(SECRETS["HMAC_KEY"].encode(), body, hashlib.sha512).digest()).decode()
        return bridges.post("nagios", body, {"Content-Type": "application/json", "X-Sig": f"v1={code}"})

    assert send(json.dumps({"host": "x" * 600}).encode()).status_code == 413
    answers = [send(json.dumps({"host": "db1.example", "state": "down"}).encode()) for _ in range(20)]
    assert [answer.status_code for answer in answers].count(202) == 3
    assert answers[0].json()["routingKey"] == "alert.db1%example.down"
    assert answers[-1].status_code == 429 and int(answers[-1].headers["Retry-After"]) >= 1
    assert bridges.github({}, unique("d")).status_code == 202
    assert bridges.post("unknown", b"{}", {}).status_code == 404


def test_random_bodies_make_no_internal_errors(bridges):
    source = random.Random(1)
    for number in range(300):
        body = bytes(source.choices(b'{}[]":,\\u0dn1e9-.%&+= payload\x00\xff\xc3', k=source.randrange(60)))
        types = ["application/json", "application/x-www-form-urlencoded", "text/plain", ""]
        answer = bridges.github(body, f"fuzz-{number}", **{"Content-Type": source.choice(types)})
        assert answer.status_code < 500, (body, answer.text)


def test_operators_list_and_replay(bridges, running):
    delivery = unique("replay")
    assert bridges.github({"n": 1}, delivery, "issues").status_code == 202
    reference = requests.get(f"{running.root_url}/references/bridges/v1/api.json", timeout=120).json()
    Client = taskcluster.client.createApiClient("Bridges", {"reference": reference})
    client = Client(running.options)
    assert client.ping()["alive"] is True
    listed = client.listDeliveries("github", query={"limit": 5})["deliveries"]
    assert delivery in [entry["deliveryId"] for entry in listed]
    assert client.delivery("github", delivery)["message"]["body"] == {"n": 1}
    with pytest.raises(taskcluster.exceptions.TaskclusterRestFailure) as failure:
        Client(running.anonymous).replayDelivery("github", delivery)
    assert failure.value.status_code == 403
    assert client.replayDelivery("github", delivery)["replays"] == 1

    binary = os.path.join(os.environ.get("SLIPWAY_BIN", TOP / ".build" / "release"), "slipway")
    environment = {key: value for key, value in running.values.items() if key.startswith("TASKCLUSTER_")}
    for arguments, expected in [
        (["deliveries", "github"], delivery),
        (["show", "github", delivery], '"eventId"'),
        (["replay", "github", delivery], "replay 2"),
        (["repositories"], bridges.repository),
    ]:
        done = subprocess.run([binary, "bridge", *arguments], env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout

    def replayed():
        return {m[3].get("replay") for m in bridges.collector.of("github") if m[3]["eventId"] == delivery}

    eventually(lambda: replayed() == {None, 1, 2})


def test_pushes_are_announced_once_also_across_a_restart(bridges, running):
    mine = lambda: [entry for entry in bridges.collector.of("hg") if entry[3]["repository"] == bridges.repository]
    # The first look begins at the tip: wait for it, so that what follows is new.
    eventually(lambda: requests.get(f"{bridges.direct}/metrics", timeout=120).text.count("bridge_hg_polls_total{"))
    Pushlog.push(3)
    eventually(lambda: len(mine()) >= 3)
    running.suite.stop("pulse-listener", signal.SIGKILL)
    Pushlog.push(150)
    Pushlog.broken = 2
    running.suite.start_services()
    eventually(lambda: len({entry[3]["push"]["id"] for entry in mine()}) >= 153, 60)
    # What the broker had confirmed but the killed process had not crossed off comes again, under the same id.
    first = {}
    for _, _, message_id, payload in mine():
        assert first.setdefault(payload["push"]["id"], message_id) == message_id
    assert list(first) == list(range(1, 154))
    assert mine()[0][1] == f"push.{bridges.repository}"


def test_kills_lose_nothing_that_was_accepted(bridges, running):
    """A sender posts numbered deliveries; every answer 2xx is a promise, and the process is killed again and again."""
    prefix, accepted, times, stop = unique("kill"), [], [], threading.Event()

    def send():
        number = 0
        session = requests.Session()
        while not stop.is_set():
            number += 1
            identity = f"{prefix}-{number}"
            body = json.dumps({"n": number}).encode()
            code = hmac.new(bridges.github_secret.encode(), body, hashlib.sha256).hexdigest()
            fields = {
                "Content-Type": "application/json",
                "X-GitHub-Event": "push",
                "X-GitHub-Delivery": identity,
                "X-Hub-Signature-256": f"sha256={code}",
            }
            try:
                start = time.monotonic()
                answer = session.post(f"{bridges.direct}/webhooks/github", data=body, headers=fields, timeout=30)
                times.append(time.monotonic() - start)
            except requests.RequestException:
                time.sleep(0.01)
                continue
            if answer.status_code == 202:
                accepted.append(identity)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    kills = 12
    try:
        for _ in range(kills):
            before = len(accepted)
            eventually(lambda: len(accepted) > before)
            time.sleep(random.uniform(0, 0.5))
            running.suite.stop("pulse-listener", signal.SIGKILL)
            running.suite.start_services()
    finally:
        stop.set()
        sender.join()
    assert accepted

    def published():
        return [entry for entry in bridges.collector.of("github") if entry[3]["eventId"].startswith(prefix + "-")]

    eventually(lambda: set(accepted) <= {entry[3]["eventId"] for entry in published()}, 60)
    time.sleep(1)
    ids = {}
    for _, _, message_id, payload in published():
        ids.setdefault(payload["eventId"], set()).add(message_id)
    # What the broker had confirmed but nobody had crossed off comes twice, under one id, by which hooks recognise it.
    assert all(len(messages) == 1 for messages in ids.values())
    times.sort()
    print(
        f"{kills} kills, {len(accepted)} accepted, {len(published()) - len(ids)} copies; "
        f"p50 {times[len(times) // 2] * 1000:.1f} ms, p99 {times[len(times) * 99 // 100] * 1000:.1f} ms"
    )


def test_minutes_are_announced(bridges):
    minutes = eventually(lambda: bridges.collector.of("clock"), 75, 0.2)
    for _, key, _, payload in minutes:
        moment = time.strptime(payload["time"], "%Y-%m-%dT%H:%M:00.000Z")
        assert key == time.strftime("time.%Y.%m.%d.%A.%H.%M", moment).lower()
    # Processes were killed by other tests: what is announced again has the same id.
    assert len({key for _, key, _, _ in minutes}) == len({message_id for _, _, message_id, _ in minutes})


def test_a_bad_configuration_is_reported_whole(running, tmp_path):
    name = shutil.which("pulse-listener", path=str(os.environ.get("SLIPWAY_BIN", TOP / ".build" / "release")))
    path = tmp_path / "bridges.json"
    path.write_text(json.dumps({"webhooks": {"sources": {"a": {"kind": "github", "secrets": [{"environment": "NONE"}]},
                                                         "b": {"kind": "hmac", "secrets": [{"file": "/none"}]}}}}))
    environment = running.suite.service_environment("pulse-listener") | {"BRIDGES_CONFIG": str(path)}
    done = subprocess.run([name, "check-configuration"], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    for part in ["BRIDGES_CONFIG", "NONE", "/none", "signature"]:
        assert part in done.stderr, done.stderr
