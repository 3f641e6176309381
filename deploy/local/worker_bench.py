# SPDX-License-Identifier: MPL-2.0
"""The entries of bench about scriptworker: our worker and the Python one beside it, against the same queue in the same run."""

import base64
import contextlib
import datetime
import hashlib
import hmac
import http.client
import http.server
import json
import os
import pathlib
import random
import re
import secrets
import statistics
import subprocess
import threading
import time
import urllib.parse
import uuid


def slug():
    """A task id: a random UUID in the queue's spelling that begins with no dash."""
    value = bytearray(uuid.uuid4().bytes)
    value[0] &= 0x7F
    return base64.urlsafe_b64encode(bytes(value)).rstrip(b"=").decode()


class Queue:
    """The queue's API, as far as a benchmark needs it."""

    def __init__(self, environment):
        self.root = environment["TASKCLUSTER_ROOT_URL"]
        self.client = environment["TASKCLUSTER_CLIENT_ID"]
        self.token = environment["TASKCLUSTER_ACCESS_TOKEN"]
        self.local = threading.local()

    def call(self, method, path, body=None, credentials=None):
        url = urllib.parse.urlsplit(f"{self.root}/api/queue/v1{path}")
        client, token, extra = credentials or (self.client, self.token, "")
        stamp, nonce = int(time.time()), secrets.token_hex(4)
        text = "\n".join(["hawk.1.header", str(stamp), nonce, method, url.path, url.hostname, str(url.port), "", extra, ""])
        mac = base64.b64encode(hmac.new(token.encode(), text.encode(), hashlib.sha256).digest()).decode()
        header = f'Hawk id="{client}", ts="{stamp}", nonce="{nonce}", mac="{mac}"' + (f', ext="{extra}"' if extra else "")
        headers = {"Authorization": header} | ({"Content-Type": "application/json"} if body is not None else {})
        data = json.dumps(body) if body is not None else None
        for again in (True, False):
            connection = getattr(self.local, "connection", None)
            if connection is None:
                connection = self.local.connection = http.client.HTTPConnection(url.hostname, url.port, timeout=60)
            try:
                connection.request(method, url.path, data, headers)
                answer = connection.getresponse()
                content = answer.read()
                break
            except (OSError, http.client.HTTPException):
                self.local.connection = None
                if not again:
                    raise
        if answer.status >= 300:
            raise OSError(f"{method} {path}: {answer.status} {content[:300]!r}")
        return json.loads(content) if content else None

    def create(self, queue_id, payload, task=None):
        now = datetime.datetime.now(datetime.timezone.utc)
        moment = lambda hours: (now + datetime.timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
        task = task or slug()
        self.call(
            "PUT",
            f"/task/{task}",
            {
                "taskQueueId": queue_id, "created": moment(0), "deadline": moment(2), "expires": moment(24), "payload": payload,
                "metadata": {"name": "bench", "description": "a benchmark", "owner": "release@example.com", "source": "https://example.com/"},
            },
        )
        return task

    def status(self, task):
        return self.call("GET", f"/task/{task}/status")["status"]

    def resolved(self, task, limit=120, after=None):
        """The status of a resolved task; asked for seldom until the script has left a file, if one is named.

        Asking all the time would take the machine's processors from what is measured.
        """
        end = time.monotonic() + limit
        while (status := self.status(task))["state"] in ("pending", "running", "unscheduled"):
            if time.monotonic() > end:
                raise OSError(f"the task {task} was not resolved within {limit} s")
            pause = time.monotonic() + 0.5
            while after is not None and not after.exists() and time.monotonic() < pause:
                time.sleep(0.01)
            time.sleep(0.005)
        return status

    def put(self, task, run, credentials, name, path):
        """Uploads a file as an artifact of a claimed run."""
        expires = self.call("GET", f"/task/{task}")["expires"]
        encoded = urllib.parse.quote(name, safe="")
        body = {"storageType": "s3", "contentType": "application/octet-stream", "expires": expires}
        answer = self.call("POST", f"/task/{task}/runs/{run}/artifacts/{encoded}", body, credentials)
        subprocess.run(
            ["curl", "-sf", "-T", str(path), "-H", "Content-Type: application/octet-stream", "-H", "Expect:", answer["putUrl"]],
            check=True, stdout=subprocess.DEVNULL,
        )


def moment(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def share(values, part):
    values = sorted(values)
    return values[min(len(values) - 1, round(part * (len(values) - 1)))]


class Worker:
    """One worker of either kind in a folder of its own."""

    def __init__(self, program, folder, environment, script, ours=True, **changes):
        self.folder = pathlib.Path(folder)
        for name in ("work", "artifact", "log"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "key").write_text("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
        (self.folder / "key").chmod(0o600)
        self.type = "bench-" + secrets.token_hex(6)
        self.queue_id = f"slipway/{self.type}"
        configuration = {
            "taskcluster_root_url": environment["TASKCLUSTER_ROOT_URL"],
            "provisioner_id": "slipway", "worker_type": self.type, "worker_group": "bench", "worker_id": self.type,
            "credentials": {
                "clientId": environment["TASKCLUSTER_CLIENT_ID"], "accessToken": environment["TASKCLUSTER_ACCESS_TOKEN"],
            },
            "task_script": [str(word) for word in script],
            "work_dir": str(self.folder / "work"), "artifact_dir": str(self.folder / "artifact"),
            "task_log_dir": str(self.folder / "artifact" / "public" / "logs"), "log_dir": str(self.folder / "log"),
            "ed25519_private_key_path": str(self.folder / "key"), "verbose": False, **changes,
        }
        if ours:
            configuration.setdefault("shutdown_claim_grace", 0.5)
        path = self.folder / "worker.json"
        path.write_text(json.dumps(configuration))
        plain = {key: value for key, value in os.environ.items() if not key.startswith("TASKCLUSTER_")}
        self.started = time.monotonic()
        with open(self.folder / "output", "wb") as output:
            self.process = subprocess.Popen([str(program), str(path)], stdout=output, stderr=output, env=plain, cwd=self.folder)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def facts(self):
        lines = pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        facts = dict(line.split(":", 1) for line in lines)
        return {name: int(facts[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM", "RssAnon")}

    def stamps(self):
        path = self.folder / "stamps"
        return [int(line) / 1e9 for line in path.read_text().split()] if path.exists() else []

    def forget(self):
        (self.folder / "stamps").unlink(missing_ok=True)


class EmptyQueue(http.server.ThreadingHTTPServer):
    """A queue that never has work and notes when it is first asked."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), EmptyQueueHandler)
        self.asked = threading.Event()
        self.moment = None
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def environment(self):
        root = f"http://127.0.0.1:{self.server_address[1]}"
        return {"TASKCLUSTER_ROOT_URL": root, "TASKCLUSTER_CLIENT_ID": "bench", "TASKCLUSTER_ACCESS_TOKEN": "x" * 44}


class EmptyQueueHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        if not self.server.asked.is_set():
            self.server.moment = time.monotonic()
            self.server.asked.set()
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b'{"tasks": []}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

    def handle(self):
        # A worker that is stopped leaves in the middle of an answer.
        with contextlib.suppress(OSError):
            super().handle()


class WorkerEntries:
    """The entries, with what bench gives them: its table, the running suite, places, and the peers' interpreter."""

    def __init__(self, table, running, wrong, skipped, binaries, local, scale, floor, top):
        self.table, self.running, self.wrong, self.skipped = table, running, wrong, skipped
        self.binary = binaries / "scriptworker"
        self.local, self.scale, self.floor, self.top = local, scale, floor, top
        self.peer = None

    def folder(self, name):
        path = self.local / "worker" / f"{name}-{secrets.token_hex(4)}"
        path.mkdir(parents=True)
        return path

    def script(self):
        return self.floor("worker_script")

    def peer_python(self):
        """The interpreter of a virtual environment with the Python worker and what its test graphs need."""
        if self.peer is None:
            python = self.top / ".local" / "bench-worker-venv" / "bin" / "python"
            if not python.exists():
                subprocess.run(["python3", "-m", "venv", str(python.parents[1])], check=True)
            wanted = [
                line for line in (self.top / "Tests/InteropTests/requirements.txt").read_text().split()
                if line.split("==")[0] in ("scriptworker", "taskcluster", "json-e", "mohawk", "pytest")
            ]
            pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted]
            if subprocess.run(pip, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode != 0:
                raise self.skipped("the Python scriptworker cannot be installed")
            self.peer = python
        return self.peer

    def peer_worker(self):
        return self.peer_python().parent / "scriptworker"

    def start(self, name, script, peer=False, environment=None, **changes):
        environment = environment or self.running.everything()
        program = self.peer_worker() if peer else self.binary
        return Worker(program, self.folder(name), environment, script, ours=not peer, **changes)

    # ------------------------------------------------------------ start and rest

    def first_claim(self, peer, times):
        seconds, memory = [], None
        for turn in range(times):
            queue = EmptyQueue()
            with self.start("start", ["/bin/true"], peer, queue.environment) as worker:
                if not queue.asked.wait(60):
                    raise self.wrong("the worker did not ask for work within 60 s")
                seconds.append(queue.moment - worker.started)
                if turn == times - 1:
                    time.sleep(5)
                    memory = worker.facts()
            queue.shutdown()
            queue.server_close()
        return statistics.median(seconds), memory

    def rest(self):
        theirs, their_memory = self.first_claim(True, 2)
        ours, memory = self.first_claim(False, 5)
        self.table.row(
            "scriptworker, exec to first claim", f"{1000 * ours:,.0f} ms", f"scriptworker (PyPI) {1000 * theirs:,.0f} ms",
            f"{theirs / ours:.0f}x", "<= 300 ms", ours <= 0.3,
        )
        self.table.row(
            "  resident when idle", f"{memory['VmRSS']:.1f} MB", f"scriptworker (PyPI) {their_memory['VmRSS']:.0f} MB",
            f"{their_memory['VmRSS'] / memory['VmRSS']:.1f}x less", "<= 32 MB", memory["VmRSS"] <= 32,
        )
        self.table.row("  of it anonymous", f"{memory['RssAnon']:.1f} MB", "", "", "<= 12 MB", memory["RssAnon"] <= 12)

    # ------------------------------------------------------------ pending to started

    def latencies(self, peer, count, **changes):
        queue = Queue(self.running.everything())
        folder = self.folder("stamp")
        script = [self.script(), "stamp", folder / "stamps"]
        values = []
        chance = random.Random(1)
        with self.start("latency", script, peer, sign_chain_of_trust=False, **changes) as worker:
            for turn in range(count + 1):
                task = queue.create(worker.queue_id, {"maxRunTime": 60})
                status = queue.resolved(task)
                if status["state"] != "completed":
                    raise self.wrong(f"a task was {status['state']}")
                began = int((folder / "stamps").read_text().split()[-1]) / 1e9
                # The first waits for the worker's start.
                if turn:
                    values.append(1000 * (began - moment(status["runs"][0]["scheduled"])))
                time.sleep(chance.uniform(0, 0.05))
        return values

    def latency(self):
        theirs = self.latencies(True, 5)
        values = self.latencies(False, max(20, int(200 * self.scale)))
        half, most = share(values, 0.5), share(values, 0.99)
        self.table.row(
            f"pending to script started, {len(values)} tasks, p50", f"{half:.1f} ms",
            f"scriptworker (PyPI) {share(theirs, 0.5):,.0f} ms", f"{share(theirs, 0.5) / half:.0f}x", "<= 30 ms", half <= 30,
        )
        self.table.row("  p99", f"{most:.1f} ms", f"scriptworker (PyPI), worst of 5 {max(theirs):,.0f} ms", "", "<= 150 ms", most <= 150)

    # ------------------------------------------------------------ one big input

    def claimed(self, queue, queue_id):
        """A task of a played worker: its id, run and credentials."""
        task = queue.create(queue_id, {})
        claim = queue.call("POST", f"/claim-work/{urllib.parse.quote(queue_id, safe='')}", {"workerGroup": "bench", "workerId": "played", "tasks": 1})["tasks"][0]
        held = claim["credentials"]
        extra = base64.b64encode(json.dumps({"certificate": json.loads(held["certificate"])}).encode()).decode()
        return task, claim["runId"], (held["clientId"], held["accessToken"], extra)

    def big_input(self):
        """A task with one big artifact of bytes that do not compress, and the file's digest."""
        queue = Queue(self.running.everything())
        size = max(64, int(1024 * self.scale))
        path = self.folder("input") / "input.bin"
        block = random.Random(2).randbytes(1 << 20)
        digest = hashlib.sha256()
        with open(path, "wb") as file:
            for index in range(size):
                piece = index.to_bytes(8, "big") + block[8:]
                file.write(piece)
                digest.update(piece)
        task, run, credentials = self.claimed(queue, "slipway/bench-upload-" + secrets.token_hex(4))
        queue.put(task, run, credentials, "public/input.bin", path)
        queue.call("POST", f"/task/{task}/runs/{run}/completed", None, credentials)
        path.unlink()
        return queue, task, size, digest.hexdigest()

    def download(self):
        queue, task, size, digest = self.big_input()
        url = f"{queue.root}/api/queue/v1/task/{task}/artifacts/public/input.bin"
        entry = {"taskId": task, "taskType": "build", "paths": ["public/input.bin"], "sha256": {"public/input.bin": digest}}
        folder = self.folder("stamp")
        script = [self.script(), "stamp", folder / "stamps"]
        options = {"download_upstream_artifacts": "always", "sign_chain_of_trust": False}
        ratios, rates, references, peaks = [], [], [], []
        with self.start("download", script, **options) as worker:
            queue.resolved(queue.create(worker.queue_id, {"maxRunTime": 60}))
            calm = worker.facts()["VmHWM"]
            for _ in range(5):
                began = time.monotonic()
                text = subprocess.run(
                    ["sh", "-c", 'curl -sfL "$1" | openssl dgst -sha256', "sh", url], check=True, capture_output=True, text=True
                ).stdout
                reference = time.monotonic() - began
                if digest not in text:
                    raise self.wrong("the reference came to another digest")
                (folder / "stamps").unlink(missing_ok=True)
                status = queue.resolved(
                    queue.create(worker.queue_id, {"maxRunTime": 60, "upstreamArtifacts": [entry]}), 300, folder / "stamps"
                )
                if status["state"] != "completed":
                    raise self.wrong(f"the task with the input was {status['state']}")
                started = int((folder / "stamps").read_text().split()[-1]) / 1e9
                ours = started - moment(status["runs"][0]["started"])
                ratios.append(reference / ours)
                rates.append(size / ours)
                references.append(size / reference)
            peaks.append(worker.facts()["VmHWM"])
        ratio = statistics.median(ratios)
        self.table.row(
            f"{size} MiB input fetched and verified", f"{statistics.median(rates):,.0f} MiB/s",
            f"curl | openssl dgst {statistics.median(references):,.0f} MiB/s", f"{ratio:.2f}x ({min(ratios):.2f}-{max(ratios):.2f})",
            ">= 0.90x", ratio >= 0.9,
        )
        self.table.row("  peak resident", f"{max(peaks):.1f} MB", f"before it {calm:.1f} MB", "", "<= 40 MB", max(peaks) <= 40)

    # ------------------------------------------------------------ output

    def flood(self, peer, megabytes, **changes):
        queue = Queue(self.running.everything())
        folder = self.folder("flood")
        script = [self.script(), "flood", megabytes, folder / "times"]
        with self.start("output", script, peer, sign_chain_of_trust=False, **changes) as worker:
            queue.resolved(queue.create(worker.queue_id, {"maxRunTime": 300}), 300, folder / "times")
            return megabytes * 1.048576 / (int((folder / "times").read_text().split()[-1]) / 1e9), worker.facts()["VmHWM"]

    def output(self):
        theirs, _ = self.flood(True, 8)
        size = max(64, int(512 * self.scale))
        for name, mirror in (("script output to the log, mirrored", True), ("  without the mirror", False)):
            turns = [self.flood(False, size, task_log_mirror=mirror) for _ in range(3)]
            rate = statistics.median(rate for rate, _ in turns)
            self.table.row(
                name, f"{rate:,.0f} MB/s", f"scriptworker (PyPI) {theirs:,.1f} MB/s", f"{rate / theirs:.0f}x", ">= 200 MB/s", rate >= 200
            )
        peak = max(peak for _, peak in turns)
        self.table.row("  peak resident", f"{peak:.1f} MB", "", "", "<= 60 MB", peak <= 60)

    # ------------------------------------------------------------ a long chain

    def chain(self):
        facts = self.chain_times(52)
        ratio = facts["theirs"] / facts["ours"]
        self.table.row(
            f"a chain of {facts['links']} links verified, signatures too", f"{1000 * facts['ours']:.0f} ms",
            f"scriptworker (PyPI) {1000 * facts['theirs']:,.0f} ms", f"{ratio:.1f}x", ">= 10x", ratio >= 10,
        )
        used = facts["theirs_used"] / facts["ours_used"]
        self.table.row(
            "  processor time of the worker", f"{1000 * facts['ours_used']:.0f} ms",
            f"scriptworker (PyPI) {1000 * facts['theirs_used']:,.0f} ms", f"{used:.1f}x",
        )

    def chain_times(self, links):
        environment = self.running.everything()
        command = [
            str(self.peer_python()), str(self.top / "Tests/Benchmarks/chain_peer.py"), str(self.binary), str(self.folder("chain")), str(links)
        ]
        done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ, **environment))
        if done.returncode != 0:
            raise self.wrong("the chain: " + (done.stderr.strip().splitlines() or ["no reason"])[-1])
        return json.loads(done.stdout.splitlines()[-1])

    def entries(self):
        return {
            "worker-rest": (self.rest, "The guarded worker beside the Python one"),
            "worker-latency": (self.latency, None),
            "worker-input": (self.download, None),
            "worker-output": (self.output, None),
            "worker-chain": (self.chain, None),
        }
