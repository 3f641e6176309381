# SPDX-License-Identifier: MPL-2.0
"""A proxy before the queue that spoils a share of the calls of createTask in every way a network and a queue can."""

import http.client
import http.server
import random
import re
import socketserver
import threading
import time
import urllib.parse

# A task alone, or several in one call.
CREATE_TASK = re.compile(r"^PUT /api/queue/v1/task/[^/]+$|^POST /api/queue/v1/tasks/create$")
# What the client sees, and whether the queue has done the work nevertheless.
FAULTS = ["refused", "lost reply", "error after work", "conflict after work", "garbage after work", "hang after work"]


class FaultyQueue:
    """Forwards everything to `upstream`, byte for byte; `share` of the createTask calls meet a fault."""

    def __init__(self, upstream, share=0.0, hang=12, seed=0):
        self.upstream = urllib.parse.urlsplit(upstream)
        self.share = share
        self.hang = hang
        self.counts = dict.fromkeys(FAULTS, 0)
        self.random = random.Random(seed)
        self.lock = threading.Lock()

    def __enter__(self):
        outer = self

        class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
            daemon_threads = True
            request_queue_size = 256

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def forward(self):
                outer.serve(self)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = forward

            def log_message(self, *_):
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def fault(self, handler):
        if not CREATE_TASK.match(f"{handler.command} {handler.path.split('?')[0]}"):
            return None
        with self.lock:
            if self.random.random() >= self.share:
                return None
            chosen = self.random.choice(FAULTS)
            self.counts[chosen] += 1
            return chosen

    def serve(self, handler):
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        fault = self.fault(handler)
        if fault == "refused":
            return self.answer(handler, 503, b'{"message": "the proxy refuses this call"}')
        status, headers, reply = self.pass_on(handler, body)
        if fault == "lost reply":
            handler.close_connection = True
            return None
        if fault == "error after work":
            return self.answer(handler, 500, b'{"message": "the proxy hides what happened"}')
        if fault == "conflict after work":
            return self.answer(handler, 409, b'{"code": "RequestConflict", "message": "the proxy says there is one already"}')
        if fault == "garbage after work":
            return self.answer(handler, 200, b"<html>not what you asked for", "text/html")
        if fault == "hang after work":
            time.sleep(self.hang)
            handler.close_connection = True
            return None
        return self.answer(handler, status, reply, headers=headers)

    def pass_on(self, handler, body):
        connection = http.client.HTTPConnection(self.upstream.hostname, self.upstream.port, timeout=120)
        try:
            connection.putrequest(handler.command, handler.path, skip_host=True, skip_accept_encoding=True)
            for name, value in handler.headers.items():
                if name.lower() != "connection":
                    connection.putheader(name, value)
            connection.endheaders(body if body else None)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        except OSError:
            return 502, [], b'{"message": "the queue is away"}'
        finally:
            connection.close()

    def answer(self, handler, status, body, content_type="application/json", headers=None):
        try:
            handler.send_response_only(status)
            for name, value in headers or [("Content-Type", content_type)]:
                if name.lower() not in ("connection", "content-length", "transfer-encoding"):
                    handler.send_header(name, value)
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            if handler.command != "HEAD":
                handler.wfile.write(body)
        except OSError:
            # The caller was killed; that is what these tests do.
            handler.close_connection = True
