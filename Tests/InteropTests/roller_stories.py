# SPDX-License-Identifier: MPL-2.0
"""Stories: what happens to machines of a lab, side by side, since most of it is waiting; tests judge the outcomes."""

import concurrent.futures

import pytest
import roller_lab


class Stories(dict):
    """The stories of one file: `@story` registers one, the fixture runs them all."""

    def __call__(self, function):
        self[function.__name__] = function
        return function

    def fixture(self):
        """The fixture `outcome` of the file: it answers what came of a story."""

        @pytest.fixture(scope="module")
        def outcome():
            reason = roller_lab.missing()
            if reason:
                pytest.skip(f"no lab: {reason}")
            lab = roller_lab.Lab()
            stories = Scenarios(self, lab)
            try:
                yield stories.outcome
            finally:
                stories.close()
                lab.close()

        return outcome


class Scenarios:
    """Runs independent stories side by side, so that their waits overlap; a test asks for the outcome of one."""

    def __init__(self, stories, argument, width=6):
        self.pool = concurrent.futures.ThreadPoolExecutor(width)
        self.futures = {name: self.pool.submit(story, argument) for name, story in stories.items()}

    def outcome(self, name):
        return self.futures[name].result(timeout=900)

    def close(self):
        for future in self.futures.values():
            future.cancel()
        self.pool.shutdown(wait=True)


def methods(answer):
    """What was tried, and how each attempt ended."""
    return [(attempt["method"], attempt.get("outcome")) for attempt in answer["attempts"]]
