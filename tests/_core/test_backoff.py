"""Delays: the schedule, the jitters, and that nothing leaves [0, max_delay]."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience._core.backoff import JITTERS, Backoff

seconds = st.floats(0, 1e308)
jitters = st.one_of(st.sampled_from(JITTERS), st.floats(0, 1, exclude_min=True))
fractions = st.floats(0, 1, exclude_max=True)


def test_the_schedule_doubles_up_to_the_cap():
    backoff = Backoff(1.0, 30.0, 2.0, "none")
    assert [backoff.delay(attempt, None, random.random) for attempt in range(1, 8)] == [
        1.0,
        2.0,
        4.0,
        8.0,
        16.0,
        30.0,
        30.0,
    ]


@pytest.mark.parametrize(
    ("jitter", "lowest", "highest"),
    [
        ("full", 0.0, 4.0),
        ("equal", 2.0, 4.0),
        ("none", 4.0, 4.0),
        (0.1, 3.6, 4.4),
        (1, 0.0, 8.0),
    ],
)
def test_jitter_draws_from_its_range(jitter, lowest, highest):
    backoff = Backoff(1.0, 30.0, 2.0, jitter)
    assert backoff.delay(3, None, lambda: 0.0) == pytest.approx(lowest)
    assert backoff.delay(3, None, lambda: 1 - 2**-53) == pytest.approx(highest)


def test_decorrelated_jitter_goes_by_the_last_delay():
    backoff = Backoff(1.0, 30.0, 2.0, "decorrelated")
    assert backoff.delay(1, None, lambda: 0.5) == 2.0  # between 1 and 3
    assert backoff.delay(2, 5.0, lambda: 0.5) == 8.0  # between 1 and 15
    assert backoff.delay(3, 25.0, lambda: 0.5) == 15.5  # between 1 and the cap


@pytest.mark.parametrize("jitter", ["full", "equal", "decorrelated", 0.1])
def test_capped_delays_are_not_all_the_cap(jitter):
    backoff = Backoff(1.0, 10.0, 2.0, jitter)
    draw = random.Random(7).random
    delays = [backoff.delay(20, 10.0, draw) for _ in range(1000)]
    assert max(delays) <= 10.0
    assert len(set(delays)) == 1000


@given(seconds, seconds, st.floats(1, 1e308), jitters, st.integers(1, 100_000), st.data())
def test_every_delay_is_finite_and_within_the_cap(initial, cap, multiplier, jitter, attempt, data):
    backoff = Backoff(initial, cap, multiplier, jitter)
    previous = data.draw(st.one_of(st.none(), st.floats(0, cap)))
    delay = backoff.delay(attempt, previous, lambda: data.draw(fractions))
    assert math.isfinite(delay)
    assert 0 <= delay <= cap


@given(seconds, seconds, st.floats(1, 1e308), st.integers(1, 5000))
def test_the_ceiling_never_falls(initial, cap, multiplier, attempt):
    backoff = Backoff(initial, cap, multiplier, "none")
    assert backoff.delay(attempt, None, random.random) <= backoff.delay(attempt + 1, None, random.random)
