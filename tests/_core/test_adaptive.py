from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience._core.adaptive import Aimd, Verdict

SERVED, DROPPED, NEUTRAL = Verdict


def aimd(limit=10.0, minimum=1, maximum=100, cut=0.5):
    return Aimd(limit, minimum, maximum, cut)


def filled(limit):
    """Let in all that are let in; return their generations."""
    return [limit.admit() for _ in range(limit.calls)]


def test_as_many_are_let_in_as_the_limit_says():
    limit = aimd(3.9)
    assert [limit.admit() for _ in range(5)] == [1, 1, 1, None, None]
    limit.settle(1, NEUTRAL)
    assert limit.admit() == 1


def test_the_drops_of_one_round_trip_cut_it_once():
    limit = aimd()
    generations = filled(limit)
    for generation in generations:
        limit.settle(generation, DROPPED)
    assert (limit.limit, limit.generation, limit.in_flight) == (5.0, 2, 0)
    limit.settle(limit.admit(), DROPPED)
    assert limit.limit == 2.5


def test_it_never_falls_below_its_minimum():
    limit = aimd(minimum=3)
    for _ in range(10):
        limit.settle(limit.admit(), DROPPED)
    assert limit.limit == 3.0


def test_a_round_trip_of_successes_adds_one():
    limit = aimd()
    for generation in filled(limit):
        limit.settle(generation, SERVED)
        limit.admit()
    assert limit.limit == pytest.approx(11.0, abs=0.05)


def test_it_never_exceeds_its_maximum():
    limit = aimd(maximum=10)
    limit.settle(filled(limit)[0], SERVED)
    assert limit.limit == 10.0


def test_a_limit_that_nobody_comes_near_is_not_raised():
    limit = aimd()
    for _ in range(4):
        limit.admit()
    for _ in range(4):
        limit.settle(1, SERVED)
    assert limit.limit == 10.0
    for _ in range(5):
        limit.admit()
    limit.settle(1, SERVED)
    assert limit.limit > 10.0


def test_a_success_from_before_the_cut_says_nothing():
    limit = aimd()
    late, dropped = limit.admit(), limit.admit()
    limit.settle(dropped, DROPPED)
    for _ in range(5):
        limit.admit()
    limit.settle(late, SERVED)
    assert limit.limit == 5.0


def test_a_neutral_outcome_says_nothing():
    limit = aimd()
    for generation in filled(limit):
        limit.settle(generation, NEUTRAL)
    assert (limit.limit, limit.in_flight) == (10.0, 0)


def test_afresh_it_knows_the_same():
    limit = aimd(4.0)
    limit.settle(limit.admit(), DROPPED)
    filled(limit)
    fresh = limit.afresh()
    assert (fresh.limit, fresh.in_flight, fresh.admit()) == (2.0, 0, 1)
    for _ in range(3):
        fresh.settle(fresh.generation, DROPPED)
    assert fresh.limit == 1.0


@given(st.lists(st.sampled_from([None, *Verdict])), st.integers(1, 5), st.integers(0, 10))
def test_whatever_comes_it_stays_in_its_bounds_and_counts_right(events, minimum, more):
    limit = aimd(float(minimum), minimum, minimum + more, 0.5)
    flying = []
    for event in events:
        if event is None:
            generation = limit.admit()
            assert (generation is None) == (len(flying) >= limit.calls)
            flying += [] if generation is None else [generation]
        elif flying:
            limit.settle(flying.pop(0), event)
        assert minimum <= limit.limit <= minimum + more
        assert limit.in_flight == len(flying)
