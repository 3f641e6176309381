# SPDX-License-Identifier: MPL-2.0
"""roller as its clients use it: Hawk by PyPI's mohawk, the command line, workers that really ping, processes that die."""

import json
import os
import pathlib
import re
import signal
import subprocess
import threading
import time
import uuid

import pika
import pytest
import requests
import taskcluster

from roller import PREFIX, SHERIFF, Proxy, Roller
from support import eventually, unique

BINARIES = pathlib.Path(os.environ.get("SLIPWAY_BIN", pathlib.Path(__file__).resolve().parents[2] / ".build" / "release"))
UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


@pytest.fixture(scope="module")
def roller(running):
    if "ROLLER_URL" not in running.values:
        pytest.skip("roller-api was not built")
    return Roller(running)


@pytest.fixture
def machine(roller):
    """A machine that is this one."""
    name = unique("ms").lower()
    document = {
        "ip": "127.0.0.1",
        "workers": [{"worker_id": name, "worker_group": "mdc1", "provisioner_id": "releng", "worker_type": "linux"}],
    }
    assert roller.call("PUT", f"machines/{name}", body=document).status_code == 201
    return name


def slipway(running, *arguments, check=True, stdin=None):
    environment = {**os.environ, **{name: str(value) for name, value in running.values.items()}}
    done = subprocess.run(
        [str(BINARIES / "slipway"), *arguments], env=environment, capture_output=True, text=True, input=stdin, timeout=240
    )
    if check:
        assert done.returncode == 0, done.stderr + done.stdout
    return done


def test_r3_real_clients_get_a_job_from_each_generation_of_routes(roller, machine):
    paths = [
        f"jobs?tc_worker_id={machine}&task_name=ping",
        f"workers/{machine}/group/mdc1/jobs?task_name=ping",
        f"workers/{machine}/jobs?task_name=ping&worker_group=mdc1&provisioner_id=releng&worker_type=linux",
    ]
    for path in paths:
        answer = roller.call("POST", path, scopes=[PREFIX + "ping"], headers={"Origin": "https://tools.taskcluster.net"})
        assert answer.status_code in (200, 201), answer.text
        body = answer.json()
        assert UUID4.fullmatch(body["task_id"]) and body["tc_worker_id"] == body["worker_id"] == machine
        assert list(body)[:8] == [
            "task_id", "http_origin", "client_id", "provisioner_id", "worker_type", "worker_group", "worker_id", "task_name",
        ]
        assert body["client_id"] == SHERIFF
        assert roller.wait(body["task_id"])["status"] == "COMPLETE"


def test_r7_the_auth_service_is_away(roller, machine, running):
    running.suite.stop("taskcluster-local")
    try:
        started = time.monotonic()
        answer = roller.create("ping", machine)
        assert answer.status_code == 502 and answer.headers["Retry-After"] == "5"
        assert answer.json() == {"detail": "Authentication service unavailable."}
        assert time.monotonic() - started < 60
        beat = requests.get(roller.url + "/__heartbeat__", timeout=60)
        assert beat.status_code == 200 and beat.json()["checks"]["auth"] == "warning"
    finally:
        running.suite.start_services()
    eventually(lambda: roller.create("ping", machine).status_code in (200, 201))


def test_r14_a_proxy_that_is_not_trusted_changes_nothing(roller, machine):
    proxy = Proxy(roller.url, {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9"})
    try:
        own = Roller(roller.running)
        own.url = proxy.url
        answer = own.create("ping", machine)
        # The signature is for the address that the client used, and that is the proxy's.
        assert answer.status_code in (200, 201), answer.text
        entries = own.call("GET", f"audit?object=job:{answer.json()['task_id']}").json()["entries"]
        assert [entry["source_ip"] for entry in entries] in ([], ["127.0.0.1"])
    finally:
        proxy.shutdown()


def test_r16_jobs_are_taken_without_a_broker_and_done_when_it_is_back(roller, machine, running):
    running.suite.run_servers("stop-rabbitmq")
    try:
        answer = roller.create("ping", machine)
        assert answer.status_code == 201
    finally:
        running.suite.run_servers("start-rabbitmq")
    assert roller.wait(answer.json()["task_id"])["status"] == "COMPLETE"


def test_r17_a_job_ends_while_the_api_is_away(roller, machine, running):
    answer = roller.create("ping", machine, "&count=4")
    assert answer.status_code == 201, answer.text
    running.suite.stop("roller-api", signal.SIGKILL)
    time.sleep(5)
    running.suite.start_services()
    job = roller.wait(answer.json()["task_id"])
    assert job["status"] == "COMPLETE" and job["attempts"]


def test_r18_a_double_click_is_one_job(roller, machine):
    answers, threads = [], []
    for _ in range(20):
        thread = threading.Thread(target=lambda: answers.append(Roller(roller.running).create("reboot", machine, "&dry_run=1")))
        threads.append(thread)
        thread.start()
    for thread in threads:
        thread.join()
    created = [answer.json()["task_id"] for answer in answers if answer.status_code == 201]
    joined = [answer for answer in answers if answer.status_code == 200]
    # A job that is over by then is not joined; each answer is one of the two.
    assert created and len(created) + len(joined) == 20
    assert {answer.json()["task_id"] for answer in joined} <= set(created)
    key = {"Idempotency-Key": str(uuid.uuid4())}
    first = roller.create("ping", machine, headers=key).json()["task_id"]
    roller.wait(first)
    assert roller.create("ping", machine, headers=key).json()["task_id"] == first


def test_r21_fixtures_of_the_first_generation_lead_to_a_ping(roller):
    worker = unique("tc-worker").lower()
    host = unique("localhost").lower()
    fixtures = [
        {"model": "api.Machine", "pk": 1, "fields": {"host": host, "ip": "127.0.0.1", "workers": [1]}},
        {
            "model": "api.TaskClusterWorker",
            "pk": 1,
            "fields": {"tc_provisioner_id": "", "tc_worker_type": "", "tc_worker_group": "", "tc_worker_id": worker},
        },
    ]
    plan = roller.call("POST", "machines/import?mode=apply", body=fixtures)
    assert plan.status_code == 200 and plan.json()["create"] == [host], plan.text
    answer = roller.call("POST", f"jobs?tc_worker_id={worker}&task_name=ping")
    job = roller.wait(answer.json()["task_id"])
    assert job["status"] == "COMPLETE" and job["machine"]["name"] == host, job


def test_r63_nothing_is_started_for_names_that_are_commands(roller):
    for odd in ["x%3Bid", "%24%28id%29", "%60id%60", "-f", "%00", "x%0Aid", "%D9%A1"]:
        for path in (f"jobs?task_name=ping&tc_worker_id={odd}", f"workers/{odd}/jobs?task_name=ping"):
            assert 400 <= roller.call("POST", path).status_code < 500


def test_r68_registered_actions_become_buttons_that_work(roller, machine, running):
    provisioner = unique("roller")
    done = slipway(running, "job", "register", roller.url, provisioner)
    assert "actions registered" in done.stdout
    actions = running.queue().getProvisioner(provisioner)["actions"]
    ping = next(action for action in actions if action["name"] == "ping")
    assert ping["context"] == "worker" and ping["method"] == "POST"
    url = ping["url"]
    for name, value in {"provisionerId": "releng", "workerType": "linux", "workerGroup": "mdc1", "workerId": machine}.items():
        url = url.replace(f"<{name}>", value, 1)
    answer = roller.call("POST", url.removeprefix(f"{roller.url}/api/v1/"), scopes=[PREFIX + "ping"])
    assert answer.status_code in (200, 201), answer.text
    for base, name in [("https://h/<workerId>", provisioner), ("ftp://h", provisioner), ("https://h/", provisioner), ("https://h", "a b")]:
        assert slipway(running, "job", "register", base, name, check=False).returncode == 1


def test_messages_follow_a_job_and_fit_their_published_schema(roller, machine, running):
    reference = requests.get(f"{roller.url}/references/roller/v1/exchanges.json", timeout=60).json()
    entry = reference["entries"][0]
    assert entry["exchange"] == "roller-events"
    schema = requests.get(f"{roller.url}/schemas/roller/v1/job-message.json", timeout=60).json()
    connection = pika.BlockingConnection(pika.URLParameters(running.amqp_url))
    try:
        channel = connection.channel()
        user = pika.URLParameters(running.amqp_url).credentials.username
        exchange = reference["exchangePrefix"] + entry["exchange"]
        queue = channel.queue_declare(f"queue/{user}/{unique('roller')}", exclusive=True).method.queue
        # The service declares it as well, when it has the broker.
        channel.exchange_declare(exchange, "topic", durable=True)
        channel.queue_bind(queue, exchange, f"ping.{machine}.*")
        job = roller.create("ping", machine).json()["task_id"]
        seen = []
        for method, _, body in channel.consume(queue, auto_ack=True, inactivity_timeout=120):
            assert method, f"no more than {seen}"
            seen.append((method.routing_key, json.loads(body)))
            if seen[-1][1]["status"] in ("COMPLETE", "FAILED"):
                break
    finally:
        connection.close()
    assert [message["status"] for _, message in seen] == ["PENDING", "RUNNING", "COMPLETE"]
    for key, message in seen:
        assert key == f"ping.{machine}.{message['status']}" and message["taskId"] == job
        assert set(schema["required"]) <= set(message) <= set(schema["properties"])


def test_operators_have_commands_for_machines_and_jobs(roller, running, tmp_path):
    name = unique("host").lower()
    table = tmp_path / "machines.csv"
    table.write_text(f"name,ip,worker_id,groups\n{name},127.0.0.1,{name},{name}-rack\n{name}-2,nonsense,,\n")
    plan = slipway(running, "machine", "import", str(table), check=False)
    assert plan.returncode == 6 and "row 3" in plan.stdout and "nothing written" in plan.stdout
    table.write_text(f"name,ip,worker_id,groups\n{name},127.0.0.1,{name},{name}-rack\n")
    assert "1 new" in slipway(running, "machine", "import", str(table), "--apply").stdout
    assert name in slipway(running, "machine", "list", "--group", f"{name}-rack").stdout
    watched = slipway(running, "job", "run", "ping", name, "--watch").stdout.splitlines()
    assert UUID4.fullmatch(watched[0]) and "succeeded" in watched and any(line.startswith("COMPLETE") for line in watched)
    assert watched[0] in slipway(running, "job", "list", "--machine", name).stdout
    assert "succeeded" in slipway(running, "job", "log", watched[0]).stdout
    assert slipway(running, "machine", "check", name).stdout.startswith("OK")
    slipway(running, "machine", "maintenance", name, "--on", "--reason", "new disk")
    refused = slipway(running, "job", "run", "reboot", name, check=False)
    # The root client may override; somebody else would be refused.
    assert refused.returncode == 0
    slipway(running, "job", "cancel", refused.stdout.strip(), check=False)
    probe = slipway(running, "machine", "check", name, check=False)
    assert probe.returncode == 1 and probe.stdout.startswith("WARNING") and "new disk" in probe.stdout
    slipway(running, "machine", "maintenance", name, "--off")
    shown = slipway(running, "machine", "show", name).stdout
    assert "state: active" in shown
    assert slipway(running, "job", "check", check=False).stdout.split(":")[0] in ("OK", "WARNING", "CRITICAL")
    assert "reboot" in slipway(running, "job", "actions").stdout


def test_r67_heartbeats_say_how_it_is(roller, running):
    def beat():
        answer = requests.get(roller.url + "/__heartbeat__", timeout=60)
        # What other tests have left in the inventory may be a warning.
        needed = ("database", "migrations", "broker", "auth", "workers")
        return answer if all(answer.json()["checks"][name] == "ok" for name in needed) else None

    answer = eventually(beat)
    assert answer.status_code == 200 and answer.json()["status"] in ("ok", "warning")
    small = requests.get(roller.url + "/__lbheartbeat__", timeout=60)
    assert small.status_code == 200 and small.content == b""
    assert requests.get(roller.url + "/__version__", timeout=60).status_code == 200


def test_wrong_settings_are_all_named_at_once(running):
    if "ROLLER_URL" not in running.values:
        pytest.skip("roller-api was not built")
    environment = running.suite.service_environment("roller-api") | {
        "TASK_NAMES": "ping,fly", "DUPLICATE_POLICY": "maybe", "TRUSTED_PROXIES": "here", "VALID_WORKER_ID_REGEX": "(",
    }
    done = subprocess.run(
        [str(BINARIES / "roller-api"), "check-configuration"], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    for name in ("TASK_NAMES", "DUPLICATE_POLICY", "TRUSTED_PROXIES", "VALID_WORKER_ID_REGEX"):
        assert name in done.stderr
