"""Each rule warns of what it is about, and is silent about its mended form."""

from __future__ import annotations

from math import inf

import pytest

from resilience._core.compose import Role, Step
from resilience.pipeline.rules import RULES, Advice, Setting, advice

RETRY = Step(Role.RETRY, "'r'", attempts=3, delays=0.3, asked=132.0, limit=9.0)
BREAKER = Step(Role.BREAKER, "'b'", first_attempts=True)
ELSEWHERE = BREAKER._replace(first_attempts=False)
LIMITER = Step(Role.LIMITER, "'l'")
QUEUE = LIMITER._replace(wait=2.0)
BULKHEAD = Step(Role.BULKHEAD, "'p'")
TIMEOUT = Step(Role.TIMEOUT, "'t'", limit=2.0)
DEADLINE = Step(Role.DEADLINE, "of the call", limit=9.0)
HEDGE = Step(Role.HEDGE, "'h'", attempts=2)
FALLBACK = Step(Role.FALLBACK, "'f'")


def codes(*steps, below=1, takes=inf, interrupts=True):
    return [warning.code for warning in advice(steps, Setting(below, takes, interrupts))]


WELL = {
    "the house's order": (FALLBACK, QUEUE, RETRY, BREAKER, BULKHEAD, TIMEOUT),
    "a deadline for all": (DEADLINE, RETRY._replace(limit=inf), BREAKER, TIMEOUT),
    "a timeout around all, and one inside": (TIMEOUT._replace(limit=9.0), RETRY, BREAKER, TIMEOUT),
    "one attempt": (BULKHEAD, RETRY._replace(attempts=1, limit=inf, budgeted=False)),
    "a hedge of what may be repeated": (HEDGE, RETRY, TIMEOUT),
    "nothing": (),
}


@pytest.mark.parametrize("steps", WELL.values(), ids=WELL)
def test_what_is_well(steps):
    assert codes(*steps) == []


SURPRISES = {
    "no-deadline": [(RETRY._replace(limit=inf), TIMEOUT)],
    "endless-wait": [(QUEUE._replace(wait=inf),), (BULKHEAD._replace(wait=inf), DEADLINE)],
    "attempts-beyond-deadline": [
        (RETRY._replace(limit=5.0), TIMEOUT),
        (DEADLINE._replace(limit=6.2), RETRY, TIMEOUT),
        (TIMEOUT, RETRY, TIMEOUT),
    ],
    "no-attempt-timeout": [(RETRY, BREAKER)],
    "nested-retries": [(RETRY._replace(limit=99.0), RETRY, TIMEOUT)],
    "retry-without-budget": [(RETRY._replace(budgeted=False), TIMEOUT)],
    "hedge-without-budget": [(HEDGE._replace(budgeted=False),)],
    "breaker-outside-retry": [(ELSEWHERE, RETRY, TIMEOUT)],
    "breaker-counts-retries": [(RETRY, BULKHEAD, ELSEWHERE, TIMEOUT)],
    "breaker-inside-timeout": [(TIMEOUT, ELSEWHERE), (TIMEOUT, LIMITER, ELSEWHERE)],
    "retry-outside-waiting-limiter": [(RETRY._replace(limit=99.0), QUEUE, TIMEOUT)],
    "limiter-inside-retry": [(RETRY, LIMITER, TIMEOUT)],
    "bulkhead-outside-waiting-limiter": [(BULKHEAD, QUEUE)],
    "two-limiters": [(LIMITER, LIMITER), (LIMITER, BULKHEAD, LIMITER)],
    "bulkhead-outside-retry": [(BULKHEAD, RETRY, TIMEOUT)],
    "fallback-inside-retry": [(RETRY, FALLBACK, TIMEOUT)],
    "fallback-inside-breaker": [(ELSEWHERE, FALLBACK)],
    "hedge-of-non-idempotent": [(HEDGE, RETRY._replace(idempotent=False), TIMEOUT)],
}


@pytest.mark.parametrize(
    ("code", "steps"), [(code, steps) for code, cases in SURPRISES.items() for steps in cases]
)
def test_what_surprises(code, steps):
    assert codes(*steps) == [code]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_rule_has_a_case_and_says_why(rule):
    cases = [steps for cases in SURPRISES.values() for steps in cases]
    found = [warning for steps in cases for warning in rule(steps, Setting(3, inf, True))]
    assert found
    for warning in found:
        assert all(warning)
        assert not any(text.endswith(".") for text in warning)


def test_a_client_that_retries_below():
    assert codes(RETRY, TIMEOUT, below=3) == ["retries-below"]
    assert codes(TIMEOUT, below=3) == []


def test_a_clients_own_timeout_bounds_an_attempt():
    assert codes(RETRY, takes=2.0, interrupts=False) == []
    assert codes(RETRY, takes=4.0, interrupts=False) == ["attempts-beyond-deadline"]


def test_a_timeout_of_sync_calls_cancels_nobody():
    assert codes(TIMEOUT, ELSEWHERE, interrupts=False) == []


def test_a_breaker_that_has_a_timeout_inside_learns_of_it():
    assert codes(TIMEOUT, ELSEWHERE, TIMEOUT) == []


def test_how_many_attempts_fit():
    (warning,) = advice([RETRY._replace(limit=5.0), TIMEOUT], Setting(1, inf, True))
    assert warning.what == "3 attempts of 2 s and their delays do not fit into 5 s"
    assert warning.why == "where attempts time out, 2 at most will be made"
    (warning,) = advice([RETRY._replace(limit=0.1)], Setting(1, 2.0, True))
    assert "1 at most" in warning.why
    assert codes(RETRY._replace(limit=0.1), TIMEOUT._replace(limit=0.0)) == ["attempts-beyond-deadline"]


def test_a_warning_in_one_line():
    assert str(Advice("a", "b", "c", "d")) == "a: b. c. d."
