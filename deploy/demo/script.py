# SPDX-License-Identifier: MPL-2.0
"""The demo's worker script, written as any scriptworker script is: one argument, a JSON configuration.

It reads task.json, does what the payload says and leaves its results in artifact_dir. Exit 3 = malformed payload.
"""

import hashlib
import json
import pathlib
import sys
import time


def main(path):
    configuration = json.loads(pathlib.Path(path).read_text())
    work = pathlib.Path(configuration["work_dir"])
    results = pathlib.Path(configuration["artifact_dir"]) / "public" / "build"
    payload = json.loads((work / "task.json").read_text())["payload"]
    results.mkdir(parents=True, exist_ok=True)

    print(f"action: {payload.get('action')}", flush=True)
    if payload.get("sleep"):
        time.sleep(payload["sleep"])
    if payload.get("action") == "compile":
        text = "".join(f"line {number} of {payload['product']}\n" for number in range(1000))
        (results / "target.txt").write_text(text)
    elif payload.get("action") == "count":
        counts = {}
        for upstream in payload.get("upstreamArtifacts", []):
            for name in upstream["paths"]:
                data = (work / "cot" / upstream["taskId"] / name).read_bytes()
                counts[name] = {"lines": data.count(b"\n"), "sha256": hashlib.sha256(data).hexdigest()}
                print(f"read {len(data)} bytes of {name}", flush=True)
        (results / "counts.json").write_text(json.dumps({"for": payload.get("pusher"), "counts": counts}, indent=2))
    elif payload.get("action") != "note":
        print(f"unknown action {payload.get('action')!r}", file=sys.stderr)
        return 3
    else:
        (results / "note.txt").write_text(payload.get("text", ""))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
