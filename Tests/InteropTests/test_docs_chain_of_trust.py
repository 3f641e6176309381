# SPDX-License-Identifier: MPL-2.0
"""docs/chain-of-trust.md: every example is run, in order, with a chain of the usual form."""

import json
import os

from chain import Graph, unique
from conftest import BINARIES, TOP
from examples import Runner, blocks

PAGE = TOP / "docs" / "chain-of-trust.md"
GENERIC = {"command": [["true"]], "mounts": [], "maxRunTime": 60, "features": {}}


def test_every_example_on_the_page_works(running, tmp_path):
    (tmp_path / "graph").mkdir()
    graph = Graph(running, tmp_path / "graph")
    try:
        graph.make_decision()
        build = graph.add("build", graph.build_queue, GENERIC)
        sign = graph.add(
            "sign", f"slipway/{unique('sign').lower()}", {"maxRunTime": 60}, [("build", build, ["public/target.zip"])]
        )
        graph.run_decision()
        graph.create(build)
        graph.run(build, {"public/target.zip": b"the product"}, "generic-worker")
        graph.create(sign)
        configuration = graph.ours(graph.configuration(tmp_path / "deployed", "verifier", ""))
        (tmp_path / "deployed.yaml").write_text(json.dumps(configuration, indent=2))
        environment = dict(os.environ) | running.values | {"TASK_ID": sign, "LC_ALL": "C.UTF-8"}
        environment["PATH"] = f"{BINARIES}:{environment['PATH']}"
        runner = Runner(tmp_path, environment)
        for block in blocks(PAGE):
            runner.run(block)
    finally:
        graph.web.shutdown()
    assert (tmp_path / "case").is_dir()
