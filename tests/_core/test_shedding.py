from __future__ import annotations

from bisect import bisect_left
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience._core.criticality import Criticality
from resilience._core.shedding import FEWEST, MOST_KINDS, REMEMBERED, SHARES, Durations, Policy, Shedder

POLICY = Policy(workers=2, max_wait=1.0, share=0.9, window=10.0)
CRITICAL = Criticality.CRITICAL_PLUS


def known(*seconds, window=10.0, now=0.0):
    durations = Durations(window)
    for each in seconds:
        durations.add(now, each)
    return durations


def shedder(seconds=1.0, times=FEWEST, **settings):
    """Return one that knows of so many pieces of work of the kind "work"."""
    made = Shedder(POLICY._replace(**settings))
    for _ in range(times):
        made.admit("work", CRITICAL, None, 0.0)
        made.end("work", seconds, 0.0)
    return made


# --- durations -----------------------------------------------------------------------------------


def test_a_few_say_nothing():
    durations = known(*[1.0] * (FEWEST - 1))
    assert (durations.mean(0.0), durations.quantile(0.0, 0.9)) == (None, None)
    durations.add(0.0, 6.0)
    assert (durations.mean(0.0), durations.quantile(0.0, 0.9)) == (2.0, 6.0)


@given(
    st.lists(st.floats(0, 100), min_size=FEWEST, max_size=2 * REMEMBERED),
    st.sampled_from([0.1, 0.5, 0.9, 1.0]),
)
def test_a_quantile_is_enough_for_that_share_and_no_shorter_one_is(seconds, share):
    last = sorted(seconds[-REMEMBERED:])
    enough = known(*seconds).quantile(0.0, share)
    assert sum(each <= enough for each in last) >= share * len(last)
    assert bisect_left(last, enough) < ceil(share * len(last))


def test_only_the_window_counts():
    durations = known(*[1.0] * 5)
    for _ in range(5):
        durations.add(6.0, 3.0)
    assert durations.mean(10.0) == 2.0
    assert durations.mean(10.1) == 3.0
    assert durations.known(16.1) == 0


def test_what_was_counted_before_the_clock_was_set_back_is_forgotten():
    durations = known(*[9.0] * 5, now=1000.0)
    durations.add(0.0, 1.0)
    assert durations.known(0.0) == 1


# --- time left -----------------------------------------------------------------------------------


def test_work_without_a_deadline_and_of_an_unknown_kind_is_admitted():
    made = shedder(seconds=60.0)
    assert made.admit("work", CRITICAL, None, 0.0) is None
    assert made.admit("other", CRITICAL, 0.001, 0.0) is None
    assert made.pending == 2
    assert made.estimate("work", 0.0) == 60.0
    assert made.estimate("other", 0.0) is None


def test_work_that_would_not_be_done_in_time_is_refused():
    made = shedder()
    assert made.admit("work", CRITICAL, 1.0, 0.0) is None
    refusal = made.admit("work", CRITICAL, 0.999, 0.0)
    assert refusal == ("0.999 s are left, and it takes 1.000 s", None)
    assert made.pending == 1


def test_an_estimate_that_refuses_everything_lapses():
    made = shedder()
    assert made.admit("work", CRITICAL, 0.5, 10.0)
    assert made.admit("work", CRITICAL, 0.5, 10.1) is None


def test_the_wait_in_line_is_part_of_what_it_takes():
    made = shedder(max_wait=None)
    for _ in range(2):
        made.admit("work", CRITICAL, None, 0.0)
    assert made.expected_wait(0.0) == 0.5  # one of two workers will be free after that
    assert made.admit("work", CRITICAL, 1.4, 0.0)
    assert made.admit("work", CRITICAL, 1.5, 0.0) is None


def test_before_work_begins_it_is_looked_at_again():
    made = shedder()
    assert made.begin("work", CRITICAL, 0.5, 1.0, 0.0) is None
    assert made.begin("work", CRITICAL, 0.5, 0.9, 0.0)
    refusal = made.begin("work", CRITICAL, 1.25, None, 0.0)
    assert refusal.reason.startswith(
        "the wait was 1.250 s, and critical_plus work waits no longer than 1.000"
    )
    assert refusal.retry_after == 0.25


# --- the wait in line ----------------------------------------------------------------------------


def test_without_workers_nothing_is_foreseen():
    made = shedder(workers=None)
    for _ in range(100):
        assert made.admit("work", Criticality.SHEDDABLE, None, 0.0) is None
    assert made.expected_wait(0.0) == 0.0


def test_without_samples_nothing_is_foreseen():
    made = shedder(times=0)
    for _ in range(100):
        assert made.admit("work", Criticality.SHEDDABLE, None, 0.0) is None


def test_what_matters_least_is_refused_first():
    made = shedder(seconds=0.2)
    first_refused = {}
    for pending in range(30):
        made.pending = pending
        for level in Criticality:
            if made.admit("work", level, None, 0.0):
                first_refused.setdefault(level, pending)
            made.pending = pending
    assert list(SHARES.values()) == [0.25, 0.5, 0.75, 1.0]
    # A place behind another two adds 0.1 s, of which each level may wait its share of 1 s.
    assert first_refused == {
        Criticality.SHEDDABLE: 4,
        Criticality.SHEDDABLE_PLUS: 7,
        Criticality.CRITICAL: 9,
        Criticality.CRITICAL_PLUS: 12,
    }


def test_a_refusal_tells_when_it_would_fit():
    made = shedder()
    made.pending = 3
    refusal = made.admit("work", Criticality.SHEDDABLE, None, 0.0)
    assert refusal.reason == "the wait would be 1.000 s, and sheddable work waits no longer than 0.250 s"
    assert refusal.retry_after == pytest.approx(0.75)


# --- memory --------------------------------------------------------------------------------------


def test_work_that_says_nothing_is_not_remembered():
    made = shedder()
    made.admit("work", CRITICAL, None, 0.0)
    made.end("work", None, 0.0)
    assert (made.pending, made.estimate("work", 0.0)) == (0, 1.0)


def test_the_kinds_least_in_use_make_room():
    made = shedder()
    for number in range(MOST_KINDS):
        made.end(f"kind {number}", 1.0, 0.0)
        made.end("work", 1.0, 0.0)
    assert len(made._kinds) == MOST_KINDS
    assert made.estimate("work", 0.0) == 1.0
    assert "kind 0" not in made._kinds
