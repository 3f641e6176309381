# SPDX-License-Identifier: MPL-2.0
"""One chain of trust verified by both workers: seconds of each, the same queue, fresh directories, signatures on.

usage: chain_peer.py SCRIPTWORKER FOLDER LINKS, with TASKCLUSTER_ROOT_URL and credentials in the environment
"""

import asyncio
import json
import logging
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time

TESTS = pathlib.Path(__file__).resolve().parents[1] / "InteropTests"
sys.path.insert(0, str(TESTS))
sys.dont_write_bytecode = True

import aiohttp
import taskcluster
from scriptworker.config import create_config
from scriptworker.context import Context
from scriptworker.cot.verify import ChainOfTrust, verify_chain_of_trust

from chain import Graph

PATHS = [f"public/build/target{index}.zip" for index in range(3)]
GENERIC = {"command": [["true"]], "mounts": [], "maxRunTime": 60, "features": {}}


class Running:
    """What the graph wants to know of a deployment."""

    def __init__(self):
        self.root_url = os.environ["TASKCLUSTER_ROOT_URL"]
        self.values = dict(os.environ)

    @property
    def options(self):
        return {
            "rootUrl": self.root_url,
            "credentials": {"clientId": self.values["TASKCLUSTER_CLIENT_ID"], "accessToken": self.values["TASKCLUSTER_ACCESS_TOKEN"]},
        }

    def queue(self):
        return taskcluster.Queue(self.options)


def make(folder, links):
    """A decision, builds with three small artifacts each, and a task that takes all of them."""
    graph = Graph(Running(), folder)
    graph.make_decision()
    builds = [graph.add(f"build-{index}", graph.build_queue, GENERIC) for index in range(links - 1)]
    sign = graph.add("sign", "slipway/never", {"maxRunTime": 60}, [("build", build, PATHS) for build in builds])
    graph.run_decision()
    for index, build in enumerate(builds):
        graph.create(build)
        graph.run(build, {path: bytes([index % 256]) * 1024 for path in PATHS}, "generic-worker")
    graph.create(sign)
    return graph, sign


def theirs(graph, sign, folder):
    path = folder / "worker.json"
    path.write_text(json.dumps(graph.configuration(folder, "verifier", "")))
    config, credentials = create_config(path)
    logging.disable(logging.CRITICAL)

    async def verify():
        async with aiohttp.ClientSession() as session:
            context = Context()
            context.session, context.config, context.credentials = session, config, credentials
            context.task = await taskcluster.aio.Queue(graph.running.options).task(sign)
            graph.seed_python_cache(config["work_dir"])
            (folder / "artifact" / "public" / "logs").mkdir(parents=True, exist_ok=True)
            began, used = time.perf_counter(), time.process_time()
            chain = ChainOfTrust(context, config["cot_job_type"], task_id=sign)
            await verify_chain_of_trust(chain)
            return time.perf_counter() - began, time.process_time() - used, len(chain.links)

    return asyncio.run(verify())


def ours(graph, sign, folder, program):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "worker.json"
    path.write_text(json.dumps(graph.ours(graph.configuration(folder, "verifier", ""))))
    command = [program, "verify-cot", sign, "--task-type", "signing", "--no-check-task", "--verify-sigs", "--json", "--config", path]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=dict(os.environ, TMPDIR=str(folder)))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # The whole process, its start included.
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    verdict = json.loads(done.stdout)
    return verdict["seconds"], used, len(verdict["links"]) - 1


def main(program, folder, links):
    folder = pathlib.Path(folder)
    graph, sign = make(folder, int(links))
    both = {"theirs": [], "ours": [], "theirs_used": [], "ours_used": []}
    for turn in range(5):
        for name, verify in (("theirs", theirs), ("ours", lambda *words: ours(*words, program))):
            seconds, used, count = verify(graph, sign, folder / f"{name}-{turn}")
            if count != int(links):
                raise SystemExit(f"{name} found {count} links instead of {links}")
            both[name].append(seconds)
            both[f"{name}_used"].append(used)
    graph.web.shutdown()
    print(json.dumps({name: statistics.median(values) for name, values in both.items()} | {"links": int(links)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
