#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""A whole step service: its steps wait for {"seconds": n}. Usage: step_service.py PORT DATABASE"""

import datetime, json, re, sqlite3, sys, threading, urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

RESERVED = {"step", "steps", "mock", "ticktock", "login", "logout", "docs", "ui", "metrics", "events", "ping"}
COARSE = {"running": "in_progress", "completed": "success", "cancelled": "cancelled"}
lock, database = threading.Lock(), None


def now():
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Refusal(Exception):
    """An answer that is not what was asked for: status, a word for programs, a text for people."""


class Service(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def row(self, uid):
        """A step as it is now; work that is over by now has ended when it was due."""
        found = database.execute("select definition, created, ended, state from steps where uid = ?", [uid]).fetchone()
        if not found:
            raise Refusal(404, "not_found", f"there is no step {uid}")
        definition, created, ended, state = json.loads(found[0]), *found[1:]
        due = datetime.datetime.fromisoformat(created.replace("Z", "+00:00")) + datetime.timedelta(seconds=definition["seconds"])
        if state == "running" and due <= datetime.datetime.now(datetime.timezone.utc):
            state, ended = "completed", now()
            database.execute("update steps set state = ?, ended = ? where uid = ?", [state, ended, uid])
        return definition, created, ended, state

    def status(self, uid):
        definition, created, ended, state = self.row(uid)
        times = {"finished": ended} | ({"completed": ended} if state == "completed" else {}) if ended else {}
        return {"uid": uid, "status": COARSE[state], "state": state, "message": "", "created": created, "attempt": 1,
                "updated": ended or created, "output": {}, "info": {}, "links": []} | times  # fmt: skip

    def put(self, uid, body, query):
        body.pop("uid", None) if body.get("uid", uid) == uid else self.refuse("another uid in the body")
        if uid in RESERVED or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,79}", uid):
            self.refuse("no name for a step")
        if set(body) != {"seconds"} or type(body["seconds"]) not in (int, float):
            self.refuse("seconds has to be a number, and is all there is")
        text = json.dumps(body, sort_keys=True)
        database.execute("insert or ignore into steps values (?, ?, ?, null, 'running')", [uid, text, now()])
        if json.dumps(self.row(uid)[0], sort_keys=True) != text:
            raise Refusal(409, "definition_differs", f"{uid} is another step")
        return {}

    def cancel(self, uid, body, query):
        state = self.row(uid)[3]
        if state == "completed":
            raise Refusal(409, "step_closed", "it has ended already")
        if state == "running":
            database.execute("update steps set state = 'cancelled', ended = ? where uid = ?", [now(), uid])
        return self.status(uid)

    def delete(self, uid, body, query):
        if self.row(uid)[3] == "running" and query.get("force") != "true":
            raise Refusal(409, "not_finished", "it goes on; force=true cancels it")
        database.execute("delete from steps where uid = ?", [uid])
        return {}

    def list(self, query):
        if query.get("state", "running") not in COARSE:
            self.refuse("no such state")
        last, limit = query.get("continuationToken", ""), int(query.get("limit", 100))
        rows = database.execute("select uid from steps where uid > ? order by uid", [last]).fetchall()
        steps = [self.status(uid) for (uid,) in rows if uid.startswith(query.get("uid_prefix", ""))]
        steps = [step for step in steps if query.get("state", step["state"]) == step["state"]]
        more = {"continuationToken": steps[limit - 1]["uid"]} if len(steps) > limit else {}
        return {"steps": steps[:limit]} | more

    def refuse(self, text):
        raise Refusal(400, "invalid_request", text)

    def answer(self, method):
        path, _, text = self.path.partition("?")
        query = dict(urllib.parse.parse_qsl(text))
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            body = json.loads(raw or b"{}")
        except ValueError:
            self.refuse("the body is no JSON")
        isinstance(body, dict) or self.refuse("the body is no object")
        uid, _, part = urllib.parse.unquote(path.strip("/")).partition("/")
        calls = {("PUT", ""): self.put, ("POST", "cancel"): self.cancel, ("DELETE", ""): self.delete}
        with lock, database:
            if method == "GET":
                parts = {"status": self.status, "definition": lambda uid: self.row(uid)[0], "": lambda uid: self.row(uid)[0]}
                return parts[part](uid) if uid else self.list(query)
            return calls[method, part](uid, body, query)

    def handle_any(self):
        try:
            status, reply = 200, self.answer(self.command)
        except Refusal as refusal:
            status, code, detail = refusal.args
            reply = {"type": "about:blank", "title": code, "status": status, "detail": detail, "code": code}
        except KeyError:
            status, reply = 404, {"type": "about:blank", "title": "x", "status": 404, "detail": "no such call", "code": "not_found"}
        data = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if status < 400 else "application/problem+json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_PUT = do_POST = do_DELETE = handle_any

    def log_message(self, *arguments):
        pass


def serve(port, path, service=Service):
    global database
    database = sqlite3.connect(path, check_same_thread=False)
    database.execute("pragma journal_mode = wal")
    database.execute("create table if not exists steps (uid text primary key, definition text, created text, ended text, state text)")
    ThreadingHTTPServer(("127.0.0.1", port), service).serve_forever()


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2])
