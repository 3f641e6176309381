# SPDX-License-Identifier: MPL-2.0
"""The example of a step service with one thing wrong: wrong_steps.py PORT DATABASE FAULT"""

import importlib.util
import json
import pathlib
import sys

EXAMPLE = pathlib.Path(__file__).resolve().parents[2] / "services/shipit-step-check/examples/step_service.py"
specification = importlib.util.spec_from_file_location("step_service", EXAMPLE)
steps = importlib.util.module_from_spec(specification)
specification.loader.exec_module(steps)


class Created(steps.Service):
    def put(self, uid, body, query):
        super().put(uid, body, query)
        return []


class RestartsOnRepeat(steps.Service):
    def put(self, uid, body, query):
        steps.database.execute("update steps set created = ? where uid = ? and state = 'running'", [steps.now(), uid])
        return super().put(uid, body, query)


class RefusesRepeat(steps.Service):
    def put(self, uid, body, query):
        if steps.database.execute("select 1 from steps where uid = ?", [uid]).fetchone():
            raise steps.Refusal(409, "exists", "it is there already")
        return super().put(uid, body, query)


class ReplacesSilently(steps.Service):
    def put(self, uid, body, query):
        try:
            return super().put(uid, dict(body), query)
        except steps.Refusal as refusal:
            if refusal.args[0] != 409:
                raise
            text = json.dumps(body, sort_keys=True)
            steps.database.execute("update steps set definition = ? where uid = ?", [text, uid])
            return {}


class TakesAnyName(steps.Service):
    def put(self, uid, body, query):
        body.pop("uid", None)
        return super().put(uid, body, query)


class PlainRefusals(steps.Service):
    def refuse(self, text):
        raise steps.Refusal(400, "", text)


class KnowsEverything(steps.Service):
    def status(self, uid):
        try:
            return super().status(uid)
        except steps.Refusal:
            return {"uid": uid, "status": "in_progress", "state": "running"}


class ForgetsDefinition(steps.Service):
    def row(self, uid):
        definition, *rest = super().row(uid)
        return (definition, *rest) if self.command != "GET" or self.path.endswith("status") else ({}, *rest)


class OldWords(steps.Service):
    def status(self, uid):
        return super().status(uid) | {"message": "None"}


class Contradicts(steps.Service):
    def status(self, uid):
        return super().status(uid) | {"status": "success"}


class OnePage(steps.Service):
    def list(self, query):
        return {"steps": super().list(query)["steps"]}


class DeletesAnything(steps.Service):
    def delete(self, uid, body, query):
        return super().delete(uid, body, query | {"force": "true"})


class NeverCancels(steps.Service):
    def cancel(self, uid, body, query):
        return self.status(uid)


class ComesBack(steps.Service):
    def put(self, uid, body, query):
        steps.database.execute("update steps set state = 'running', ended = null where uid = ?", [uid])
        return super().put(uid, body, query)


class KeepsNames(steps.Service):
    def delete(self, uid, body, query):
        self.row(uid)
        return {} if query.get("force") != "true" else super().delete(uid, body, query)


class IgnoresForce(steps.Service):
    def delete(self, uid, body, query):
        return super().delete(uid, body, {})


class SucceedsQuietly(steps.Service):
    def status(self, uid):
        found = super().status(uid)
        found.pop("completed", None)
        return found


# The fault, and the rules that have to notice it.
FAULTS = {
    Created: {"create"},
    RestartsOnRepeat: {"repeat"},
    RefusesRepeat: {"repeat", "race", "final"},
    ReplacesSilently: {"differ"},
    TakesAnyName: {"names"},
    PlainRefusals: {"names", "bodies", "list"},
    KnowsEverything: {"unknown", "bodies", "delete", "force"},
    ForgetsDefinition: {"definition", "differ"},
    OldWords: {"status", "succeed"},
    Contradicts: {"status", "keep", "delete"},
    OnePage: {"list"},
    DeletesAnything: {"keep"},
    NeverCancels: {"status", "cancel", "final", "delete", "succeed"},
    ComesBack: {"final"},
    KeepsNames: {"keep", "delete"},
    IgnoresForce: {"force"},
    SucceedsQuietly: {"succeed"},
}

if __name__ == "__main__":
    by_name = {fault.__name__: fault for fault in FAULTS}
    steps.serve(int(sys.argv[1]), sys.argv[2], by_name[sys.argv[3]])
