from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience._core.ramp import FLOOR, Ramp


@pytest.mark.parametrize(
    ("second", "share"), [(0.0, FLOOR), (0.5, FLOOR), (2.5, 0.25), (5.0, 0.5), (9.0, 0.9)]
)
def test_a_share_passes(second, share):
    ramp = Ramp(10.0, 0.0)
    passed = sum(ramp.admits(second) for _ in range(1000))
    assert passed == pytest.approx(1000 * share, abs=1.1)


def test_the_first_passes_and_no_two_of_the_first_together():
    ramp = Ramp(10.0, 0.0)
    assert [ramp.admits(0.0) for _ in range(11)].index(False) == 1


def test_it_is_over_when_its_time_is():
    ramp = Ramp(10.0, 5.0)
    assert [ramp.left(now) for now in (5.0, 10.0, 15.0, 20.0)] == [10.0, 5.0, 0.0, 0.0]
    assert all(ramp.admits(15.0) for _ in range(10))


def test_a_clock_that_is_set_back_does_not_prolong_it():
    ramp = Ramp(10.0, 1000.0)
    assert ramp.left(0.0) == 10.0
    assert ramp.left(10.0) == 0.0


@given(st.lists(st.floats(0, 1), max_size=200), st.floats(0.1, 100))
def test_at_no_moment_have_more_passed_than_were_earned(steps, seconds):
    ramp, now, earned, passed = Ramp(seconds, 0.0), 0.0, 1.0, 0
    for step in steps:
        now += step * seconds / 20
        passed += ramp.admits(now)
        assert passed <= earned + 1e-9
        earned += max(FLOOR, min(1.0, now / seconds))
        assert passed > earned - 2.001
