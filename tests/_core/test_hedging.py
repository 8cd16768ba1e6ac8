"""The percentile of recent latencies, against one that is worked out anew each time."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience._core.hedging import Latencies

steps = st.lists(st.tuples(st.floats(0, 5), st.sampled_from([0.001, 0.002, 0.01, 0.5, 3.0])), max_size=60)


def filled(*seconds, share=0.5, window=60.0, minimum=1, most=1000):
    latencies = Latencies(share, window, minimum, most)
    for each in seconds:
        latencies.add(each, now=0.0)
    return latencies


@given(steps, st.sampled_from([0.01, 0.5, 0.9, 0.95, 0.999]), st.integers(1, 5), st.integers(5, 20))
def test_it_is_the_least_that_so_many_do_not_exceed_of_those_that_count(steps, share, minimum, most):
    latencies = Latencies(share, window=10.0, minimum=minimum, most=most)
    now, kept = 0.0, []
    for elapsed, seconds in steps:
        now += elapsed
        latencies.add(seconds, now)
        kept = [(at, each) for at, each in [*kept, (now, seconds)] if at > now - 10.0][-most:]
        told = latencies.percentile(now)
        assert len(latencies) == len(kept) <= most
        if len(kept) < minimum:
            assert told is None
            continue
        lengths = sorted(each for _, each in kept)
        enough = [
            each for each in lengths if Fraction(sum(other <= each for other in lengths)) >= share * len(kept)
        ]
        assert told == enough[0]


def test_too_few_tell_nothing():
    assert filled(1.0, 2.0, minimum=3).percentile(0.0) is None
    assert filled(1.0, 2.0, 3.0, minimum=3).percentile(0.0) == 2.0


def test_what_is_older_than_the_window_is_forgotten_and_what_is_just_as_old_too():
    latencies = filled(1.0, window=60.0)

    assert latencies.percentile(59.999) == 1.0
    assert latencies.percentile(60.0) is None
    assert len(latencies) == 0


def test_the_oldest_make_room():
    latencies = filled(9.0, 9.0, 9.0, 1.0, 1.0, 1.0, most=3)

    assert len(latencies) == 3
    assert latencies.percentile(0.0) == 1.0


def test_a_clock_that_is_set_back_ages_nothing_and_loses_nothing():
    latencies = filled(1.0)
    latencies.add(2.0, now=-3600.0)

    assert len(latencies) == 2
    assert latencies.percentile(59.0) == 1.0
    assert latencies.percentile(60.0) is None


@pytest.mark.parametrize("given_up_after", [0.02, 3600.0])
def test_how_long_a_call_would_have_taken_that_was_given_up_makes_no_difference(given_up_after):
    assert filled(*[0.01] * 95, *[given_up_after] * 5, share=0.95).percentile(0.0) == 0.01
