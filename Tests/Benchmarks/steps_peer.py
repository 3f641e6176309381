# SPDX-License-Identifier: MPL-2.0
"""What a step service is to most who write one in Python: Flask, a pool of connections, a row for each step.

It asks nobody for a name, has no audit and tells nobody: the least that a peer of ours does.
"""

import json
import os

import flask
import psycopg2.pool

app = flask.Flask(__name__)
pool = psycopg2.pool.ThreadedConnectionPool(1, 2, os.environ["DATABASE_URL"])


def ask(sql, values, reads=True):
    connection = pool.getconn()
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(sql, values)
            return cursor.fetchone() if reads else None
    finally:
        pool.putconn(connection)


@app.get("/<uid>/status")
def status(uid):
    row = ask("select uid, state, created, parameters from peer_steps where uid = %s", (uid,))
    if row is None:
        return flask.jsonify({"detail": "unknown"}), 404
    return flask.jsonify({"uid": row[0], "state": row[1], "created": row[2].isoformat(), "parameters": row[3]})


@app.put("/<uid>")
def create(uid):
    parameters = json.dumps(flask.request.get_json())
    ask("insert into peer_steps (uid, parameters) values (%s, %s) on conflict do nothing", (uid, parameters), reads=False)
    return flask.jsonify({})


def prepare():
    """Makes the table and the step that is read."""
    ask(
        """create table if not exists peer_steps (uid text primary key, state text not null default 'running',
            created timestamptz not null default now(), parameters json not null)""",
        (),
        reads=False,
    )
    steps = [{"uid": f"s{number}", "state": "pending", "requires": []} for number in range(10)]
    ask("insert into peer_steps (uid, parameters) values ('read', %s) on conflict do nothing", (json.dumps(steps),), reads=False)


if __name__ == "__main__":
    prepare()
