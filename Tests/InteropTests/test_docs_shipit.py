# SPDX-License-Identifier: MPL-2.0
"""docs/shipit.md: every example is run, in order, as a release manager would."""

import os
import subprocess

from conftest import BINARIES, TOP
from examples import Runner, blocks
from support import unique

PAGE = TOP / "docs" / "shipit.md"


def test_every_example_on_the_page_works(running, tmp_path):
    environment = dict(os.environ) | running.values | {"RUN": unique("run")}
    environment["PATH"] = f"{BINARIES}:{environment['PATH']}"
    runner = Runner(tmp_path, environment)
    for block in blocks(PAGE):
        runner.run(block)
    assert (tmp_path / "beta.json").exists()


def test_the_products_on_the_page_are_accepted(running, tmp_path):
    texts = [block.text for block in blocks(PAGE) if block.language == "yaml"]
    assert len(texts) == 3
    text, others = texts[0], texts[1:]
    file = tmp_path / "products.yml"
    environment = running.suite.service_environment("shipit-pipeline")
    environment |= {"SHIPIT_PRODUCTS_FILE": str(file), "SHIPIT_TASKCLUSTER_URL": "http://127.0.0.1:8014"}
    good = [(text, 0)] + [(other, 0) for other in others]
    bad = [text.replace("ship_firefox:", "sink_firefox:"), "products: [", others[1].replace("check_allowed_branches", "check_all")]
    for contents, status in good + [(contents, 2) for contents in bad]:
        file.write_text(contents)
        done = subprocess.run(
            [str(BINARIES / "shipit-pipeline"), "check-configuration"], env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == status, done.stdout + done.stderr
        assert status == 0 or "SHIPIT_PRODUCTS_FILE" in done.stdout + done.stderr
