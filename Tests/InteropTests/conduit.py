# SPDX-License-Identifier: MPL-2.0
"""A stand-in for Phabricator: Conduit as its server speaks it, over HTTP.

A real one needs PHP and MySQL of years ago and is in no package registry. What it takes and answers follows its source:
a form whose field `params` is JSON with the token under `__conduit__` (or the fields one by one with `api.token`), status
200 in any case, `error_code` and `error_info` when it refuses, searches with `data` and a `cursor` whose `after` is null on
the last page.
"""

import http.server
import json
import threading
import time
import urllib.parse

TOKEN = "api-" + "0123456789abcdefghijklmnop" + "zz"
assert len(TOKEN) == 32


class Refusal(Exception):
    def __init__(self, code, info):
        super().__init__(info)
        self.code, self.info = code, info


class Phabricator:
    def __init__(self):
        self.lock = threading.Lock()
        self.diffs, self.visible, self.reviewers, self.users = {}, set(), {}, {}
        self.calls = []
        # Ids go on where those of earlier runs ended, whose databases may be with us.
        self.last = time.time_ns() // 1_000_000
        # How many calls answer with 503 and nothing else.
        self.broken = 0
        # While set, diffs wait here before they are answered.
        self.gate = threading.Event()
        self.gate.set()
        self.waiting = threading.Event()
        handler = type("Handler", (Handler,), {"phabricator": self})
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.gate.set()
        self.server.shutdown()

    def add(self, count=1, visible=True, reviewers=()):
        """New diffs, each of a revision of its own; answers their ids."""
        with self.lock:
            made = []
            for _ in range(count):
                self.last += 1
                number = self.last
                self.diffs[number] = {"phid": f"PHID-DIFF-{number}", "revision": f"PHID-DREV-{number}"}
                self.reviewers[f"PHID-DREV-{number}"] = list(reviewers)
                if visible:
                    self.visible.add(f"PHID-DREV-{number}")
                made.append(number)
            return made

    def answer(self, method, form):
        if "params" in form:
            try:
                parameters = json.loads(form["params"])
            except ValueError as error:
                raise Refusal("ERR-CONDUIT-CORE", "could not decode JSON serialization") from error
            token = parameters.pop("__conduit__", {}).get("token")
        else:
            token = form.get("api.token")
            parameters = {name: value for name, value in form.items() if name != "api.token"}
        if token is None:
            raise Refusal("ERR-INVALID-SESSION", "Session key is not present.")
        if token != TOKEN:
            raise Refusal("ERR-INVALID-AUTH", f'API token "{token}" is not valid.')
        self.calls.append((method, parameters))
        with self.lock:
            rows = {
                "differential.diff.search": self.search_diffs,
                "differential.revision.search": self.search_revisions,
                "user.search": self.search_users,
            }.get(method)
            if rows is None:
                raise Refusal("ERR-CONDUIT-CORE", f'Conduit API method "{method}" does not exist.')
            rows = rows(parameters)
        limit = int(parameters.get("limit", 100))
        after = str(rows[limit - 1]["id"]) if len(rows) > limit else None
        cursor = {"limit": limit, "after": after, "before": None, "order": parameters.get("order")}
        return {"data": rows[:limit], "maps": {}, "query": {"queryKey": None}, "cursor": cursor}

    def search_diffs(self, parameters):
        wanted = parameters.get("constraints", {}).get("ids")
        numbers = sorted(self.diffs, reverse=parameters.get("order") != "oldest")
        if wanted is not None:
            numbers = [number for number in numbers if number in wanted]
        if after := parameters.get("after"):
            numbers = [number for number in numbers if number > int(after)]
        return [
            {
                "id": number,
                "type": "DIFF",
                "phid": self.diffs[number]["phid"],
                "fields": {"revisionPHID": self.diffs[number]["revision"], "refs": [], "policy": {"view": "public"}},
                "attachments": {},
            }
            for number in numbers
        ]

    def search_revisions(self, parameters):
        wanted = [phid for phid in parameters["constraints"]["phids"] if phid in self.visible]
        reviewers = lambda phid: [{"reviewerPHID": each, "status": "added", "isBlocking": False} for each in self.reviewers[phid]]
        return [
            {
                "id": int(phid.rsplit("-")[-1]),
                "type": "DREV",
                "phid": phid,
                "fields": {"title": "t"},
                "attachments": {"reviewers": {"reviewers": reviewers(phid)}} if parameters.get("attachments", {}).get("reviewers") else {},
            }
            for phid in wanted
        ]

    def search_users(self, parameters):
        wanted = [phid for phid in parameters["constraints"]["phids"] if phid in self.users]
        return [{"id": 1, "type": "USER", "phid": phid, "fields": {"username": self.users[phid]}} for phid in wanted]


class Handler(http.server.BaseHTTPRequestHandler):
    phabricator = None

    def do_POST(self):
        phabricator = self.phabricator
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        url = urllib.parse.urlsplit(self.path)
        method = url.path.removeprefix("/api/")
        # What stands in an address ends in logs.
        assert TOKEN not in self.path
        if phabricator.broken > 0:
            phabricator.broken -= 1
            self.send_error(503)
            return
        form = dict(urllib.parse.parse_qsl(body))
        try:
            answer = {"result": phabricator.answer(method, form), "error_code": None, "error_info": None}
        except Refusal as refusal:
            answer = {"result": None, "error_code": refusal.code, "error_info": refusal.info}
        if not phabricator.gate.is_set() and answer["result"] and answer["result"]["data"]:
            phabricator.waiting.set()
            phabricator.gate.wait(600)
        text = json.dumps(answer).encode()
        try:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)
        except OSError:
            # Whoever asked was killed meanwhile.
            pass

    def log_message(self, *arguments):
        pass
