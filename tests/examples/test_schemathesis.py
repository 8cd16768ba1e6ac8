"""What the OpenAPI document allows, and what it does not, is sent to both shells; the answers are as it says.

schemathesis makes the requests of the document, seeded, and holds the answers against it: no 500, no status,
media type, header or body that is not in it, nothing taken that it forbids, and nothing open that needs a
login. In front of the limits each request comes from an address, and each some dozen from a user, of its own.
"""

from __future__ import annotations

import contextlib
import itertools

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from examples.backend.api import ROUTES
from examples.backend.api.http import Access
from examples.backend.api.openapi import document
from tests.examples.backend_process import PATIENCE, SHELLS, fresh_address, fresh_sid, logged_in

EXAMPLES = 10
"""Requests of each kind for each operation."""
ALLOWANCE = 80
"""Requests of one user; the API's limit is 100."""
ENDLESS = {"GET /api/live/events"}
"""A stream that is read until its end would be read for five minutes; test_live_blackbox.py reads it."""
LOG_OUT = {"POST /api/auth/logout", "POST /api/auth/logout-everywhere"}

schema = schemathesis.openapi.from_dict(document(ROUTES, ""))
OPERATIONS = {found.ok().label: found.ok() for found in schema.get_all_operations()}
ACCESS = {f"{route.method} {route.path}": route.access for route in ROUTES}
TRIED = sorted(OPERATIONS.keys() - ENDLESS)
WITH_INPUT = [
    label
    for label in TRIED
    if OPERATIONS[label].body or OPERATIONS[label].query or OPERATIONS[label].path_parameters
]
OF_CALLS = [label for label in TRIED if "{call_sid}" in label]
NOT_SAID = [positive_data_acceptance]
"""No schema can say that a code is right, that a cursor is ours, or that a password is common. So what
it allows may be refused all the same, as documented."""


@pytest.fixture(scope="module", params=SHELLS)
def asked(request, backends):
    """A backend, and what lends sessions on it."""
    server = backends(request.param)
    with contextlib.ExitStack() as stack:
        yield Asked(server, stack)
    server.mend()


class Asked:
    """A backend, with users who each ask no more than they may."""

    def __init__(self, server, stack):
        self.server = server
        self._stack = stack
        self._turns = iter(())

    def headers(self, label):
        """Return what to send with the next request of an operation."""
        if ACCESS[label] is Access.OPERATOR:
            return {}  # from this machine
        headers = {"X-Forwarded-For": fresh_address()}
        if ACCESS[label] is not Access.ANYBODY:
            headers["Authorization"] = self._authorization(label)
        return headers

    def user(self):
        """Return a new user's client."""
        return self._stack.enter_context(logged_in(self.server))

    def _authorization(self, label):
        if label in LOG_OUT:
            return self.user().headers["Authorization"]
        with contextlib.suppress(StopIteration):
            return next(self._turns)
        self._turns = itertools.repeat(self.user().headers["Authorization"], ALLOWANCE)
        return next(self._turns)


def try_out(asked, label, mode, examples=EXAMPLES, **fixed):
    """Send so many requests of an operation, and check the answers."""

    @settings(
        max_examples=1 if label in LOG_OUT else examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=OPERATIONS[label].as_strategy(mode, **fixed))
    def send(case):
        headers = asked.headers(label)
        case.call_and_validate(asked.server.url, headers=headers, excluded_checks=NOT_SAID, timeout=PATIENCE)

    send()


@pytest.mark.parametrize("label", TRIED)
def test_what_is_allowed_is_answered_as_documented(asked, label):
    try_out(asked, label, GenerationMode.POSITIVE)


@pytest.mark.parametrize("label", WITH_INPUT)
def test_what_is_not_allowed_is_refused_as_documented(asked, label):
    try_out(asked, label, GenerationMode.NEGATIVE)


@pytest.mark.parametrize("label", OF_CALLS)
def test_a_recording_that_is_there_is_answered_as_documented(asked, label):
    user, sid = asked.user(), fresh_sid()
    assert user.get(f"/api/recordings/{sid}").status_code == 200
    try_out(asked, label, GenerationMode.POSITIVE, 2, path_parameters={"call_sid": sid})
