"""What follows a failed attempt: every rule of the decision, and their order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience._core.backoff import Backoff
from resilience._core.retry import NO_ATTEMPTS_LEFT, Limits


def decide(attempt=1, drawn=None, retry_after=None, time_left=None, draw=0.5, jitter="none", attempts=3):
    limits = Limits(attempts, 60.0, Backoff(1.0, 10.0, 2.0, jitter))
    return limits.next_delay(attempt, drawn, retry_after, time_left, lambda: draw)


def test_the_backoff_decides_where_nothing_else_does():
    assert decide(1) == (1.0, 1.0)
    assert decide(2) == (2.0, 2.0)


def test_the_last_attempt_is_the_last():
    assert decide(3) == NO_ATTEMPTS_LEFT
    assert decide(1, attempts=1) == NO_ATTEMPTS_LEFT
    assert decide(3, retry_after=1.0, time_left=100.0) == NO_ATTEMPTS_LEFT


def test_retry_after_is_lengthened_up_to_a_tenth_and_never_shortened():
    assert decide(retry_after=20.0, draw=0.0) == (20.0, 1.0)
    assert decide(retry_after=20.0, draw=0.5) == (pytest.approx(21.0), 1.0)
    assert decide(retry_after=0.2) == (1.0, 1.0)  # the backoff's own delay is longer


def test_retry_after_may_exceed_the_cap_of_the_backoff_and_does_not_enter_it():
    delay, drawn = decide(retry_after=50.0, draw=0.0, jitter="decorrelated")
    assert delay == 50.0
    assert drawn == 1.0


def test_a_retry_after_above_the_greatest_is_not_waited_for():
    assert decide(retry_after=60.0, draw=0.0) == (60.0, 1.0)
    assert decide(retry_after=61.0) == "Retry-After of 61.0 s is longer than max_retry_after, 60.0 s"


def test_a_retry_after_longer_than_the_time_left_is_not_waited_for():
    assert decide(retry_after=5.0, time_left=5.0) == "Retry-After of 5.0 s is longer than the 5.0 s left"


def test_a_delay_that_would_not_end_in_time_is_not_begun():
    late = "the next delay of 2.0 s would not end within the 1.5 s left"
    assert decide(2, time_left=1.5) == late
    assert decide(2, time_left=2.5) == (2.0, 2.0)


def test_jitter_takes_a_retry_after_no_further_than_the_time_left():
    assert decide(retry_after=20.0, time_left=20.5, draw=0.0) == (20.0, 1.0)
    delay, _ = decide(retry_after=20.0, time_left=20.5, draw=0.9)
    assert 20.0 <= delay < 20.5


@given(
    st.integers(1, 10),
    st.one_of(st.none(), st.floats(0, 1e9)),
    st.one_of(st.none(), st.floats(-10, 1e6)),
    st.floats(0, 1, exclude_max=True),
)
def test_no_delay_ends_after_the_deadline_or_before_what_was_asked(attempt, retry_after, time_left, draw):
    verdict = decide(attempt, None, retry_after, time_left, draw, "full", attempts=5)
    if isinstance(verdict, str):
        return
    delay, drawn = verdict
    assert attempt < 5
    assert 0 <= drawn <= 10
    assert time_left is None or delay < time_left
    assert retry_after is None or retry_after <= delay <= max(retry_after * 1.1, drawn)
