# SPDX-License-Identifier: MPL-2.0
"""Our scriptworker's configuration and start: what it needs, and what it says when that is wrong."""

import base64
import json
import pathlib
import subprocess
import urllib.request

import pytest

from chain import python_binary
from support import eventually
from workers import Bench, bench, binary, check_configuration, clean_environment  # noqa: F401 (a fixture)


def start(path, environment=None, cwd=None):
    result = subprocess.run(
        [binary(), path], capture_output=True, text=True, check=False, timeout=120, cwd=cwd,
        env=clean_environment() if environment is None else environment,
    )
    return result.returncode, result.stderr


def test_1_every_problem_is_told_before_anything_is_claimed(running, tmp_path):
    bench = Bench(running, tmp_path, wibble=1, task_script="echo", work_dir="...")
    status, text = start(bench.path)
    assert status == 1
    assert [word for word in ("wibble", "task_script", "work_dir", "Exiting...") if word not in text] == []


def test_2_an_empty_environment_is_enough_and_is_the_scripts_too(running, tmp_path):
    bench = Bench(running, tmp_path)
    bench.start(environment={})
    with bench:
        _, state, log = bench.run("print(sorted(os.environ))")
    assert state == "completed"
    assert b"'HOME'" not in log and b"'PATH'" not in log


def test_3_credentials_are_found_where_they_may_be(running, tmp_path):
    bench = Bench(running, tmp_path)
    credentials = bench.values.pop("credentials")
    plain = clean_environment() | {"HOME": str(tmp_path)}
    status, text = start(bench.path, plain, tmp_path)
    assert (status, "credentials needs to be defined" in text) == (1, True)
    named = {"TASKCLUSTER_CLIENT_ID": credentials["clientId"], "TASKCLUSTER_ACCESS_TOKEN": credentials["accessToken"]}
    for environment, file in ((plain | named, None), (plain, ".scriptworker")):
        if file:
            (tmp_path / file).write_text(json.dumps({"credentials": credentials}))
        bench.process = None
        with bench.start(environment=environment):
            assert bench.run()[1] == "completed"


@pytest.mark.parametrize("worker_id", ["x" * 39, 5, None])
def test_4_identifiers_are_checked_without_a_traceback(running, tmp_path, worker_id):
    bench = Bench(running, tmp_path, worker_id=worker_id)
    path = bench.path
    if worker_id is None:
        path.write_text("")
    status, text = start(path)
    assert (status, "Fatal" in text, "Exiting" in text) == (1, False, True)


def acme(bench):
    bench.values |= {
        "verify_chain_of_trust": True, "verify_cot_signature": True, "cot_job_type": "signing", "cot_product": "acme",
        "cot_product_type": "github", "valid_decision_worker_pools": ["acme-3/decision"],
        "valid_docker_image_worker_pools": [], "trusted_vcs_rules": [], "hg_git_mirrors": {},
        "valid_tasks_for": ["github-push"], "official_github_repos_owner": "acme", "cot_restricted_scopes": {},
        "cot_restricted_trees": {}, "prebuilt_docker_image_task_types": "any", "source_env_prefix": "ACME",
        "scriptworker_provisioners": ["slipway"],
    }


def test_6_a_product_of_ones_own_needs_all_its_keys(running, tmp_path):
    bench = Bench(running, tmp_path)
    acme(bench)
    assert check_configuration(bench)[0] == 0
    for key in (
        "cot_product_type", "valid_decision_worker_pools", "valid_docker_image_worker_pools", "trusted_vcs_rules",
        "hg_git_mirrors", "valid_tasks_for", "official_github_repos_owner", "cot_restricted_scopes", "cot_restricted_trees",
        "prebuilt_docker_image_task_types", "source_env_prefix",
    ):
        without = Bench(running, tmp_path)
        acme(without)
        del without.values[key]
        status, text = check_configuration(without)
        assert (status, key in text) == (1, True), text


def test_6_products_can_be_declared_in_a_file(running, tmp_path):
    example = pathlib.Path(__file__).resolve().parents[2] / "services/scriptworker/examples/products.yaml"
    bench = Bench(running, tmp_path)
    bench.values |= {
        "verify_chain_of_trust": True, "cot_job_type": "signing", "cot_product": "acme",
        "cot_products_file": str(example), "scriptworker_provisioners": ["slipway"],
    }
    status, text = check_configuration(bench)
    assert status == 0
    assert "verify_cot_signature is off" in text
    bench.values["cot_product"] = "other"
    assert check_configuration(bench)[0] == 1
    # The built-in products come out of the program as such a file.
    products = subprocess.run([binary(), "config", "--products"], capture_output=True, text=True, check=True).stdout
    (tmp_path / "products.yaml").write_text(products)
    bench.values |= {"cot_product": "firefox", "cot_products_file": str(tmp_path / "products.yaml")}
    assert check_configuration(bench)[0] == 0


def test_6_a_product_brings_the_keys_and_pools_of_its_own_workers(running, tmp_path):
    import yaml

    example = pathlib.Path(__file__).resolve().parents[2] / "services/scriptworker/examples/products.yaml"
    products = yaml.safe_load(example.read_text())
    keys = {"acme": "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=", "other": "KO3FX9JnNga/XViTRBiUMHYnji9Fu3s332sU2lXjSwE="}
    for name, key in keys.items():
        products[name] = products["acme"] | {
            "ed25519_public_keys": {"scriptworker": [key]}, "scriptworker_provisioners": [f"{name}-workers"],
        }
    (tmp_path / "products.yaml").write_text(yaml.safe_dump(products))
    for index, name in enumerate(keys):
        (tmp_path / f"{name}-key").write_text(base64.b64encode(bytes([index + 1] * 32)).decode())
        (tmp_path / f"{name}-key").chmod(0o600)

    def effective(product, **values):
        bench = Bench(running, tmp_path)
        bench.values |= {
            "verify_chain_of_trust": True, "cot_job_type": "signing", "cot_product": product,
            "cot_products_file": str(tmp_path / "products.yaml"),
            "ed25519_private_key_path": {"by-cot-product": {name: str(tmp_path / f"{name}-key") for name in keys}},
        } | values
        done = subprocess.run(
            [binary(), "config", bench.path], capture_output=True, text=True, check=False, env=clean_environment(),
        )
        return done.returncode, json.loads(done.stdout) if done.returncode == 0 else done.stderr

    for name, key in keys.items():
        status, values = effective(name)
        assert status == 0, values
        assert values["ed25519_public_keys"] == {"scriptworker": [key]}
        assert values["scriptworker_provisioners"] == [f"{name}-workers"]
        assert values["ed25519_private_key_path"] == str(tmp_path / f"{name}-key")
    # What the configuration says itself counts more, and a table must know the product.
    own = {"scriptworker": [keys["other"]]}
    assert effective("acme", ed25519_public_keys=own)[1]["ed25519_public_keys"] == own
    status, text = effective("acme", ed25519_public_keys={"by-cot-product": {"other": own}})
    assert (status, "ed25519_public_keys: no value for the product acme" in text) == (1, True)
    # A declaration is no place for private keys, nor for words that mean nothing.
    products["acme"]["ed25519_private_key_path"] = "/key"
    (tmp_path / "products.yaml").write_text(yaml.safe_dump(products))
    status, text = effective("acme")
    assert (status, "acme has the unknown key ed25519_private_key_path" in text) == (1, True)


def test_7_the_signing_key_is_looked_at_before_the_first_task(running, tmp_path):
    bench = Bench(running, tmp_path)
    key = tmp_path / "key"
    key.chmod(0o644)
    assert check_configuration(bench)[0] == 0
    assert "readable by group or others" in check_configuration(bench)[1]
    key.write_text("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHg==")
    assert check_configuration(bench)[0] == 1
    key.unlink()
    status, text = check_configuration(bench)
    assert (status, "ed25519_private_key_path" in text) == (1, True)


def test_8_the_type_of_ones_own_tasks_has_to_be_a_type(running, tmp_path):
    bench = Bench(running, tmp_path)
    acme(bench)
    del bench.values["cot_job_type"]
    status, text = check_configuration(bench)
    assert (status, "cot_job_type" in text) == (1, True)


def test_9_two_workers_never_share_directories(bench):
    # Whoever comes first has them; it shall be ours.
    eventually(lambda: "starting up" in bench.text())
    status, text = start(bench.path)
    assert status == 1
    assert "another worker uses" in bench.text()
    assert bench.run()[1] == "completed"


def test_10_what_is_left_over_is_removed_and_nothing_else(running, tmp_path):
    bench = Bench(running, tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "keep").write_text("keep")
    locked = tmp_path / "work" / "a" / "b"
    locked.mkdir(parents=True)
    (locked / "file").write_text("x")
    locked.chmod(0)
    (tmp_path / "artifact" / "link").symlink_to(outside)
    with bench:
        eventually(lambda: "polling" in bench.heartbeat()["state"], 30)
        assert list((tmp_path / "work").iterdir()) == []
        assert {path.name for path in (tmp_path / "artifact").iterdir()} <= {"public"}
    assert (outside / "keep").read_text() == "keep"


def encoding(bench, task_id, name):
    """What the storage says a public artifact is encoded with."""
    if not name.startswith("public/"):
        return None
    url = f"{bench.running.root_url}/api/queue/v1/task/{task_id}/artifacts/{name}"
    with urllib.request.urlopen(url, timeout=30) as response:
        return response.headers["Content-Encoding"]


def test_11_python_and_ours_do_the_same_with_the_same(running, tmp_path):
    code = (
        "print(sorted(k for k in os.environ if k in ('TASK_ID','RUN_ID','TASKCLUSTER_ROOT_URL',"
        "'TASKCLUSTER_CREDENTIALS_FD')));"
        "(out / 'public/build').mkdir(parents=True); (out / 'public/build/a.json').write_text('{}');"
        "(out / 'public/build/b.zip').write_bytes(bytes(9)); (out / 'KEY').write_text('k');"
        "print(json.dumps(task, sort_keys=True)); sys.exit(0)"
    )
    seen = {}
    for name, program in (("ours", None), ("python", python_binary())):
        bench = Bench(running, tmp_path / name)
        bench.start(program)
        with bench:
            task_id, state, log = bench.run(code, 300)
        artifacts = {
            (each["name"], each["contentType"], encoding(bench, task_id, each["name"]))
            for each in bench.queue.listLatestArtifacts(task_id)["artifacts"] if not each["name"].endswith(".sig")
        }
        lines = log.decode().splitlines()
        assert json.loads(lines[1]) == bench.queue.task(task_id)
        seen[name] = (state, artifacts, lines[0], lines[2:])
    assert seen["ours"] == seen["python"]
