# SPDX-License-Identifier: MPL-2.0
"""What our scriptworker uploads and what it leaves out, and what a full disk does to it."""

import json


from chain import artifact
from workers import SMALL_DISK, Bench, Proxy, bench, size  # noqa: F401 (a fixture)


def test_47_what_is_compressed_and_what_is_hashed(bench):
    names = ["a.json", "a.log", "a.tar.gz", "a.tgz", "a.gz", "a.xz", "a.bin", "dir/b.xml", "KEY"]
    code = f"""
import hashlib
for name in {names!r}:
    path = out / 'public' / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(name.encode() * 1000)
"""
    task_id, state, _ = bench.run(code)
    assert state == "completed"
    statement = json.loads(artifact(bench.running, task_id, "public/chain-of-trust.json"))
    import hashlib
    import urllib.request

    encodings = []
    for name in names:
        url = f"{bench.running.root_url}/api/queue/v1/task/{task_id}/artifacts/public/{name}"
        with urllib.request.urlopen(url) as response:
            encodings.append(response.headers["Content-Encoding"])
        content = artifact(bench.running, task_id, f"public/{name}")
        assert content == name.encode() * 1000
        assert statement["artifacts"][f"public/{name}"] == {"sha256": hashlib.sha256(content).hexdigest()}
    assert [each == "gzip" for each in encodings] == [True, True, False, False, False, False, False, True, False]


def test_53_hundreds_of_files_arrive_a_few_at_a_time(running, tmp_path):
    """500 files (full size: 2000) through four uploads at once."""
    count = size("FILES", 500, 2000)
    proxy = Proxy(running.root_url)
    with Bench(running, tmp_path, root_url=proxy.base, max_concurrent_uploads=4) as bench:
        assert bench.run()[1] == "completed"
        before = bench.memory("VmRSS")
        code = "\n".join([
            "(out / 'public/many').mkdir()",
            f"for i in range({count}): (out / f'public/many/{{i}}.bin').write_bytes(bytes([i % 256]) * 100)",
        ])
        task_id, state, _ = bench.run(code, 300)
        assert state == "completed"
        names, query = set(), {}
        while query is not None:
            page = bench.queue.listLatestArtifacts(task_id, query=query)
            names |= {each["name"] for each in page["artifacts"] if each["name"].startswith("public/many/")}
            token = page.get("continuationToken")
            query = {"continuationToken": token} if token else None
        assert len(names) == count
        assert 1 <= proxy.most_puts <= 4
        assert bench.memory() - before < 50_000, "kB more than at rest"
    proxy.down()


def test_54_55_odd_files_are_left_out_and_told(bench):
    code = """
public = out / 'public'
(public / 'passwd').symlink_to('/etc/passwd')
(public / 'dangling').symlink_to('nowhere')
os.mkfifo(public / 'pipe')
(work / 'mine').write_text('mine')
(public / 'copied').symlink_to(work / 'mine')
(public / 'etc').symlink_to('/etc')
(public / 'new\\nline').write_text('x')
(public / 'umlaut-\\u00fc').write_text('x')
(public / 'space and+plus').write_text('x')
"""
    task_id, state, log = bench.run(code)
    assert state == "internal-error"
    assert bench.names(task_id) >= {"public/copied", "public/space and+plus", "public/logs/live_backing.log"}
    outside = ("public/passwd", "public/dangling", "public/pipe", "public/etc")
    assert not [name for name in bench.names(task_id) if name.startswith(outside)]
    assert artifact(bench.running, task_id, "public/copied") == b"mine"
    assert log.count(b"not uploading") == 6


def test_56_a_statement_of_the_scripts_own_is_replaced(bench):
    task_id, state, log = bench.run("(out / 'public/chain-of-trust.json').write_text('{\"forged\": true}')")
    assert state == "completed"
    statement = json.loads(artifact(bench.running, task_id, "public/chain-of-trust.json"))
    assert statement["taskId"] == task_id
    assert set(statement["artifacts"]) == {"public/logs/live_backing.log"}
    assert b"removed public/chain-of-trust.json" in log


def test_29_a_full_disk_ends_a_task_and_not_the_worker(running, tmp_path):
    """The script fills a disk of 8 MB, which its log is on, too."""
    disk = tmp_path / "disk"
    disk.mkdir()
    bench = Bench(running, tmp_path)
    for key, name in (("work_dir", "work"), ("artifact_dir", "artifact"), ("task_log_dir", "artifact/public/logs")):
        bench.values[key] = str(disk / name)
    (tmp_path / "script.json").write_text(json.dumps({"work_dir": str(disk / "work"), "artifact_dir": str(disk / "artifact")}))
    bench.start(prefix=[*SMALL_DISK, "8m", str(disk)])
    with bench:
        code = """
print("filling", flush=True)
for name, piece in (("big.bin", bytes(65536)), ("rest.bin", b"x")):
    try:
        with open(out / "public" / name, "wb", buffering=0) as file:
            while file.write(piece):
                pass
    except OSError:
        pass
print("full", flush=True)
"""
        task_id, state, log = bench.run(code, 120)
        assert state in ("internal-error", "resource-unavailable"), bench.text()[-3000:]
        assert log.startswith(b"filling\n")
        assert "public/big.bin" in bench.names(task_id)
        assert "public/chain-of-trust.json" not in bench.names(task_id)
        assert bench.run("(out / 'public/small.bin').write_bytes(bytes(1_000_000))")[1] == "completed"


def test_29_a_file_that_is_large_on_paper_only_is_not_sent(running, tmp_path):
    """A sparse file of 30 GB, with a limit for artifacts: it is neither hashed nor sent."""
    with Bench(running, tmp_path, artifact_max_bytes=1_000_000_000) as bench:
        code = "f = open(out / 'public/sparse.bin', 'wb'); f.truncate(30_000_000_000)"
        task_id, state, log = bench.run(code, 120)
        assert (state, b"not uploading public/sparse.bin" in log) == ("internal-error", True)
        assert "public/sparse.bin" not in bench.names(task_id)
        assert bench.run()[1] == "completed"


def test_29_a_script_whose_files_may_not_grow_ends_like_any_other(running, tmp_path):
    """Files stop growing in the middle of an artifact; the worker resolves the task and goes on."""
    bench = Bench(running, tmp_path, script_limits={"file_bytes": 100_000})
    with bench:
        code = "f = open(out / 'public/big', 'wb')\nfor _ in range(1000): f.write(bytes(1000)); f.flush()"
        task_id, state, log = bench.run(code)
        assert state == "failed"
        assert "public/big" in bench.names(task_id)
        assert bench.run()[1] == "completed"
