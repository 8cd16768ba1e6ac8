from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience._core.throttle import Policy, Throttle

POLICY = Policy(2.0, 10.0, 0.9)


def throttle(accepted=0, rejected=0, policy=POLICY):
    made = Throttle(policy, 0.0)
    for _ in range(accepted):
        made.accepted(0.0)
    for _ in range(rejected):
        made.rejected(0.0)
    return made


@given(st.integers(0, 50), st.integers(0, 50), st.sampled_from([1.0, 1.5, 2.0, 3.0]))
def test_the_rule(accepts, rejects, ratio):
    requests = accepts + rejects
    p = max(0.0, (requests - ratio * accepts) / (requests + 1))
    made = throttle(accepts, rejects, POLICY._replace(ratio=ratio))
    assert made.probability(0.0) == pytest.approx(min(p, 0.9))
    assert made.figures(0.0)[:2] == (requests, rejects)


def test_what_is_refused_here_is_a_request_as_well():
    made = throttle(1, 5)
    before = made.probability(0.0)
    assert not made.admits(0.0, before - 0.001)
    assert made.figures(0.0)[:2] == (7, 6)
    assert made.admits(0.0, made.probability(0.0))
    assert made.figures(0.0)[:2] == (7, 6)


def test_it_is_calm_until_something_is_refused_and_a_window_after():
    made = throttle(5, 0)
    assert made.is_calm(0.0)
    made.rejected(1.0)
    assert not made.is_calm(1.0)
    assert not made.is_calm(11.0)
    assert made.is_calm(11.1)
    assert made.probability(11.1) == 0.0


def test_after_a_total_failure_it_lets_all_through_again_within_half_a_minute():
    """The figure of docs/overload.md: 100 calls a second, everything refused for 20 s, then nothing."""
    made, draw = Throttle(POLICY, 0.0), random.Random(1).random
    passed = {}
    for tick in range(6000):
        now = tick / 100
        if made.admits(now, draw()):
            (made.rejected if now < 20.0 else made.accepted)(now)
            passed[int(now)] = passed.get(int(now), 0) + 1
    assert sum(passed[second] for second in range(10, 20)) <= 0.13 * 1000
    whole = next(second for second in range(20, 60) if passed[second] >= 99)
    assert whole <= 50


def test_an_accepted_request_is_noted_without_a_lock_where_that_is_possible():
    made = throttle()
    assert made.note_accepted(0.0)
    assert not made.note_accepted(5.0)  # of another slice of the window
    made.accepted(5.0)
    assert made.figures(5.0)[:2] == (2, 0)
