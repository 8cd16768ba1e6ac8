from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from resilience._core.schedule import Bounds, Schedule, Tally, first_delay, next_delay

seconds = st.floats(0.001, 1e6)
chance = st.floats(0, 1, exclude_max=True)


def test_the_wait_is_until_the_sooner_of_the_two():
    schedule = Schedule(sweep_at=100.0, read_at=60.0)

    assert schedule.wait(50.0) == 10.0
    assert schedule._replace(read_at=160.0).wait(50.0) == 50.0


def test_what_is_overdue_is_waited_for_no_longer():
    assert Schedule(sweep_at=100.0, read_at=60.0).wait(3700.0) == 0.0


def test_no_wait_is_longer_than_a_thread_can_wait():
    assert Schedule(sweep_at=1e300, read_at=1e300).wait(50.0) == 86_400.0


@given(seconds, chance)
def test_the_first_sweep_falls_into_the_first_interval(interval, drawn):
    assert 0 <= first_delay(interval, lambda: drawn) < interval


@given(seconds, st.floats(0, 1), chance)
def test_later_sweeps_stay_within_the_jitter(interval, jitter, drawn):
    delay = next_delay(interval, jitter, lambda: drawn)

    assert interval * (1 - jitter) <= delay <= interval * (1 + jitter)


def test_without_jitter_the_interval_is_exact():
    assert next_delay(1800.0, 0.0, lambda: 0.9) == 1800.0


def test_a_tally_is_complete_once_a_batch_comes_back_short():
    full = Tally().after(limit=5, deleted=5)

    assert full == Tally(5, complete=False)
    assert full.after(limit=5, deleted=4) == Tally(9, complete=True)


def test_a_sweep_ends_when_nothing_is_left_or_its_time_is_up():
    bounds = Bounds(batch=5, max_rows=12, max_seconds=2.0)

    assert bounds.next_batch(Tally(), 0.0) == 5
    assert bounds.next_batch(Tally(5, complete=True), 0.0) == 0
    assert bounds.next_batch(Tally(5), 1.999) == 5
    assert bounds.next_batch(Tally(5), 2.0) == 0


@given(st.integers(1, 50), st.integers(1, 200), st.integers(0, 300))
def test_a_sweep_never_deletes_more_rows_than_it_may(batch, max_rows, expired):
    bounds, tally, left = Bounds(batch, max_rows, 60.0), Tally(), expired
    while limit := bounds.next_batch(tally, 0.0):
        assert limit <= batch
        deleted = min(limit, left)
        left -= deleted
        tally = tally.after(limit, deleted)

    assert tally.cleaned == min(expired, max_rows)
    assert not tally.complete or left == 0


def test_the_next_check_of_sockets_is_waited_for_too():
    assert Schedule(sweep_at=100.0, read_at=60.0, check_at=55.0).wait(50.0) == 5.0


def test_a_sweep_that_was_left_to_another_is_over_and_not_complete():
    tally = Tally(5).after(limit=5, deleted=None)

    assert (tally.cleaned, tally.complete, tally.over) == (5, False, True)
    assert Bounds(batch=5, max_rows=12, max_seconds=2.0).next_batch(tally, 0.0) == 0
