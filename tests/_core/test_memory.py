from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from resilience._core.memory import alarming, slope


def test_there_is_no_slope_without_two_instants():
    assert slope([]) == 0.0
    assert slope([(5.0, 100)]) == 0.0
    assert slope([(5.0, 100), (5.0, 900)]) == 0.0


@given(st.integers(-1000, 1000), st.integers(0, 10**9), st.sets(st.integers(0, 10**4), min_size=2))
def test_the_slope_of_a_line_is_its_own(rate, start, instants):
    points = [(float(at), start + rate * at) for at in instants]

    assert slope(points) == pytest.approx(rate, abs=1e-3)


@given(st.lists(st.tuples(st.floats(0, 1e4), st.integers(0, 10**9)), min_size=2))
def test_the_slope_does_not_depend_on_when_time_began(points):
    assume(len({round(at, 3) for at, _ in points}) > 1)
    later = [(at + 1e6, size) for at, size in points]

    assert slope(later) == pytest.approx(slope(points), rel=1e-3, abs=1e-3)


def test_the_alarm_begins_above_one_threshold_and_ends_below_another():
    shares = [0.79, 0.80, 0.81, 0.79, 0.75, 0.74, 0.79, 0.81]
    states, alarmed = [], False
    for share in shares:
        alarmed = alarming(share, alarmed, above=0.8, below=0.75)
        states.append(alarmed)

    assert states == [False, False, True, True, True, False, False, True]
