# SPDX-License-Identifier: MPL-2.0
"""The page of operators: what its script signs is what PyPI's mohawk signs, and what the service believes."""

import json
import pathlib
import shutil
import subprocess

import mohawk
import pytest
import requests

from roller import PREFIX, Roller
from support import unique

# Runs the page's own module; the request and the credentials come on standard input. Node 18 hides what browsers show.
SIGN = """
import { webcrypto } from 'node:crypto';
import { authorization } from './hawk.mjs';
globalThis.crypto ??= webcrypto;
let text = '';
for await (const piece of process.stdin) text += piece;
const { credentials, request, moment } = JSON.parse(text);
process.stdout.write(await authorization(credentials, request, moment));
"""


@pytest.fixture(scope="module")
def roller(running):
    if "ROLLER_URL" not in running.values:
        pytest.skip("roller-api was not built")
    return Roller(running)


@pytest.fixture
def sign(roller, tmp_path):
    node = shutil.which("node")
    if not node:
        pytest.skip("no node: the page's script cannot be run here")
    answer = requests.get(f"{roller.url}/ui/hawk.js", timeout=60)
    assert answer.status_code == 200
    (tmp_path / "hawk.mjs").write_bytes(answer.content)
    (tmp_path / "sign.mjs").write_text(SIGN)

    def run(credentials, request, moment=None):
        what = json.dumps({"credentials": credentials, "request": request, "moment": moment or {}})
        done = subprocess.run([node, str(pathlib.Path(tmp_path) / "sign.mjs")], input=what, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.mark.parametrize(
    "url, body, kind",
    [
        ("http://roller.example:8000/api/v1/jobs?task_name=ping&tc_worker_id=a%20b", None, None),
        ("https://Roller.Example/api/v1/machines/import?format=csv&mode=plan", "name,os\nm,Ünïcödé\n", "text/csv"),
        ("http://roller.example/api/v1/locks/break", '{"reason": "x"}', "application/json; charset=utf-8"),
    ],
)
def test_the_page_signs_as_mohawk_does(sign, url, body, kind):
    credentials = {"clientId": "mozilla-auth0/ad|Mozilla-LDAP|page", "accessToken": "no-real-token"}
    moment = {"timestamp": 1700000000, "nonce": "j4h3g2"}
    request = {"method": "post", "url": url} | ({} if body is None else {"body": body, "contentType": kind})
    ours = mohawk.util.parse_authorization_header(sign(credentials, request, moment))
    # The reference client signs the host as it is written; browsers write it in lower case.
    sender = mohawk.Sender(
        {"id": credentials["clientId"], "key": credentials["accessToken"], "algorithm": "sha256"},
        url.lower() if "Roller" in url else url,
        "POST",
        **({"always_hash_content": False} if body is None else {"content": body, "content_type": kind}),
        nonce=moment["nonce"],
        _timestamp=moment["timestamp"],
    )
    theirs = mohawk.util.parse_authorization_header(sender.request_header)
    assert ours["mac"] == theirs["mac"] and ours.get("hash") == theirs.get("hash")
    assert ours["id"] == credentials["clientId"] and "ext" not in ours


def test_what_the_page_signs_is_believed_with_temporary_credentials_and_bodies(roller, sign):
    client, key, ext = roller.signer([PREFIX + "inventory:write", PREFIX + "inventory:read"])
    text = lambda value: value.decode() if isinstance(value, bytes) else value
    import base64

    certificate = json.dumps(json.loads(base64.b64decode(ext))["certificate"])
    credentials = {"clientId": text(client), "accessToken": text(key), "certificate": certificate}
    name = unique("page").lower()
    url = f"{roller.url}/api/v1/machines/{name}"
    body = json.dumps({"ip": "127.0.0.1", "properties": {"notes": "ü <b>"}}, ensure_ascii=False)

    def send(method, address, sent=None):
        request = {"method": method, "url": address} | ({} if sent is None else {"body": body, "contentType": "application/json"})
        fields = {"Authorization": sign(credentials, request), "Content-Type": "application/json"}
        return requests.request(method, address, data=None if sent is None else sent.encode(), headers=fields, timeout=60)

    made = send("PUT", url, body)
    assert made.status_code == 201 and made.json()["properties"] == {"notes": "ü <b>"}, made.text
    who = send("GET", f"{roller.url}/api/v1/caller")
    assert who.json()["client_id"] == credentials["clientId"] and who.json()["prefix"] == PREFIX
    # Another body than the one that was signed is refused.
    other = send("PUT", url, body.replace("<b>", "<i>"))
    assert other.status_code == 403, other.text
    assert send("GET", f"{roller.url}/api/v1/jobs").status_code == 403
