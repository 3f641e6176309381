# SPDX-License-Identifier: MPL-2.0
"""Chains of trust across implementations: what one side signs the other verifies, and neither takes what was tampered with."""

import asyncio
import gzip
import json
import os
import pathlib
import subprocess
import urllib.request
import zlib

import aiohttp
import pytest
import taskcluster

from chain import Graph, Key, Worker, artifact, our_binary, python_binary, unique, wait_resolved
from support import eventually
from workers import size

SCRIPT = """
import hashlib, json, pathlib, sys
config = json.load(open(sys.argv[1]))
work, out = pathlib.Path(config["work_dir"]), pathlib.Path(config["artifact_dir"]) / "public"
task = json.load(open(work / "task.json"))
for entry in task["payload"].get("upstreamArtifacts", []):
    for name in entry["paths"]:
        path = work / "cot" / entry["taskId"] / name
        if not path.exists():
            continue
        target = out / (name.split("/", 1)[1] + ".signed")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(hashlib.sha256(path.read_bytes()).hexdigest())
        print("signed", name)
"""

CONTENT = b"the product\n" * 5000
NAME = "public/build/target.zip"
GENERIC = {"command": [["true"]], "mounts": [], "maxRunTime": 60, "features": {}}


@pytest.fixture(scope="module")
def graph(running, tmp_path_factory):
    """A decided graph: every variant of a build with the tasks that rest on it."""
    graph = Graph(running, tmp_path_factory.mktemp("chain"))
    graph.make_decision()
    graph.sign_type = unique("sign").lower()
    graph.python_sign_type = unique("pysign").lower()
    graph.push_type = unique("push").lower()
    graph.variants, graph.built = {}, set()
    for variant in ("good", "python", "corrupt", "short", "swapped", "re-signed", "unlisted", "altered", "restricted"):
        build = graph.add(f"build-{variant}", f"{graph.build_queue}-{len(graph.variants)}", GENERIC)
        worker_type = graph.python_sign_type if variant == "python" else graph.sign_type
        scopes = ["project:acme:cert:release"] if variant == "restricted" else []
        sign = graph.add(
            f"sign-{variant}", f"slipway/{worker_type}", {"maxRunTime": 60}, [("build", build, [NAME])], scopes
        )
        push = graph.add(
            f"push-{variant}", f"slipway/{graph.push_type}", {"maxRunTime": 60},
            [("signing", sign, ["public/build/target.zip.signed"]), ("build", build, [NAME])],
        )
        graph.variants[variant] = (build, sign, push)
    good = graph.variants["good"][0]
    graph.repeats = [
        graph.add(f"sign-again-{number}", f"slipway/{graph.sign_type}", {"maxRunTime": 60}, [("build", good, [NAME])])
        for number in range(size("TASKS", 60, 500))
    ]
    graph.run_decision()
    yield graph
    graph.web.shutdown()


def build(graph, variant):
    """Plays the build's worker; what goes wrong with it depends on the variant."""
    task_id = graph.variants[variant][0]
    if task_id in graph.built:
        return task_id
    graph.built.add(task_id)
    graph.create(task_id)
    artifacts, stated, key, change = {NAME: CONTENT}, None, None, lambda statement: statement
    if variant == "corrupt":
        artifacts, stated = {NAME: b"X" + CONTENT[1:]}, {NAME: CONTENT}
    elif variant == "short":
        artifacts, stated = {NAME: CONTENT[:-1]}, {NAME: CONTENT}
    elif variant == "swapped":
        artifacts = {NAME: b"another", "public/build/other.zip": CONTENT}
        stated = {NAME: CONTENT, "public/build/other.zip": b"another"}
    elif variant == "re-signed":
        key = Key()
    elif variant == "unlisted":
        def change(statement):
            statement["artifacts"].pop(NAME)
            return statement
    elif variant == "altered":
        def change(statement):
            statement["task"] = json.loads(json.dumps(statement["task"]))
            statement["task"]["payload"]["command"] = [["rm", "-rf", "/"]]
            return statement
    graph.run(task_id, artifacts, "generic-worker", stated, key, change)
    return task_id


def write(path, configuration):
    path.write_text(json.dumps(configuration, indent=2))
    return path


@pytest.fixture(scope="module")
def our_signer(running, graph):
    """Our worker, verifying and signing."""
    folder = graph.folder / "signer"
    configuration = graph.ours(graph.configuration(folder, graph.sign_type, SCRIPT))
    with Worker(our_binary(running), write(folder / "worker.json", configuration), folder / "output") as worker:
        yield worker


def python_verdict(graph, task_id, folder, **changes):
    """What the Python worker's verification says about a task: None for good, else its complaint."""
    from scriptworker.config import create_config
    from scriptworker.context import Context
    from scriptworker.cot.verify import ChainOfTrust, verify_chain_of_trust
    from scriptworker.exceptions import ScriptWorkerException

    configuration = graph.configuration(folder, "python-verifier", "", **changes)
    config, credentials = create_config(write(folder / "python.json", configuration))

    async def verify():
        async with aiohttp.ClientSession() as session:
            context = Context()
            context.session = session
            context.config = config
            context.credentials = credentials
            context.task = await taskcluster.aio.Queue(graph.running.options).task(task_id)
            graph.seed_python_cache(config["work_dir"])
            (folder / "artifact" / "public" / "logs").mkdir(parents=True, exist_ok=True)
            try:
                await verify_chain_of_trust(ChainOfTrust(context, config["cot_job_type"], task_id=task_id))
            except ScriptWorkerException as error:
                return str(error)
        return None

    return asyncio.run(verify())


def test_58_59_python_verifies_a_chain_that_our_worker_verified_and_signed(running, graph, our_signer, tmp_path):
    build(graph, "good")
    _, sign, push = graph.variants["good"]
    graph.create(sign)
    status = wait_resolved(running.queue(), sign)
    assert status["state"] == "completed", our_signer.text()[-5000:]
    log = artifact(running, sign, "public/logs/chain_of_trust.log").decode()
    assert log.rstrip().endswith("Good.")

    graph.create(push)
    assert python_verdict(graph, push, tmp_path / "push", cot_job_type="beetmover") is None
    statement = json.loads((tmp_path / "push/work/cot" / sign / "public/chain-of-trust.json").read_text())
    assert statement["task"] == running.queue().task(sign)
    assert set(statement["artifacts"]) == {
        "public/build/target.zip.signed", "public/logs/live_backing.log", "public/logs/chain_of_trust.log",
    }


def signed(graph):
    """The task that signs the good build, done by our worker; the tests of this file may run in any company."""
    build(graph, "good")
    sign = graph.variants["good"][1]
    graph.create(sign)
    assert wait_resolved(graph.queue, sign)["state"] == "completed"
    return sign


def test_59_python_tools_take_our_signature(running, graph, our_signer, tmp_path):
    sign = signed(graph)
    for name in ("chain-of-trust.json", "chain-of-trust.json.sig"):
        (tmp_path / name).write_bytes(artifact(running, sign, f"public/{name}"))
    (tmp_path / "public_key").write_text(graph.keys["scriptworker"].public)
    files = [str(tmp_path / "chain-of-trust.json"), str(tmp_path / "chain-of-trust.json.sig")]
    for command in ([python_binary("verify_ed25519_signature")], [our_binary(running), "verify-ed25519-signature"]):
        subprocess.run([*command, "--pubkey", str(tmp_path / "public_key"), *files], check=True)
        (tmp_path / "changed").write_bytes((tmp_path / "chain-of-trust.json").read_bytes() + b"\n")
        changed = [*command, "--pubkey", str(tmp_path / "public_key"), str(tmp_path / "changed"), files[1]]
        assert subprocess.run(changed, capture_output=True, check=False).returncode == 1


def test_58_our_worker_verifies_a_chain_that_python_signed(running, graph, tmp_path):
    build(graph, "python")
    _, sign, push = graph.variants["python"]
    graph.create(sign)
    folder = tmp_path / "python"
    configuration = graph.configuration(folder, graph.python_sign_type, SCRIPT, verify_chain_of_trust=False)
    with Worker(python_binary(), write(folder / "worker.json", configuration), folder / "output") as worker:
        assert wait_resolved(running.queue(), sign, 90)["state"] == "completed", worker.text()[-3000:]
    # The Python worker fetches inputs only when verifying, so what the second task takes is the log it signed for.
    push = graph.variants["python"][2]
    task = graph.tasks[push]
    task["payload"]["upstreamArtifacts"][0]["paths"] = ["public/logs/live_backing.log"]
    assert our_verdict(running, graph, sign, tmp_path / "ours", "--task-type", "signing")[0] == 0


def our_verdict(running, graph, task_id, folder, *arguments):
    """What our command says: its exit status and its JSON."""
    configuration = graph.ours(graph.configuration(folder, "our-verifier", ""))
    path = write(folder / "worker.json", configuration)
    result = subprocess.run(
        [our_binary(running), "verify-cot", task_id, "--config", path, "--cleanup", "--json", *arguments],
        capture_output=True, text=True, check=False, timeout=120,
    )
    return result.returncode, json.loads(result.stdout), result.stderr


@pytest.mark.parametrize(
    ("variant", "reason"),
    [
        ("corrupt", "sha256"), ("short", "sha256"), ("swapped", "sha256"), ("re-signed", "signature"),
        ("unlisted", "not among the artifacts"), ("altered", "payload differs"),
    ],
)
def test_60_64_66_67_68_what_was_tampered_with_is_refused(running, graph, our_signer, tmp_path, variant, reason):
    build(graph, variant)
    _, sign, _ = graph.variants[variant]
    graph.create(sign)
    status = wait_resolved(running.queue(), sign)
    run = status["runs"][-1]
    assert (run["state"], run["reasonResolved"]) == ("exception", "malformed-payload"), our_signer.text()[-4000:]
    log = artifact(running, sign, "public/logs/chain_of_trust.log").decode()
    assert reason in log, log
    # Viewers ask for the usual name; it leads to the reasons. Nothing that a script makes is there.
    assert artifact(running, sign, "public/logs/live_backing.log").decode() == log
    names = {each["name"] for each in running.queue().listLatestArtifacts(sign)["artifacts"]}
    assert names == {"public/logs/live_backing.log", "public/logs/chain_of_trust.log"}
    if variant != "altered":
        # Python trusts whatever definition a statement carries.
        assert python_verdict(graph, sign, tmp_path / "python") is not None


def test_77_a_refused_tasks_log_is_one_clean_member_and_its_usual_log_leads_there(running, graph, our_signer):
    """The reasons are whole, even after more tasks; no later line of the worker ends up behind them."""
    task_id = taskcluster.slugId()
    changed = {**graph.tasks[graph.variants["good"][1]], "payload": {"maxRunTime": 77}}
    graph.queue.createTask(task_id, changed)
    assert wait_resolved(running.queue(), task_id)["runs"][-1]["reasonResolved"] == "malformed-payload"
    url = f"{running.root_url}/api/queue/v1/task/{task_id}/artifacts/public/logs/chain_of_trust.log"
    with urllib.request.urlopen(url, timeout=30) as response:
        raw, coding = response.read(), response.headers["Content-Encoding"]
    assert coding == "gzip"
    member = zlib.decompressobj(31)
    text = member.decompress(raw)
    assert (member.eof, member.unused_data) == (True, b"")
    assert text == gzip.decompress(raw) and b"not in the task graph" in text
    listed = running.queue().listLatestArtifacts(task_id)["artifacts"]
    assert {each["name"]: each["storageType"] for each in listed}["public/logs/live_backing.log"] == "link"


def test_90_many_tasks_good_and_refused_leave_nothing_behind(running, graph, our_signer):
    """60 tasks (full size: 500), every tenth with a chain that is refused: descriptors and memory stay what they were."""
    count = size("TASKS", 60, 500)
    pid = our_signer.process.pid
    build(graph, "good")
    sign = graph.variants["good"][1]

    def facts():
        lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
        resident = int(next(line for line in lines if line.startswith("VmRSS:")).split()[1])
        return len(os.listdir(f"/proc/{pid}/fd")), resident

    def run(number):
        if number % 10 == 9:
            refused = taskcluster.slugId()
            graph.queue.createTask(refused, {**graph.tasks[sign], "payload": {"maxRunTime": 1000 + number}})
            return refused, "malformed-payload"
        return graph.create(graph.repeats[number]), "completed"

    expected = []
    for number in range(count):
        expected.append(run(number))
        if number == count // 3:
            for task_id, _ in expected:
                wait_resolved(running.queue(), task_id, 180)
            before = facts()
    for task_id, outcome in expected:
        last = wait_resolved(running.queue(), task_id, 180)["runs"][-1]
        assert (last["reasonResolved"] if last["state"] == "exception" else last["state"]) == outcome
    # The script's descriptors of the last task may still be about to close.
    eventually(lambda: facts()[0] <= before[0] + 2, 30)
    assert facts()[1] - before[1] < 15_000, "kB more after twice as many tasks again"


def test_69_a_task_that_differs_from_its_announcement_is_refused(running, graph, our_signer):
    parent = build(graph, "good")
    for name, changes in {
        "scope": {"scopes": ["project:acme:cert:release"]},
        "payload": {"payload": {"maxRunTime": 61}},
        "dependency": {"dependencies": [graph.decision_id, parent]},
    }.items():
        task_id = taskcluster.slugId()
        graph.queue.createTask(
            task_id, {**graph.tasks[graph.variants["good"][1]], **changes, "metadata": {
                "name": name, "description": name, "owner": "release@example.com",
                "source": graph.tasks[parent]["metadata"]["source"],
            }}
        )
        status = wait_resolved(running.queue(), task_id)
        assert status["runs"][-1]["reasonResolved"] == "malformed-payload", name
        log = artifact(running, task_id, "public/logs/chain_of_trust.log").decode()
        assert "not in the task graph" in log


def test_74_a_restricted_scope_is_for_listed_trees(running, graph, our_signer, tmp_path):
    build(graph, "restricted")
    _, sign, _ = graph.variants["restricted"]
    graph.create(sign)
    assert wait_resolved(running.queue(), sign)["state"] == "completed", our_signer.text()[-4000:]
    assert python_verdict(graph, sign, tmp_path / "python") is None
    path = tmp_path / "ours"
    configuration = graph.ours(graph.configuration(path, "our-verifier", ""))
    configuration["cot_restricted_trees"] = {"product-trees": ["/acme/other"]}
    result = subprocess.run(
        [our_binary(running), "verify-cot", sign, "--task-type", "signing", "--no-check-task", "--cleanup",
         "--config", write(path / "worker.json", configuration)],
        capture_output=True, text=True, check=False, timeout=120,
    )
    assert result.returncode == 1
    assert "/acme/product is not among the trees" in result.stderr


def test_an_archived_chain_is_verified_and_explained_without_a_network(running, graph, our_signer, tmp_path):
    sign = signed(graph)
    archive = tmp_path / "archive"
    status, result, _ = our_verdict(
        running, graph, sign, tmp_path / "ours", "--task-type", "signing", "--capture", str(archive)
    )
    assert (status, result["verified"]) == (0, True)
    assert {link["type"] for link in result["links"]} == {"signing", "decision", "build"}
    assert result["links"][0]["publicKey"] == graph.keys["scriptworker"].public
    status, again, _ = our_verdict(
        running, graph, sign, tmp_path / "ours", "--task-type", "signing", "--offline", str(archive)
    )
    assert status == 0
    # How long it took is all that may differ.
    assert again.pop("seconds") >= 0 and result.pop("seconds") >= 0
    assert again == result
    status, empty, _ = our_verdict(
        running, graph, graph.variants["python"][1], tmp_path / "ours", "--task-type", "signing",
        "--offline", str(archive),
    )
    assert (status, empty["verified"]) == (1, False)
    tree = subprocess.run(
        [our_binary(running), "explain-cot", sign, "--task-type", "signing", "--cleanup",
         "--config", tmp_path / "ours" / "worker.json"],
        capture_output=True, text=True, check=True, timeout=120,
    ).stdout
    assert tree.splitlines()[0].startswith(f"signing {sign}")
    assert len(tree.splitlines()) == 3


def test_a_test_workdir_holds_what_a_script_will_find(running, graph, our_signer, tmp_path):
    build_id, sign = graph.variants["good"][0], signed(graph)
    command = [our_binary(running), "create_test_workdir", sign, "--path", tmp_path / "work", "--root-url", running.root_url]
    subprocess.run(command, check=True, capture_output=True)
    assert json.loads((tmp_path / "work/task.json").read_text()) == running.queue().task(sign)
    assert (tmp_path / "work/cot" / build_id / NAME).read_bytes() == CONTENT
    assert subprocess.run(command, check=False, capture_output=True).returncode == 1
    subprocess.run([*command, "--overwrite"], check=True, capture_output=True)
