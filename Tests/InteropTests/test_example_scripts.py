# SPDX-License-Identifier: MPL-2.0
"""The example scripts of the worker: run as the worker runs them, checked with the tools that users of their results have."""

import json
import pathlib
import subprocess
import sys

import pytest

EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "services" / "scriptworker" / "examples"
TASK = "AAAAAAAAR4CAAAAAAAAAAA"


@pytest.fixture
def stage(tmp_path):
    """Directories and a runner for one script."""

    class Stage:
        work = tmp_path / "work"
        artifacts = tmp_path / "artifacts"
        files = work / "cot" / TASK / "public" / "build"

        def run(self, script, task, **config):
            (self.work / "task.json").write_text(json.dumps(task))
            path = tmp_path / "config.json"
            path.write_text(json.dumps({"work_dir": str(self.work), "artifact_dir": str(self.artifacts), **config}))
            return subprocess.run(
                [sys.executable, EXAMPLES / script, path], capture_output=True, text=True, check=False, timeout=120
            )

    stage = Stage()
    stage.files.mkdir(parents=True)
    stage.artifacts.mkdir()
    (stage.files / "a.zip").write_bytes(b"the product" * 1000)
    return stage


def openssl_key(folder):
    key, public = folder / "key.pem", folder / "public.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", key], check=True)
    subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-out", public], check=True)
    return key, public


def signing_task(scopes, formats, paths=("public/build/a.zip",)):
    entry = {"taskId": TASK, "taskType": "build", "paths": list(paths), "formats": formats}
    return {"scopes": scopes, "payload": {"upstreamArtifacts": [entry]}}


def test_openssl_verifies_what_the_signing_script_signed(stage, tmp_path):
    key, public = openssl_key(tmp_path)
    keys = {"release": {"ed25519": {"key_file": str(key)}}}
    task = signing_task(["project:acme:cert:release"], ["ed25519"], ["public/build/*.zip"])
    result = stage.run("signing/sign.py", task, scope_prefix="project:acme:cert:", keys=keys)
    assert result.returncode == 0, result.stderr
    signature = stage.artifacts / "public/build/a.zip.sig"
    assert signature.stat().st_size == 64
    verify = ["openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", public, "-sigfile", signature, "-in"]
    subprocess.run([*verify, stage.artifacts / "public/build/a.zip"], check=True, capture_output=True)
    (tmp_path / "other").write_bytes(b"another product")
    assert subprocess.run([*verify, tmp_path / "other"], check=False, capture_output=True).returncode != 0


def test_gpg_verifies_what_the_signing_script_signed(stage, tmp_path):
    home = tmp_path / "gpg"
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", home, "--batch", "--quiet", "--no-tty", "--pinentry-mode", "loopback", "--passphrase", "secret"]
    subprocess.run([*gpg, "--quick-gen-key", "release@example.com", "ed25519", "sign", "never"], check=True, capture_output=True)
    exported = subprocess.run([*gpg, "--export-secret-keys", "--armor"], check=True, capture_output=True).stdout
    (tmp_path / "key.asc").write_bytes(exported)
    (tmp_path / "pass").write_text("secret")
    keys = {"release": {"gpg": {"key_file": str(tmp_path / "key.asc"), "passphrase_file": str(tmp_path / "pass")}}}
    task = signing_task(["project:acme:cert:release"], ["gpg"])
    try:
        result = stage.run("signing/sign.py", task, scope_prefix="project:acme:cert:", keys=keys)
        assert result.returncode == 0, result.stderr
        files = [stage.artifacts / "public/build/a.zip.asc", stage.artifacts / "public/build/a.zip"]
        subprocess.run([*gpg, "--verify", *files], check=True, capture_output=True)
        assert "secret" not in result.stdout + result.stderr
    finally:
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False)


@pytest.mark.parametrize(
    ("scopes", "formats", "paths"),
    [
        ([], ["ed25519"], ["public/build/a.zip"]),
        (["project:acme:cert:test", "project:acme:cert:release"], ["ed25519"], ["public/build/a.zip"]),
        (["project:acme:cert:unknown"], ["ed25519"], ["public/build/a.zip"]),
        (["project:acme:cert:../release"], ["ed25519"], ["public/build/a.zip"]),
        (["project:acme:cert:release"], ["authenticode"], ["public/build/a.zip"]),
        (["project:acme:cert:release"], [], ["public/build/a.zip"]),
        (["project:acme:cert:release"], ["ed25519"], ["public/build/missing.zip"]),
        (["project:acme:cert:release"], ["ed25519"], ["../../../task.json"]),
    ],
)
def test_the_signing_script_refuses_what_it_must_not_sign(stage, tmp_path, scopes, formats, paths):
    key, _ = openssl_key(tmp_path)
    keys = {"release": {"ed25519": {"key_file": str(key)}}, "test": {}}
    task = signing_task(scopes, formats, paths)
    result = stage.run("signing/sign.py", task, scope_prefix="project:acme:cert:", keys=keys)
    assert result.returncode == 3, result.stderr
    assert not list(stage.artifacts.rglob("*.sig"))


def test_a_key_that_cannot_be_read_is_an_internal_error(stage, tmp_path):
    keys = {"release": {"ed25519": {"key_file": str(tmp_path / "absent.pem")}}}
    task = signing_task(["project:acme:cert:release"], ["ed25519"])
    assert stage.run("signing/sign.py", task, scope_prefix="project:acme:cert:", keys=keys).returncode == 5


def publishing_task(version="1.0", scopes=("project:acme:place:www",), **payload):
    entry = {"taskId": TASK, "taskType": "signing", "paths": ["public/build/a.zip"]}
    return {
        "scopes": list(scopes),
        "payload": {"product": "product", "version": version, "upstreamArtifacts": [entry], **payload},
    }


def publish(stage, tmp_path, task):
    return stage.run(
        "publishing/publish.py", task, scope_prefix="project:acme:place:", places={"www": str(tmp_path / "www")}
    )


def test_a_release_is_published_whole_and_only_once(stage, tmp_path):
    assert publish(stage, tmp_path, publishing_task()).returncode == 0
    product = tmp_path / "www" / "product"
    assert (product / "latest").readlink() == pathlib.Path("1.0")
    subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=product / "latest", check=True, capture_output=True)
    before = (product / "1.0" / "a.zip").stat()

    again = publish(stage, tmp_path, publishing_task())
    assert (again.returncode, "already" in again.stdout) == (0, True)
    assert (product / "1.0" / "a.zip").stat().st_ino == before.st_ino

    (stage.files / "a.zip").write_bytes(b"another product")
    assert publish(stage, tmp_path, publishing_task()).returncode == 3
    assert (product / "1.0" / "a.zip").stat().st_size == before.st_size
    assert publish(stage, tmp_path, publishing_task("1.1", latest=False)).returncode == 0
    assert (product / "latest").readlink() == pathlib.Path("1.0")
    assert sorted(path.name for path in product.iterdir()) == ["1.0", "1.1", "latest"]


def test_what_a_dead_attempt_left_is_not_in_the_way(stage, tmp_path):
    left = tmp_path / "www" / "product" / ".incoming-1.0"
    left.mkdir(parents=True)
    (left / "half").write_text("half")
    assert publish(stage, tmp_path, publishing_task()).returncode == 0
    assert sorted(path.name for path in (tmp_path / "www/product/1.0").iterdir()) == ["SHA256SUMS", "a.zip"]


@pytest.mark.parametrize(
    "task",
    [
        publishing_task(scopes=[]),
        publishing_task(scopes=["project:acme:place:elsewhere"]),
        publishing_task("../1.0"),
        publishing_task("1.0", product="../product"),
        publishing_task("1.0", product=".hidden"),
        publishing_task("1.0", upstreamArtifacts=[]),
    ],
)
def test_the_publishing_script_refuses_what_leaves_its_place(stage, tmp_path, task):
    assert publish(stage, tmp_path, task).returncode == 3
    assert not (tmp_path / "www" / "product" / "1.0").exists()
