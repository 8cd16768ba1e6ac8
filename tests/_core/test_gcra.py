from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from resilience._core.gcra import Gcra
from tests._core import rules as law

LIMITS = st.integers(1, 6)
WINDOWS = st.integers(6, 200)


def test_timeline():
    rules = Gcra(6, 60)
    done, state, _ = law.run(rules, [(0, 1)] * 7 + [(10, 1), (0, 1)])
    assert [ok for _, _, ok in done] == [True] * 6 + [False, True, False]
    assert rules.remaining(state, 70) == 6


def test_edge_is_free_and_the_nanosecond_before_is_not():
    rules = Gcra(6, 60)
    state = rules.admit(None, 0, 6)
    assert rules.admit(state, 9) is None
    assert rules.admit(state, 10) is not None
    assert rules.fits_at(state, 0, 1) == 10


@given(LIMITS, WINDOWS, law.CALLS)
def test_never_more_than_a_token_bucket_holds_and_exactly_that_where_nothing_is_rounded(limit, window, calls):
    exact = window % limit == 0
    tokens, last = Fraction(limit), 0
    for now, cost, admitted in law.run(Gcra(limit, window), calls)[0]:
        tokens = min(Fraction(limit), tokens + Fraction(limit, window) * (now - last))
        last = now
        assert admitted == (cost <= tokens) if exact else not admitted or cost <= tokens
        tokens -= cost * admitted


@given(LIMITS, WINDOWS, law.CALLS)
def test_figures(limit, window, calls):
    law.check_figures(Gcra(limit, window), limit, calls)


@given(LIMITS, WINDOWS)
def test_unused(limit, window):
    law.check_unused(Gcra(limit, window), limit)


@given(LIMITS, WINDOWS, law.CALLS)
def test_one_unit(limit, window, calls):
    law.check_one(Gcra(limit, window), calls)


@given(LIMITS, WINDOWS, law.CALLS)
def test_packed(limit, window, calls):
    law.check_packed(Gcra(limit, window), calls)


@given(LIMITS, WINDOWS, law.CALLS, st.integers(1, 3))
def test_refund(limit, window, calls, cost):
    law.check_refund(Gcra(limit, window), limit, calls, cost)


def test_refund_gives_back_only_what_has_not_been_earned_back():
    rules = Gcra(6, 60)
    first = rules.admit(None, 0)
    second = rules.admit(first, 5)
    assert rules.whole_at(second, 5) == 20
    # Of the first unit, which is earned back at 10, a half is left at 5.
    assert rules.whole_at(rules.refund(second, 5, 1, rules.receipt(first)), 5) == 15
    assert rules.refund(second, 10, 1, rules.receipt(first)) == second


@given(LIMITS, WINDOWS, law.CALLS, st.lists(st.integers(0, 30), max_size=60))
def test_clock_set_back(limit, window, calls, steps):
    # Over one window it admits up to what was saved and what is earned, whatever the clock does.
    law.check_clock_set_back(Gcra(limit, window), 2 * limit, window, calls, steps)
