from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from resilience._core.fixed import FixedWindow
from tests._core import rules as law

LIMITS = st.integers(1, 6)
WINDOWS = st.integers(6, 200)


def test_timeline():
    rules = FixedWindow(6, 60)
    done, _, _ = law.run(rules, [(0, 1), (59, 5), (0, 1), (1, 6), (0, 1)])
    assert [ok for _, _, ok in done] == [True, True, False, True, False]


def test_edge_is_free_and_the_nanosecond_before_is_not():
    rules = FixedWindow(6, 60)
    state = rules.admit(None, 0, 6)
    assert rules.admit(state, 59) is None
    assert rules.admit(state, 60) is not None
    assert rules.fits_at(state, 0, 1) == 60


@given(LIMITS, WINDOWS, law.CALLS)
def test_counts_from_the_first_unit_of_a_window(limit, window, calls):
    begun, taken = None, 0
    for now, cost, admitted in law.run(FixedWindow(limit, window), calls)[0]:
        if begun is None or now >= begun + window:
            begun, taken = (now, 0) if admitted else (None, 0)
        assert admitted == (taken + cost <= limit)
        taken += cost * admitted


@given(LIMITS, WINDOWS, law.CALLS)
def test_figures(limit, window, calls):
    law.check_figures(FixedWindow(limit, window), limit, calls)


@given(LIMITS, WINDOWS)
def test_unused(limit, window):
    law.check_unused(FixedWindow(limit, window), limit)


@given(LIMITS, WINDOWS, law.CALLS)
def test_one_unit(limit, window, calls):
    law.check_one(FixedWindow(limit, window), calls)


@given(LIMITS, WINDOWS, law.CALLS)
def test_packed(limit, window, calls):
    law.check_packed(FixedWindow(limit, window), calls)


@given(LIMITS, WINDOWS, law.CALLS, st.integers(1, 3))
def test_refund_leaves_the_units_of_the_others(limit, window, calls, cost):
    rules = FixedWindow(limit, window)
    _, state, now = law.run(rules, calls)
    after = rules.admit(state, now, cost)
    if after is not None:
        refunded = rules.refund(after, now, cost, rules.receipt(after))
        assert rules.remaining(refunded, now) == rules.remaining(state, now)


def test_refund_of_an_earlier_window_does_nothing():
    rules = FixedWindow(6, 60)
    first = rules.admit(None, 0)
    second = rules.admit(first, 60)
    assert rules.refund(second, 60, 1, rules.receipt(first)) == second


@given(LIMITS, WINDOWS, law.CALLS, st.lists(st.integers(0, 30), max_size=60))
def test_clock_set_back(limit, window, calls, steps):
    law.check_clock_set_back(FixedWindow(limit, window), 2 * limit, window, calls, steps)
