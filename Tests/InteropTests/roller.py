# SPDX-License-Identifier: MPL-2.0
"""A client of roller as scripts of operators are: PyPI's mohawk signs, requests sends."""

import base64
import datetime
import json
import os
import socket
import socketserver
import threading
import types
import urllib.parse

import mohawk
import requests
import taskcluster

PREFIX = "project:releng:roller:"
SHERIFF = "mozilla-auth0/ad|Mozilla-LDAP|sheriff"


class Roller:
    """Speaks to the API, as the root client or as a temporary one with a few scopes."""

    def __init__(self, running):
        self.running = running
        self.url = running.values["ROLLER_URL"]
        self.credentials = running.options["credentials"]

    @classmethod
    def from_environment(cls):
        """The client that the environment names, as for the command line."""
        values = {name: os.environ[name] for name in ("ROLLER_URL", "TASKCLUSTER_CLIENT_ID", "TASKCLUSTER_ACCESS_TOKEN")}
        credentials = {"clientId": values["TASKCLUSTER_CLIENT_ID"], "accessToken": values["TASKCLUSTER_ACCESS_TOKEN"]}
        return cls(types.SimpleNamespace(values=values, options={"credentials": credentials}))

    def signer(self, scopes=None, name=SHERIFF):
        """Credentials for mohawk: with scopes, temporary ones that name a person."""
        credentials = self.credentials
        if scopes is None:
            return credentials["clientId"], credentials["accessToken"], None
        made = taskcluster.createTemporaryCredentials(
            credentials["clientId"],
            credentials["accessToken"],
            start=moment(-60),
            expiry=moment(3600),
            scopes=scopes,
            name=name,
        )
        ext = base64.b64encode(json.dumps({"certificate": json.loads(made["certificate"])}).encode()).decode()
        return made["clientId"], made["accessToken"], ext

    def authorization(self, method, url, scopes=None, name=SHERIFF, body=b"", content_type=""):
        client, key, ext = self.signer(scopes, name)
        key = key.decode() if isinstance(key, bytes) else key
        client = client.decode() if isinstance(client, bytes) else client
        sender = mohawk.Sender(
            {"id": client, "key": key, "algorithm": "sha256"},
            url,
            method,
            content=body,
            content_type=content_type,
            ext=ext,
        )
        return sender.request_header

    def call(self, method, path, scopes=None, name=SHERIFF, body=None, headers=None, signed=True, timeout=120, **options):
        url = f"{self.url}/api/v1/{path}"
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        content_type = "application/json" if body is not None else ""
        fields = dict(headers or {})
        if content_type:
            fields["Content-Type"] = content_type
        if signed:
            fields["Authorization"] = self.authorization(method, url, scopes, name, data, content_type)
        # What was signed goes over the wire as it is.
        request = requests.Request(method, url, headers=fields, data=data).prepare()
        request.url = url
        # A connection of its own: nothing hangs on whether a server or proxy keeps old ones.
        with requests.Session() as session:
            return session.send(request, timeout=timeout, allow_redirects=False, **options)

    def create(self, task, worker, query="", **options):
        return self.call("POST", f"workers/{worker}/jobs?task_name={task}{query}", **options)

    def wait(self, job, seconds=120):
        """The job as it is when it is over."""
        answer = None
        for _ in range(max(1, seconds // 10)):
            answer = self.call("GET", f"jobs/{job}?wait=10").json()
            if answer["status"] in ("COMPLETE", "FAILED", "CANCELED"):
                return answer
        raise AssertionError(f"job {job} is still {answer}")


def moment(seconds):
    """A moment so many seconds from now, as the client wants it: in UTC and without saying so."""
    now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
    return now + datetime.timedelta(seconds=seconds)


class Proxy(socketserver.ThreadingTCPServer):
    """A proxy that ends TLS elsewhere: it hands requests on with the fields that such a one adds."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, upstream, fields):
        self.upstream = urllib.parse.urlsplit(upstream)
        self.fields = fields
        super().__init__(("127.0.0.1", 0), ProxyHandler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class ProxyHandler(socketserver.StreamRequestHandler):
    def handle(self):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            piece = self.rfile.readline()
            if not piece:
                return
            head += piece
        lines = head.decode().split("\r\n")
        lines = [lines[0], *[f"{name}: {value}" for name, value in self.server.fields.items()], "Connection: close", *lines[1:]]
        with socket.create_connection((self.server.upstream.hostname, self.server.upstream.port)) as upstream:
            upstream.sendall("\r\n".join(lines).encode())
            while piece := upstream.recv(65536):
                self.wfile.write(piece)
