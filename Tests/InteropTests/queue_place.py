# SPDX-License-Identifier: MPL-2.0
"""A queue for a file of checks: its fixtures, and what most checks begin with."""

import json
import urllib.error
import urllib.parse
import urllib.request

import mohawk
import pika
import pytest
import taskcluster

from local_queue import Deployment
from queue_checked import client, fetch, later
from support import task, unique


ASK = {"workerGroup": "g", "workerId": "w"}


@pytest.fixture(scope="module")
def deployment(servers, tmp_path_factory):
    settings = {"TCL_CLAIM_TIMEOUT": "1200", "TCL_CLAIM_WORK_TIMEOUT": "2", "TCL_DEADLINE_DELAY": "1"}
    with Deployment(servers, tmp_path_factory.mktemp("checks"), **settings) as deployment:
        yield deployment


@pytest.fixture(scope="module")
def server(deployment):
    return deployment.start()


@pytest.fixture(scope="module")
def queue(server):
    return client(server, "queue")


@pytest.fixture(scope="module")
def auth(server):
    return client(server, "auth")


def new_queue():
    return f"test/{unique('c').lower()}"


def created(queue, queue_id, **fields):
    task_id = taskcluster.slugId()
    queue.createTask(task_id, task("check", queue_id=queue_id, **fields))
    return task_id


def make_client(server, auth, scopes):
    made = auth.createClient(unique("limited"), {"expires": later(hours=1), "description": "d", "scopes": scopes})
    return made["clientId"], made["accessToken"]


def signed(url, method, client_id, token, body=""):
    credentials = {"id": client_id, "key": token, "algorithm": "sha256"}
    content = {"content": body, "content_type": "application/json" if body else ""}
    return mohawk.Sender(credentials, url, method, **content).request_header


def status_of(url, headers=None, method="GET", data=None):
    try:
        return fetch(url, headers, method, data)[0]
    except urllib.error.HTTPError as answer:
        return answer.code


class Events:
    """What a queue of our own got from some exchanges: exchange, routing key and body, in order."""

    def __init__(self, deployment, *names):
        self.connection = pika.BlockingConnection(pika.URLParameters(deployment.amqp_url))
        self.channel = self.connection.channel()
        self.mailbox = self.channel.queue_declare("", exclusive=True).method.queue
        self.received = []
        for name in names:
            self.channel.exchange_declare(deployment.exchange_prefix + name, "topic", durable=True)
            self.channel.queue_bind(self.mailbox, deployment.exchange_prefix + name, "#")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()

    def all(self):
        while True:
            how, _, body = self.channel.basic_get(self.mailbox, auto_ack=True)
            if not how:
                return self.received
            self.received.append((how.exchange.rpartition("/")[2], how.routing_key, json.loads(body)))
