# SPDX-License-Identifier: MPL-2.0
"""What roller replaced, at its leanest: a WSGI function that asks the auth service and queues, and a Celery task that does nothing.

`celery -A celery_peer worker` and `gunicorn celery_peer:application` run it; the environment says where everything is.
"""

import json
import os
import time
import urllib.parse
import uuid

import celery
import requests

app = celery.Celery("peer", broker=os.environ["AMQP_URL"], backend=os.environ["PEER_BACKEND"])
app.conf.update(
    task_track_started=True,
    task_default_queue=os.environ["PEER_QUEUE"],
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
)
AUTH = os.environ["TASKCLUSTER_ROOT_URL"] + "/api/auth/v1/authenticate-hawk"
SESSION = requests.Session()


@app.task(name="noop")
def noop(worker_id):
    """The moment at which it began is the result."""
    return time.time()


def application(environ, start_response):
    """Creates a job for who may; the order of the checks is that of the original."""
    resource = environ["RAW_URI"]
    host, _, port = environ["HTTP_HOST"].partition(":")
    asked = {
        "method": environ["REQUEST_METHOD"].lower(),
        "resource": resource,
        "host": host,
        "port": int(port or 80),
        "authorization": environ.get("HTTP_AUTHORIZATION", ""),
    }
    verdict = SESSION.post(AUTH, json=asked, timeout=10).json()
    if verdict.get("status") != "auth-success":
        return answer(start_response, "403 Forbidden", {"detail": verdict.get("message", "")})
    query = dict(urllib.parse.parse_qsl(environ["QUERY_STRING"]))
    worker = environ["PATH_INFO"].split("/")[4]
    job = str(uuid.uuid4())
    noop.apply_async((worker,), task_id=job)
    return answer(start_response, "201 Created", {"task_id": job, "worker_id": worker, "task_name": query["task_name"]})


def answer(start_response, status, body):
    data = json.dumps(body).encode()
    start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(data)))])
    return [data]
