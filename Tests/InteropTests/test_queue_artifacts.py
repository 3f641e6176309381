# SPDX-License-Identifier: MPL-2.0
"""Artifacts and objects of our queue, by the PyPI client and by plain requests."""

import datetime
import gzip
import hashlib
import re
import time
import urllib.error
import urllib.parse

import pytest
import taskcluster

from queue_checked import (  # noqa: F401 (fixtures)
    claimed,
    client,
    deployment,
    fetch,
    later,
    put,
    queue,
    refused,
    server,
    upload,
)
from support import eventually, stamp, task, unique


# ---------------------------------------------------------------- F. artifacts and objects


def test_q14_names_with_blanks_are_one_artifact_in_both_spellings(server, queue):
    claim = claimed(queue)
    upload(queue, claim, "public/build/c d+e.xml", b"<x/>", "application/xml")
    url = f"{server.own_url}/api/queue/v1/task/{claim['status']['taskId']}/artifacts/public/build/c%20d+e.xml"
    assert fetch(url)[2] == b"<x/>"


def test_q84_bytes_come_back_as_they_were_sent(server, queue):
    claim = claimed(queue)
    task_id = claim["status"]["taskId"]
    packed = gzip.compress(b"text " * 1000)
    upload(queue, claim, "public/packed.txt", packed, "text/plain", **{"Content-Encoding": "gzip"})
    binary = bytes(range(256)) * 1000
    upload(queue, claim, "public/a.bin", binary, "application/octet-stream")
    url = queue.buildUrl("getLatestArtifact", task_id, "public/packed.txt")
    _, headers, body = fetch(url)
    assert headers["Content-Encoding"] == "gzip" and body == packed and headers["Content-Length"] == str(len(packed))
    url = queue.buildUrl("getArtifact", task_id, 0, "public/a.bin")
    location = queue.getArtifact(task_id, 0, "public/a.bin")["url"]
    assert fetch(url)[2] == binary
    status, headers, body = fetch(location, {"Range": "bytes=256-511"})
    assert (status, body, headers["Content-Range"]) == (206, binary[256:512], f"bytes 256-511/{len(binary)}")
    status, headers, body = fetch(location, method="HEAD")
    assert headers["Content-Length"] == str(len(binary)) and headers["Accept-Ranges"] == "bytes" and body == b""
    with pytest.raises(urllib.error.HTTPError) as beyond:
        fetch(location, {"Range": "bytes=999999999-"})
    assert beyond.value.code == 416
    names = [each["name"] for each in queue.listArtifacts(task_id, 0)["artifacts"]]
    assert names == ["public/a.bin", "public/packed.txt"]
    assert queue.listLatestArtifacts(task_id)["artifacts"] == queue.listArtifacts(task_id, 0)["artifacts"]
    assert queue.artifactInfo(task_id, 0, "public/a.bin")["storageType"] == "s3"
    assert queue.latestArtifactInfo(task_id, "public/a.bin")["name"] == "public/a.bin"
    assert fetch(queue.latestArtifact(task_id, "public/a.bin")["url"])[2] == binary
    assert fetch(queue.artifact(task_id, 0, "public/a.bin")["url"])[2] == binary


def test_q85_private_artifacts_need_a_signature(queue):
    claim = claimed(queue)
    upload(queue, claim, "private/key", b"secret", "application/octet-stream")
    task_id = claim["status"]["taskId"]
    with pytest.raises(urllib.error.HTTPError) as anonymous:
        fetch(queue.buildUrl("getLatestArtifact", task_id, "private/key"))
    assert anonymous.value.code == 403
    assert fetch(queue.buildSignedUrl("getLatestArtifact", task_id, "private/key"))[2] == b"secret"


def test_q86_q87_what_may_be_created_again_and_when(queue):
    claim = claimed(queue)
    task_id, expires = claim["status"]["taskId"], claim["task"]["expires"]
    create = lambda **fields: queue.createArtifact(
        task_id, 0, "public/x", {"storageType": "s3", "contentType": "a/b", "expires": expires} | fields
    )
    soon = later(hours=2)
    first, again = create(expires=soon), create(expires=soon)
    assert put(again["putUrl"], b"x", "a/b")[0] == put(first["putUrl"], b"x", "a/b")[0] == 200
    refused(409, create, contentType="c/d")
    refused(409, create, expires=later(hours=1))
    create()
    late = datetime.datetime.fromisoformat(expires.replace("Z", "+00:00")) + datetime.timedelta(milliseconds=1)
    refused(400, create, expires=stamp(late))
    refused(400, queue.createArtifact, taskcluster.slugId(), 0, "x", {"storageType": "s3", "contentType": "a/b", "expires": soon})
    unclaimed = taskcluster.slugId()
    queue.createTask(unclaimed, task("unclaimed", queue_id="test/none"))
    refused(400, queue.createArtifact, unclaimed, 0, "x", {"storageType": "s3", "contentType": "a/b", "expires": soon})
    queue.reportCompleted(task_id, 0)
    refused(409, create)


def test_q88_references_and_links(queue):
    claim = claimed(queue)
    task_id, expires = claim["status"]["taskId"], claim["task"]["expires"]
    create = lambda name, **fields: queue.createArtifact(task_id, 0, name, {"expires": expires} | fields)
    reference = {"storageType": "reference", "contentType": "text/plain"}
    create("public/live.log", url="https://example.com/a", **reference)
    create("public/live.log", url="https://example.com/b", **reference)
    assert queue.getLatestArtifact(task_id, "public/live.log")["url"] == "https://example.com/b"
    create("public/live.log", storageType="link", artifact="public/backing.log")
    refused(409, create, "public/live.log", url="https://example.com/c", **reference)
    refused(404, queue.getLatestArtifact, task_id, "public/live.log")
    upload(queue, claim, "public/backing.log", b"log")
    assert fetch(queue.buildUrl("getLatestArtifact", task_id, "public/live.log"))[2] == b"log"
    create("public/a", storageType="link", artifact="public/b")
    create("public/b", storageType="link", artifact="public/a")
    refused(400, queue.getLatestArtifact, task_id, "public/a")
    create("public/leak", storageType="link", artifact="private/x")
    with pytest.raises(urllib.error.HTTPError) as leak:
        fetch(queue.buildUrl("getLatestArtifact", task_id, "public/leak"))
    assert leak.value.code in (403, 404)
    upload(queue, claim, "private/x", b"x")
    with pytest.raises(urllib.error.HTTPError) as leak:
        fetch(queue.buildUrl("getLatestArtifact", task_id, "public/leak"))
    assert leak.value.code == 403


def test_q89_error_artifacts_say_why(queue):
    claim = claimed(queue)
    task_id, expires = claim["status"]["taskId"], claim["task"]["expires"]
    wish = {"storageType": "error", "expires": expires, "reason": "file-missing-on-worker", "message": "nothing there"}
    queue.createArtifact(task_id, 0, "public/gone", wish)
    failure = refused(424, queue.getLatestArtifact, task_id, "public/gone")
    assert failure.body == {"reason": "file-missing-on-worker", "message": "nothing there"}
    assert queue.latestArtifact(task_id, "public/gone")["storageType"] == "error"


def test_q90_q92_uploads_are_complete_or_nothing(server, queue):
    claim = claimed(queue)
    task_id = claim["status"]["taskId"]
    answer = upload(queue, claim, "public/file", b"first", "a/b")
    url = answer["putUrl"]
    parts = urllib.parse.urlsplit(url)
    assert re.fullmatch(r"[A-Za-z0-9_.~/-]+", parts.path) and re.fullmatch(r"access_token=[A-Za-z0-9_.~-]+", parts.query)
    location = queue.getLatestArtifact(task_id, "public/file")["url"]
    assert re.fullmatch(r"[A-Za-z0-9_.~/?=&:-]+", location)
    for bad_url, content_type in ((url, "c/d"), (url[:-2], "a/b"), (url.replace("access_token=1", "access_token=2"), "a/b")):
        with pytest.raises(urllib.error.HTTPError) as refusal:
            put(bad_url, b"other", content_type)
        assert refusal.value.code == 403
    import socket

    with socket.create_connection((parts.hostname, parts.port)) as half:
        half.sendall(
            f"PUT {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: a/b\r\n"
            "Content-Length: 1000\r\n\r\nhalf".encode()
        )
        time.sleep(0.2)
    time.sleep(0.3)
    assert fetch(location)[2] == b"first"
    assert put(url, b"second", "a/b")[0] == 200
    assert fetch(location)[2] == b"second"


def test_q91_after_a_rerun_the_latest_run_has_nothing(queue):
    claim = claimed(queue)
    task_id = claim["status"]["taskId"]
    upload(queue, claim, "public/x", b"x")
    queue.reportCompleted(task_id, 0)
    queue.rerunTask(task_id)
    refused(404, queue.getLatestArtifact, task_id, "public/x")
    assert queue.getArtifact(task_id, 0, "public/x")["storageType"] == "s3"


@pytest.mark.parametrize("size", [1000, 10_000_000])
def test_q93_objects_go_up_and_down_with_the_real_helpers(server, queue, size):
    from taskcluster.download import downloadArtifactToBuf
    from taskcluster.upload import uploadFromBuf

    claim = claimed(queue)
    task_id = claim["status"]["taskId"]
    data = hashlib.sha256(str(size).encode()).digest() * (size // 32 + 1)
    data = data[:size]
    wish = {"storageType": "object", "expires": claim["task"]["expires"], "contentType": "application/x-thing"}
    answer = queue.createArtifact(task_id, 0, "private/object", wish)
    assert queue.createArtifact(task_id, 0, "private/object", wish)["uploadId"] == answer["uploadId"]
    refused(404, queue.latestArtifact, task_id, "private/object")
    refused(400, queue.finishArtifact, task_id, 0, "private/object", {"uploadId": answer["uploadId"]})
    store = taskcluster.Object({"rootUrl": server.own_url, "credentials": answer["credentials"]})
    uploadFromBuf(
        data=data,
        projectId=answer["projectId"],
        name=answer["name"],
        contentType="application/x-thing",
        contentLength=len(data),
        expires=answer["expires"],
        uploadId=answer["uploadId"],
        objectService=store,
    )
    refused(400, queue.finishArtifact, task_id, 0, "private/object", {"uploadId": taskcluster.slugId()})
    queue.finishArtifact(task_id, 0, "private/object", {"uploadId": answer["uploadId"]})
    queue.finishArtifact(task_id, 0, "private/object", {"uploadId": answer["uploadId"]})
    body, content_type = downloadArtifactToBuf(
        taskId=task_id, runId=0, name="private/object", queueService=taskcluster.Queue(server.options())
    )
    assert bytes(body) == data and content_type == "application/x-thing"
    assert queue.getLatestArtifact(task_id, "private/object")["storageType"] == "object"
    facts = client(server, "object").object(answer["name"])
    assert facts["hashes"]["sha256"] == hashlib.sha256(data).hexdigest()


def test_objects_have_terms(server):
    store = client(server, "object")
    name, upload_id = unique("free") + "/a b", taskcluster.slugId()
    wish = {
        "projectId": "p",
        "uploadId": upload_id,
        "expires": later(hours=1),
        "proposedUploadMethods": {"putUrl": {"contentType": "a/b", "contentLength": 4}},
    }
    method = store.createUpload(name, wish)["uploadMethod"]["putUrl"]
    refused(409, store.createUpload, name, wish | {"uploadId": taskcluster.slugId()})
    refused(400, store.finishUpload, name, {"projectId": "p", "uploadId": upload_id})
    refused(404, store.startDownload, name, {"acceptDownloadMethods": {"simple": True}})
    assert put(method["url"], b"data", method["headers"]["Content-Type"], **{"Content-Encoding": "identity"})[0] == 200
    refused(400, store.finishUpload, name, {"projectId": "q", "uploadId": upload_id})
    refused(409, store.finishUpload, name, {"projectId": "p", "uploadId": taskcluster.slugId()})
    wrong = {"sha256": "0" * 64}
    refused(400, store.finishUpload, name, {"projectId": "p", "uploadId": upload_id, "hashes": wrong})
    assert store.finishUpload(name, {"projectId": "p", "uploadId": upload_id}) == {}
    assert store.finishUpload(name, {"projectId": "p", "uploadId": upload_id}) == {}
    refused(409, store.finishUpload, name, {"projectId": "p", "uploadId": upload_id, "hashes": wrong})
    hashes = store.object(name)["hashes"]
    assert hashes["sha512"] == hashlib.sha512(b"data").hexdigest()
    assert store.startDownload(name, {"acceptDownloadMethods": {"getUrl": True, "simple": True}})["method"] == "getUrl"
    simple = store.startDownload(name, {"acceptDownloadMethods": {"simple": True}})
    assert fetch(simple["url"])[2] == b"data"
    assert fetch(store.buildSignedUrl("download", name))[2] == b"data"
    refused(406, store.startDownload, name, {"acceptDownloadMethods": {}})
    with pytest.raises(urllib.error.HTTPError) as finished:
        put(method["url"], b"more", "a/b")
    assert finished.value.code == 403


def test_q94_all_pages_of_artifacts_come_once(deployment, queue):
    claim = claimed(queue)
    task_id = claim["status"]["taskId"]
    deployment.query(
        "insert into tcl.artifacts (task_id, run_id, name, storage_type, content_type, details, expires, present) "
        f"select '{task_id}', 0, 'public/' || n, 'reference', 'a/b', '{{\"url\": \"https://example.com\"}}', "
        f"'{claim['task']['expires']}', true from generate_series(1, 2500) n"
    )
    names = []
    queue.listLatestArtifacts(task_id, paginationHandler=lambda page: names.extend(a["name"] for a in page["artifacts"]))
    assert len(names) == len(set(names)) == 2500 and names == sorted(names)


def test_expired_tasks_are_forgotten_with_all_that_belongs_to_them(deployment, queue):
    task_id = taskcluster.slugId()
    queue.createTask(task_id, task("brief", queue_id="test/none", deadline=later(seconds=1), expires=later(seconds=2)))
    eventually(lambda: deployment.query(f"select count(*) from tcl.tasks where task_id = '{task_id}'") == "0", 20)
    refused(404, queue.status, task_id)
    refused(404, queue.getTaskGroup, task_id)
    for table in ("task_status", "deadlines", "pending", "groups"):
        column = "task_group_id" if table == "groups" else "task_id"
        assert deployment.query(f"select count(*) from tcl.{table} where {column} = '{task_id}'") == "0"
