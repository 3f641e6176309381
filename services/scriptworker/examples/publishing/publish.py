#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""A scriptworker script that publishes a task's inputs as one release in a directory, all at once or not at all.

usage: publish.py CONFIG

A release is `<root>/<product>/<version>/`. Readers see it complete or not; `<root>/<product>/latest` leads to the newest.
Publishing the same files again changes nothing, other files under a published version are refused.
"""

import hashlib
import json
import os
import pathlib
import re
import shutil
import sys

MALFORMED, INTERNAL, RETRY = 3, 5, 7
NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,99}")


class Stop(Exception):
    """Ends the script with a code that the worker understands."""

    def __init__(self, code, text):
        super().__init__(text)
        self.code = code


def place_of(scopes, config):
    """Where the one scope of the task lets it publish."""
    prefix = config["scope_prefix"]
    names = [scope[len(prefix):] for scope in scopes if scope.startswith(prefix)]
    if len(names) != 1 or names[0] not in config["places"]:
        raise Stop(MALFORMED, f"the task needs exactly one scope below {prefix} that this worker knows")
    return config["places"][names[0]]


def checked(text, what):
    """A single harmless path segment."""
    if not isinstance(text, str) or not NAME.fullmatch(text):
        raise Stop(MALFORMED, f"{what} must be a plain name")
    return text


def inputs(task, work_dir):
    """What to publish: file name to file. Only base names count, so they must differ."""
    found = {}
    for entry in task["payload"]["upstreamArtifacts"]:
        base = (pathlib.Path(work_dir) / "cot" / entry["taskId"]).resolve()
        for relative in entry["paths"]:
            path = (base / relative).resolve()
            if base not in path.parents:
                raise Stop(MALFORMED, f"{relative} leaves its directory")
            if not path.is_file():
                if entry.get("optional") is True:
                    continue
                raise Stop(MALFORMED, f"the input {relative} is missing")
            name = checked(path.name, f"the name of {relative}")
            if name in found or name == "SHA256SUMS":
                raise Stop(MALFORMED, f"two files would be called {name}")
            found[name] = path
    if not found:
        raise Stop(MALFORMED, "there is nothing to publish")
    return found


def digest(path):
    result = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            result.update(piece)
    return result.hexdigest()


def sync(path):
    """Makes a file, or a directory's entries, last."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def stage(files, folder):
    """Copies the files and a list of their digests; returns the list."""
    lines = []
    for name, source in sorted(files.items()):
        target = folder / name
        shutil.copyfile(source, target)
        target.chmod(0o644)
        sync(target)
        lines.append(f"{digest(target)}  {name}\n")
    sums = folder / "SHA256SUMS"
    sums.write_text("".join(lines))
    sync(sums)
    sync(folder)
    return "".join(lines)


def lead(product, version):
    """Points `latest` to a version in one step."""
    link = product / f".latest.{os.getpid()}"
    link.unlink(missing_ok=True)
    link.symlink_to(version)
    os.replace(link, product / "latest")
    sync(product)


def main(config):
    task = json.loads((pathlib.Path(config["work_dir"]) / "task.json").read_text())
    root = pathlib.Path(place_of(task["scopes"], config))
    payload = task["payload"]
    product = root / checked(payload["product"], "payload.product")
    version = checked(payload["version"], "payload.version")
    files = inputs(task, config["work_dir"])
    release = product / version
    product.mkdir(parents=True, exist_ok=True)

    # What an earlier attempt left half done is nobody's.
    folder = product / f".incoming-{version}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        sums = stage(files, folder)
        if release.exists():
            if (release / "SHA256SUMS").read_text() != sums:
                raise Stop(MALFORMED, f"{version} is published already, with other files")
            print(f"{version} is published already")
        else:
            os.rename(folder, release)
            sync(product)
            print(f"published {version}: {', '.join(sorted(files))}", flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if payload.get("latest", True):
        lead(product, version)

    out = pathlib.Path(config["artifact_dir"]) / "public"
    out.mkdir(parents=True, exist_ok=True)
    (out / "published.json").write_text(
        json.dumps({"product": product.name, "version": version, "files": sorted(files)}, indent=2)
    )


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
        # A full or absent disk may be cured by the time of the next attempt.
        print(f"cannot publish now: {error.strerror}", file=sys.stderr)
        sys.exit(RETRY)
