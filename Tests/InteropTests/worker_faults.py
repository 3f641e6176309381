# SPDX-License-Identifier: MPL-2.0
"""A worker behind a proxy that spoils what passes, as the fixtures of several files."""

import pytest

from support import eventually
from workers import Bench, Proxy


@pytest.fixture
def proxy(running):
    proxy = Proxy(running.root_url)
    yield proxy
    proxy.shutdown()


@pytest.fixture
def bench(running, proxy, tmp_path):
    with Bench(running, tmp_path, root_url=proxy.base, reclaim_interval=1, shutdown_claim_grace=1) as bench:
        eventually(lambda: bench.heartbeat()["state"] == "polling", 30)
        yield bench


def is_claim(request):
    return "/claim-work/" in request.path


def answering(status, text=None, when=is_claim):
    return lambda request: when(request) and request.answer(status, text=text)
