# SPDX-License-Identifier: MPL-2.0
"""New installations that tell roller themselves that they have ended: a hook of the operator's, a worker, and roller-api."""

import json
import pathlib
import urllib.error
import urllib.request

import pytest
import roller_lab
from roller_site import lab, site  # noqa: F401 (fixtures)
from support import eventually


@pytest.fixture
def plugins(tmp_path):
    """A folder of plug-ins with one hook, which notes what it was told."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    hook = folder / "prepare"
    hook.write_text(f'#!/bin/bash\nprintf "%s\\n" "$ROLLER_JOB_ID" "$ROLLER_CALLBACK_URL" "$@" >{folder}/new-$2 && mv {folder}/new-$2 {folder}/told-$2\n')
    hook.chmod(0o755)
    return folder


def call(url, body=None):
    """Calls back as an installer does; answers the status."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method="POST", headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def words_of_all_programs():
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(entry.read_bytes())
        except OSError:
            continue
    return b"".join(found)


def test_an_installation_has_the_last_word_about_itself(site, lab, plugins):
    url = site.api()
    jobs, hosts = {}, {}
    for name in ("good", "bad"):
        host = hosts[name] = lab.host(f"install-{name}", boot=1)
        bmc, _ = lab.bmc(host)
        machine = site.machine(host, [bmc], reimage_hook=["prepare", "{host}", name])
        jobs[name] = site.job("reimage", machine, confirm=host.name)
    site.worker(PLUGINS_DIR=str(plugins), ROLLER_PUBLIC_URL=url, REIMAGE_TIMEOUT="600s")
    addresses = {}
    for name in jobs:
        told = plugins / f"told-{name}"
        eventually(told.exists)
        job, address, host, _ = told.read_text().splitlines()
        assert job == jobs[name] and host == hosts[name].address
        assert address.startswith(f"{url}/api/v1/jobs/{job}/callback?token="), address
        addresses[name] = address
    tokens = [address.split("=")[1] for address in addresses.values()]
    assert len(set(tokens)) == 2 and all(len(token) == 64 for token in tokens)
    programs = words_of_all_programs()
    assert not any(token.encode() in programs for token in tokens)
    # Both are up again, and neither counts as installed for that.
    for name, host in hosts.items():
        eventually(lambda host=host: host.events()[-1:] == ["booted"])
        site.reaches(jobs[name], ["verifying"])
    assert call(addresses["good"].replace("token=", "token=0")) == 404
    assert call(f"{url}/api/v1/jobs/{jobs['good']}/callback") == 404
    assert call(addresses["good"]) == 202
    assert call(addresses["bad"], {"status": "failed", "message": "no disk"}) == 202
    good, bad = site.ended(jobs["good"]), site.ended(jobs["bad"])
    assert good["state"] == "succeeded" and good["result"]["verification"] == "callback", good
    assert good["result"]["verified"] is True
    assert bad["state"] == "failed" and "no disk" in json.dumps(bad["tried"]), bad
    assert [host.events().count("off") for host in hosts.values()] == [1, 1]
    # The first word counts, and saying it again is no mistake.
    assert call(addresses["good"]) in (202, 409)
    kept = site.logs() + site.query("select json_agg(e) from roller.job_events e") + site.query("select json_agg(a) from roller.job_attempts a")
    assert not any(token in kept for token in tokens)


def test_an_installation_that_never_calls_is_unverified_and_heard_no_more_later(site, lab, plugins):
    url = site.api()
    host = lab.host("install-silent", boot=1)
    bmc, _ = lab.bmc(host)
    job = site.job("reimage", site.machine(host, [bmc], reimage_hook=["prepare", "{host}", "silent"]), confirm=host.name)
    # No other limit is reached: a job of this kind has the time of the installation on top.
    limits = {"CELERY_TASK_SOFT_TIME_LIMIT": "120s", "CELERY_TASK_TIME_LIMIT": "240s"}
    site.worker(PLUGINS_DIR=str(plugins), ROLLER_PUBLIC_URL=url, REIMAGE_TIMEOUT="3s", **limits)
    state = site.ended(job)
    assert (state["state"], state["error_class"]) == ("failed", "timeout"), state
    assert state["tried"][-1]["outcome"] == "unverified" and host.events().count("off") == 1
    assert call((plugins / "told-silent").read_text().splitlines()[1]) == 409


def test_a_hook_that_fails_leaves_the_machine_alone(site, lab, plugins):
    host = lab.host("install-unprepared", linked=False)
    bmc, _ = lab.bmc(host)
    (plugins / "broken").write_text("#!/bin/bash\nexit 3\n")
    (plugins / "broken").chmod(0o755)
    jobs = []
    for hook in (["broken"], ["../../bin/sh", "-c", "id"]):
        machine = site.machine(roller_lab.Named(f"unprepared-{len(jobs)}", "127.0.0.1"), [bmc | {"name": f"bmc-{len(jobs)}"}], reimage_hook=hook)
        jobs.append(site.job("reimage", machine, confirm=f"unprepared-{len(jobs)}"))
    site.worker(PLUGINS_DIR=str(plugins), ROLLER_PUBLIC_URL="http://127.0.0.1:9")
    failed, refused = [site.ended(job) for job in jobs]
    assert failed["state"] == "failed" and [attempt["method"] for attempt in failed["tried"]] == ["reimage_hook"], failed
    assert (refused["state"], refused["error_class"], refused["tried"]) == ("failed", "config", []), refused
    assert host.events() == []
