from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience._core.window import NOTED, SLICES, CallWindow, Figures, Streak, TimeWindow


def fail(window, now=0.0):
    window.add(now, failed=True, slow=False)


# --- failures in a row ---------------------------------------------------------------------------


def test_a_streak_counts_failures_until_a_success():
    streak = Streak()
    assert streak.last_trouble == -inf
    fail(streak, 1.0)
    fail(streak, 2.0)

    assert streak.figures(2.0) == Figures(2, 2, 0)
    assert streak.last_trouble == 2.0

    streak.succeed(3.0)

    assert streak.figures(3.0) == Figures(0, 0, 0)


def test_a_slow_success_neither_lengthens_nor_ends_a_streak():
    streak = Streak()
    fail(streak)
    streak.add(0.0, failed=False, slow=True)

    assert streak.figures(0.0).failures == 1


@pytest.mark.parametrize("window", [Streak(), CallWindow(3)])
def test_only_a_time_window_takes_notes(window):
    assert not window.note(0.0)


def test_a_success_matters_to_a_streak_only_after_a_failure():
    streak = Streak()
    assert not streak.success_matters

    fail(streak)
    assert streak.success_matters

    streak.succeed(0.0)
    assert not streak.success_matters


# --- seconds -------------------------------------------------------------------------------------


def test_a_time_window_counts_what_happened():
    window = TimeWindow(10.0, 100.0)
    window.succeed(100.0)
    window.add(100.5, failed=True, slow=False)
    window.add(101.5, failed=False, slow=True)
    window.add(102.5, failed=True, slow=True)

    assert window.figures(102.5) == Figures(4, 2, 2)
    assert window.last_trouble == 102.5
    assert window.success_matters


def test_a_call_leaves_the_time_window_with_its_slice():
    window = TimeWindow(10.0, 0.0)
    fail(window, 0.5)
    fail(window, 1.0)

    assert window.figures(9.99).failures == 2
    assert window.figures(10.0).failures == 1  # the slice from 0 to 1 has left
    assert window.figures(11.0).failures == 0


@pytest.mark.parametrize("pause", [11.0, 3600.0, 1e15])
def test_a_long_pause_empties_the_time_window(pause):
    window = TimeWindow(10.0, 0.0)
    for _ in range(5):
        fail(window, 0.5)

    assert window.figures(pause) == Figures(0, 0, 0)

    fail(window, pause)

    assert window.figures(pause) == Figures(1, 1, 0)


def test_readings_that_raced_for_the_lock_are_counted_in_the_newest_slice():
    window = TimeWindow(10.0, 0.0)
    fail(window, 5.0)
    for _ in range(100):
        fail(window, 4.999)
        window.succeed(5.001)

    assert window.figures(5.0) == Figures(201, 101, 0)
    assert window.figures(14.9).failures == 101  # no slice was turned by the race
    assert window.figures(15.0).failures == 0


def test_after_a_clock_was_set_back_counting_goes_on_and_the_past_still_leaves():
    window = TimeWindow(10.0, 5000.0)
    fail(window, 5000.0)
    fail(window, 1400.0)  # an hour earlier

    assert window.figures(1400.0).failures == 2
    assert window.figures(1410.0).failures == 0


@given(
    st.lists(
        st.tuples(st.floats(0, 4), st.booleans(), st.booleans()),
        max_size=60,
    )
)
def test_the_time_window_holds_nine_to_ten_tenths_of_its_seconds(calls):
    window = TimeWindow(10.0, 0.0)
    now = 0.0
    kept = []
    for pause, failed, slow in calls:
        now += pause
        if failed or slow:
            window.add(now, failed=failed, slow=slow)
        else:
            window.succeed(now)
        kept.append((now, failed, slow))

        def figures(younger_than, kept=kept, now=now):
            chosen = [call for call in kept if now - call[0] < younger_than]
            return len(chosen), sum(call[1] for call in chosen), sum(call[2] for call in chosen)

        least, most = figures(9.0 - 1e-9), figures(10.0 + 1e-9)
        found = window.figures(now)
        assert all(low <= is_ <= high for low, is_, high in zip(least, found, most, strict=True))


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.booleans()), max_size=60))
def test_no_clock_corrupts_the_time_window(calls):
    window = TimeWindow(10.0, 0.0)
    for now, failed in calls:
        window.add(now, failed=failed, slow=False)
        counted, failures, slow = window.figures(now)
        assert 1 <= counted <= len(calls)
        assert failed <= failures <= counted
        assert slow == 0
    # Whatever came before: a window's time and a slice later, by the same clock, it is empty.
    if calls:
        assert window.figures(calls[-1][0] + 11.0) == Figures(0, 0, 0)


def test_a_time_window_keeps_a_bounded_number_of_notes():
    window = TimeWindow(1.0, 0.0)
    for step in range(1000):
        window.succeed(step * 0.07)

    assert len(window._notes) == SLICES


def test_successes_are_noted_without_a_lock_and_taken_with_the_next_look():
    window = TimeWindow(10.0, 0.0)

    assert all(window.note(0.5) for _ in range(NOTED))
    assert not window.note(0.5)  # enough: somebody has to take them
    window.succeed(0.5)
    assert window.note(0.5)

    assert window.figures(0.5) == Figures(NOTED + 2, 0, 0)


def test_outside_the_present_slice_nothing_is_noted():
    window = TimeWindow(10.0, 0.0)

    assert not window.note(1.0)
    assert not window.note(-1.5)


def test_what_was_noted_belongs_to_the_slice_that_ended():
    window = TimeWindow(10.0, 0.0)
    window.note(0.5)
    window.succeed(5.0)

    assert window.figures(9.9).calls == 2
    assert window.figures(10.0).calls == 1


# --- calls ---------------------------------------------------------------------------------------


def test_a_call_window_holds_the_last_calls():
    window = CallWindow(3)
    fail(window, 1.0)
    window.add(2.0, failed=False, slow=True)
    window.add(3.0, failed=True, slow=True)
    assert window.figures(3.0) == Figures(3, 2, 2)
    assert window.last_trouble == 3.0

    window.succeed(4.0)

    assert window.figures(4.0) == Figures(3, 1, 2)


def test_a_success_matters_to_a_call_window_until_it_is_full_of_them():
    window = CallWindow(2)
    assert window.success_matters
    window.succeed(0.0)
    assert window.success_matters
    window.succeed(0.0)
    assert not window.success_matters
    window.add(0.0, failed=False, slow=True)
    assert window.success_matters


@given(st.integers(1, 7), st.lists(st.tuples(st.booleans(), st.booleans()), max_size=40))
def test_the_call_window_agrees_with_a_list(size, calls):
    window = CallWindow(size)
    for number, (failed, slow) in enumerate(calls, 1):
        if failed or slow:
            window.add(0.0, failed=failed, slow=slow)
        else:
            window.succeed(0.0)
        last = calls[max(0, number - size) : number]
        assert window.figures(0.0) == (len(last), sum(c[0] for c in last), sum(c[1] for c in last))
        unchanged = len(last) == size and not any(c[0] or c[1] for c in last)
        assert window.success_matters is not unchanged
