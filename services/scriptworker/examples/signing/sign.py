#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""A scriptworker script that signs a task's inputs with the key that the task's scope names.

usage: sign.py CONFIG

Needs Python 3.9, and the `openssl` (3.0 or newer) and `gpg` programs for the kinds of key that are configured.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

SUCCESS, FAILURE, MALFORMED, INTERNAL, RETRY = 0, 1, 3, 5, 7


class Stop(Exception):
    """Ends the script with a code that the worker understands."""

    def __init__(self, code, text):
        super().__init__(text)
        self.code = code


def level_of(scopes, prefix):
    """The one level of access that the scopes grant; nothing in the payload may choose it."""
    levels = [scope[len(prefix):] for scope in scopes if scope.startswith(prefix)]
    if len(levels) != 1 or not re.fullmatch(r"[0-9A-Za-z_-]+", levels[0]):
        raise Stop(MALFORMED, f"the task needs exactly one scope below {prefix}, not {len(levels)}")
    return levels[0]


def inside(root, relative):
    """The path of a file below a directory, links included."""
    root = pathlib.Path(root).resolve()
    path = (root / relative).resolve()
    if root not in path.parents:
        raise Stop(MALFORMED, f"{relative} leaves its directory")
    return path


def inputs(task, work_dir):
    """Every input as (relative path, file), patterns expanded; optional ones may be absent."""
    entries = task.get("payload", {}).get("upstreamArtifacts")
    if not isinstance(entries, list) or not entries:
        raise Stop(MALFORMED, "the payload names no upstreamArtifacts")
    found = {}
    for entry in entries:
        base = pathlib.Path(work_dir) / "cot" / entry["taskId"]
        formats = entry.get("formats")
        if not isinstance(formats, list) or not formats:
            raise Stop(MALFORMED, f"the inputs from {entry['taskId']} name no formats")
        for pattern in entry["paths"]:
            if "*" in pattern:
                paths = sorted(path.relative_to(base).as_posix() for path in base.rglob("*") if path.is_file())
                names = [name for name in paths if pathlib.PurePath(name).match(pattern)]
            else:
                names = [pattern]
            for name in names:
                path = inside(base, name)
                if not path.is_file():
                    if entry.get("optional") is True:
                        continue
                    raise Stop(MALFORMED, f"the input {name} is missing")
                if name in found:
                    raise Stop(MALFORMED, f"two inputs are called {name}")
                found[name] = (path, formats)
    return found


def run(arguments, **options):
    """Runs a tool; what it prints becomes public with the log, so only its name and status are told."""
    try:
        return subprocess.run(arguments, check=True, capture_output=True, timeout=300, **options).stdout
    except FileNotFoundError:
        raise Stop(INTERNAL, f"{arguments[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise Stop(RETRY, f"{arguments[0]} took too long") from None
    except subprocess.CalledProcessError as error:
        raise Stop(INTERNAL, f"{arguments[0]} failed with status {error.returncode}") from None


def sign_ed25519(path, signature, key):
    run(["openssl", "pkeyutl", "-sign", "-rawin", "-inkey", key["key_file"], "-in", str(path), "-out", str(signature)])


def sign_gpg(path, signature, key):
    # The home may be read-only, or another run's; gpg wants to write there.
    with tempfile.TemporaryDirectory() as home:
        os.chmod(home, 0o700)
        gpg = ["gpg", "--homedir", home, "--batch", "--quiet", "--no-tty", "--pinentry-mode", "loopback"]
        try:
            run([*gpg, "--import", key["key_file"]])
            passphrase = pathlib.Path(key["passphrase_file"]).read_bytes() if "passphrase_file" in key else b""
            run(
                [*gpg, "--passphrase-fd", "0", "--armor", "--detach-sign", "--output", str(signature), str(path)],
                input=passphrase,
            )
        finally:
            subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False, capture_output=True)


SIGNERS = {"ed25519": (sign_ed25519, ".sig"), "gpg": (sign_gpg, ".asc")}


def main(config):
    work_dir, artifact_dir = config["work_dir"], pathlib.Path(config["artifact_dir"])
    task = json.loads((pathlib.Path(work_dir) / "task.json").read_text())
    level = level_of(task["scopes"], config["scope_prefix"])
    keys = config["keys"].get(level)
    if keys is None:
        raise Stop(MALFORMED, f"this worker holds no keys for {level}")
    for name, (path, formats) in sorted(inputs(task, work_dir).items()):
        for form in formats:
            if form not in SIGNERS or form not in keys:
                raise Stop(MALFORMED, f"{form} is no format that {level} can be signed with")
            signer, suffix = SIGNERS[form]
            target = inside(artifact_dir, name + suffix)
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=work_dir) as folder:
                signature = pathlib.Path(folder) / "signature"
                signer(path, signature, keys[form])
                os.replace(signature, target)
            print(f"signed {name} ({form}, {level})", flush=True)
        if config.get("copy_inputs", True):
            target = inside(artifact_dir, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


if __name__ == "__main__":
    try:
        main(json.loads(pathlib.Path(sys.argv[1]).read_text()))
    except Stop as stop:
        print(f"stopped: {stop}", file=sys.stderr)
        sys.exit(stop.code)
    except (KeyError, TypeError, ValueError) as error:
        print(f"the task or the configuration is malformed: {type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(MALFORMED)
    except OSError as error:
        print(f"the system failed: {error.strerror}", file=sys.stderr)
        sys.exit(INTERNAL)
