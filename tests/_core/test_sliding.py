from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience._core.sliding import EXACT_UP_TO, SlidingCounts, SlidingLog
from tests._core import rules as law

LIMITS = st.integers(1, 6)
WINDOWS = st.integers(1, 500)
BOTH = st.sampled_from([SlidingLog, SlidingCounts])


def test_timeline():
    rules = SlidingLog(6, 60)
    done, _, _ = law.run(rules, [(0, 1), (59, 5), (0, 1), (1, 1), (0, 1), (58, 5), (1, 5)])
    assert [ok for _, _, ok in done] == [True, True, False, True, False, False, True]


@pytest.mark.parametrize("kind", [SlidingLog, SlidingCounts])
def test_edge_is_free_and_the_nanosecond_before_is_not(kind):
    rules = kind(6, 630)
    state = rules.admit(None, 0, 6)
    lapse = rules.horizon if kind is SlidingCounts else 630
    assert rules.admit(state, lapse - 1) is None
    assert rules.admit(state, lapse) is not None
    assert rules.fits_at(state, 0, 1) == lapse


@given(LIMITS, WINDOWS, law.CALLS)
def test_log_admits_exactly_what_fits(limit, window, calls):
    admitted_before = []
    for now, cost, admitted in law.run(SlidingLog(limit, window), calls)[0]:
        counting = sum(c for at, c in admitted_before if at + window > now)
        assert admitted == (counting + cost <= limit)
        if admitted:
            admitted_before.append((now, cost))


@given(LIMITS, WINDOWS, law.CALLS)
def test_counts_never_admit_more_and_refuse_at_most_one_part_longer(limit, window, calls):
    rules = SlidingCounts(limit, window)
    part = -(-window // 63)
    done = law.run(rules, calls)[0]
    assert law.busiest(done, window) <= limit
    admitted_before = []
    for now, cost, admitted in done:
        if not admitted:
            counting = sum(c for at, c in admitted_before if at + window + part > now)
            assert counting + cost > limit
        else:
            admitted_before.append((now, cost))


@given(st.integers(65, 200), st.integers(63, 2000), st.lists(st.integers(0, 40), max_size=400))
def test_counts_keep_at_most_64_parts(limit, window, gaps):
    rules = SlidingCounts(limit, window)
    _, state, _ = law.run(rules, [(gap, 1) for gap in gaps])
    assert state is None or (len(rules.pack(state)) - 8) // 16 <= 64


def test_counts_refuse_in_a_new_part_what_does_not_fit():
    rules = SlidingCounts(6, 630)
    full = rules.admit(None, 0, 6)
    assert rules.admit(full, 5) is rules.admit(full, 300) is None
    assert rules.admit_one()(full, 300) is None


def test_counts_go_on_in_the_newest_part_after_an_old_one_lapsed():
    rules = SlidingCounts(6, 65)  # parts of 2, so those before lapse in the middle of a part
    state = rules.admit(rules.admit(None, 0, 5), 66)
    assert rules.remaining(state, 66) == 0
    assert rules.remaining(state, 67) == 5
    after = rules.admit(state, 67, 2)
    assert rules.remaining(after, 67) == 3
    assert rules.whole_at(after, 67) == rules.whole_at(state, 66)


def test_log_is_bounded():
    _, state, _ = law.run(SlidingLog(EXACT_UP_TO, 100), [(1, 1)] * 1000)
    assert len(state) == 8 * EXACT_UP_TO


@given(BOTH, LIMITS, WINDOWS, law.CALLS)
def test_figures(kind, limit, window, calls):
    law.check_figures(kind(limit, window), limit, calls)


@given(BOTH, LIMITS, WINDOWS)
def test_unused(kind, limit, window):
    law.check_unused(kind(limit, window), limit)


@given(BOTH, LIMITS, WINDOWS, law.CALLS)
def test_one_unit(kind, limit, window, calls):
    law.check_one(kind(limit, window), calls)


@given(BOTH, LIMITS, WINDOWS, law.CALLS)
def test_packed(kind, limit, window, calls):
    law.check_packed(kind(limit, window), calls)


@given(BOTH, LIMITS, WINDOWS, law.CALLS, st.integers(1, 3))
def test_refund(kind, limit, window, calls, cost):
    law.check_refund(kind(limit, window), limit, calls, cost)


@pytest.mark.parametrize("kind", [SlidingLog, SlidingCounts])
def test_refund_twice_or_of_what_has_lapsed_gives_nothing(kind):
    rules = kind(6, 630)
    first = rules.admit(None, 0)
    second = rules.admit(first, 100, 2)
    without = rules.refund(second, 100, 1, rules.receipt(first))
    assert rules.remaining(without, 100) == 4
    assert rules.refund(without, 100, 1, rules.receipt(first)) == without
    assert rules.remaining(rules.refund(second, 700, 1, rules.receipt(first)), 700) == 4


@given(BOTH, LIMITS, WINDOWS, law.CALLS, st.lists(st.integers(0, 30), max_size=60))
def test_clock_set_back(kind, limit, window, calls, steps):
    law.check_clock_set_back(kind(limit, window), limit, window, calls, steps)
