"""Bounds: attempts multiply, seconds add up, limits cap."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience._core.backoff import Backoff
from resilience._core.compose import Role, Step, Worst, delays_of, worst
from resilience._core.retry import Limits

CALL = Worst(1, 2.0)


def at_worst(*steps, call=CALL, interrupts=True, asked=False):
    return tuple(worst(steps, call, interrupts=interrupts, asked=asked))


def test_nothing_around_a_call_adds_nothing():
    assert at_worst() == (1, 2.0)


def test_attempts_multiply_and_seconds_add_up():
    retry = Step(Role.RETRY, attempts=3, delays=1.0)
    assert at_worst(retry) == (3, 7.0)
    assert at_worst(retry, retry) == (9, 22.0)
    assert at_worst(retry, call=Worst(4, 2.0)) == (12, 7.0)


def test_what_waits_outside_waits_once_and_inside_each_time():
    limiter, retry = Step(Role.LIMITER, wait=5.0), Step(Role.RETRY, attempts=3)
    assert at_worst(limiter, retry) == (3, 11.0)
    assert at_worst(retry, limiter) == (3, 21.0)


def test_the_longest_delays_are_those_that_are_asked_for():
    retry = Step(Role.RETRY, attempts=2, delays=1.0, asked=66.0)
    assert at_worst(retry, asked=True) == (2, 70.0)
    assert at_worst(retry._replace(asked=0.5), asked=True) == (2, 5.0)


def test_a_limit_caps_what_is_inside_it():
    retry = Step(Role.RETRY, attempts=3, delays=1.0, limit=5.0)
    assert at_worst(retry) == (3, 5.0)
    assert at_worst(Step(Role.LIMITER, wait=1.0), retry) == (3, 6.0)
    assert at_worst(Step(Role.TIMEOUT, limit=4.0), Step(Role.LIMITER, wait=9.0)) == (1, 4.0)


def test_a_step_waits_outside_its_own_limit_but_inside_a_deadline():
    assert at_worst(Step(Role.BULKHEAD, wait=9.0, limit=1.0)) == (1, 10.0)
    assert at_worst(Step(Role.DEADLINE, limit=4.0), Step(Role.BULKHEAD, wait=9.0)) == (1, 4.0)


def test_what_cannot_be_ended_goes_on_for_one_more_call():
    assert at_worst(Step(Role.TIMEOUT, limit=3.0), Step(Role.RETRY, attempts=9), interrupts=False) == (9, 5.0)
    assert at_worst(Step(Role.DEADLINE, limit=3.0), Step(Role.RETRY, attempts=9), interrupts=False) == (
        9,
        5.0,
    )


def test_an_unbounded_call_is_bounded_by_limits_only():
    endless = Worst(1, inf)
    assert at_worst(call=endless) == (1, inf)
    assert at_worst(Step(Role.TIMEOUT, limit=3.0), call=endless) == (1, 3.0)
    assert at_worst(Step(Role.TIMEOUT, limit=3.0), call=endless, interrupts=False) == (1, 3.0)


def test_hedges_run_side_by_side():
    assert at_worst(Step(Role.HEDGE, attempts=3, delays=1.0)) == (3, 3.0)
    assert at_worst(Step(Role.HEDGE, attempts=3, delays=inf)) == (3, 6.0)


@pytest.mark.parametrize(
    ("jitter", "by_backoff"),
    [("none", 3.0), ("full", 3.0), ("equal", 3.0), (0.5, 4.5), ("decorrelated", 3.0 + 9.0)],
)
def test_delays(jitter, by_backoff):
    limits = Limits(3, 0.0, Backoff(1.0, 100.0, 2.0, jitter))
    assert delays_of(limits) == (by_backoff, by_backoff)


def test_one_attempt_has_no_delays():
    assert delays_of(Limits(1, 60.0, Backoff(1.0, 100.0, 2.0, "full"))) == (0.0, 0.0)


@given(
    attempts=st.integers(1, 8),
    initial=st.floats(0, 10),
    longest=st.floats(0, 20),
    multiplier=st.floats(1, 4),
    jitter=st.sampled_from(["none", "full", "equal", "decorrelated", 0.1, 1.0]),
    draws=st.lists(st.floats(0, 1, exclude_max=True), min_size=16, max_size=16),
    asks=st.floats(0, 30),
)
def test_no_call_waits_for_longer(attempts, initial, longest, multiplier, jitter, draws, asks):
    limits = Limits(attempts, 20.0, Backoff(initial, longest, multiplier, jitter))
    by_backoff, asked = delays_of(limits)
    draw = iter(draws)
    for retry_after, bound in ((None, by_backoff), (asks, asked)):
        total, drawn = 0.0, None
        for attempt in range(1, attempts):
            verdict = limits.next_delay(attempt, drawn, retry_after, None, lambda: next(draw, 0.5))
            if isinstance(verdict, str):
                break
            delay, drawn = verdict
            total += delay
        assert total <= bound * (1 + 1e-12)
