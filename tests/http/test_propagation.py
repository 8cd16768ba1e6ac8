"""Deadline and criticality over HTTP: what is told, what is believed, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience.criticality import Criticality, criticality, current_criticality
from resilience.deadline import deadline, remaining
from resilience.errors import DeadlinePassed
from resilience.http import propagation
from resilience.http.propagation import criticality_from, deadline_from, headers
from resilience.testing import FakeClock


@pytest.fixture
def clock():
    return FakeClock()


def granted(asked, most=30.0):
    """Return the seconds that a request gets that asks for so many."""
    with deadline_from({"X-Request-Timeout": asked}, most, clock=FakeClock()):
        return remaining()


# --- clients -------------------------------------------------------------------------------------


def test_without_a_deadline_and_of_ordinary_importance_nothing_is_told():
    assert headers() == {}
    with criticality("critical"):
        assert headers() == {}


def test_the_time_that_is_left_is_told(clock):
    with deadline(2.0, clock=clock):
        clock.advance(0.75)
        assert headers() == {"X-Request-Timeout": "1.250"}


@pytest.mark.parametrize(
    ("left", "told"),
    [(1.2349, "1.234"), (0.0009, "0.000"), (60, "60.000"), (1e18, "999999999.000"), (0.001, "0.001")],
)
def test_it_is_rounded_down_and_bounded(clock, left, told):
    with deadline(left, clock=FakeClock(start=0.0)):
        assert headers() == {"X-Request-Timeout": told}


def test_once_the_time_is_up_nothing_is_to_be_sent(clock):
    with deadline(1.0, clock=clock):
        clock.advance(1.0)
        with pytest.raises(DeadlinePassed, match="the request was not begun"):
            headers()


@pytest.mark.parametrize("level", ["critical_plus", "sheddable_plus", "sheddable"])
def test_how_much_it_matters_is_told(level):
    with criticality(level):
        assert headers() == {"X-Criticality": level}


# --- servers -------------------------------------------------------------------------------------


def test_a_request_gets_what_it_asks_for_from_the_beginning_of_the_block(clock):
    block = deadline_from([(b"x-request-timeout", b"1.5")], 30.0, clock=clock)
    clock.advance(10.0)
    with block:
        assert remaining() == 1.5
    assert remaining() is None


@pytest.mark.parametrize(
    ("asked", "seconds"), [("1.5", 1.5), (" 7 ", 7.0), ("30.001", 30.0), ("999999999", 30.0)]
)
def test_nobody_gets_more_than_the_server_gives(asked, seconds):
    assert granted(asked) == seconds


@pytest.mark.parametrize(
    "garbage",
    [
        "",
        "soon",
        "nan",
        "inf",
        "-inf",
        "1e3",
        "+1",
        "1,5",
        "1, 2",
        "1.",
        ".5",
        "0x1",
        "1_0",
        "1" * 10,
        "\u0661",
        "1s",
        "5\n6",
    ],
)
def test_what_cannot_be_read_is_ignored(garbage):
    assert granted(garbage) == 30.0


def test_without_a_header_the_servers_own_time_holds(clock):
    with deadline_from({}, 30.0, clock=clock):
        assert remaining() == 30.0


@pytest.mark.parametrize("asked", ["0", "0.000", "-1", "-0.5"])
def test_a_request_whose_caller_has_no_time_left_is_not_begun(asked):
    with pytest.raises(DeadlinePassed, match="its caller has no time left") as caught:
        granted(asked)
    assert caught.value.status == 504


def test_of_several_lines_the_shortest_time_and_the_least_importance_count(clock):
    lines = [("X-Request-Timeout", "9"), ("x-request-timeout", "2"), ("X-REQUEST-TIMEOUT", "soon")]
    with deadline_from(lines, 30.0, clock=clock):
        assert remaining() == 2.0
    lines = [("X-Criticality", "critical"), ("X-Criticality", "sheddable_plus"), ("X-Criticality", "most")]
    with criticality_from(lines):
        assert current_criticality() is Criticality.SHEDDABLE_PLUS


def test_an_outer_deadline_is_not_extended(clock):
    with deadline(1.0, clock=clock), deadline_from({"X-Request-Timeout": "9"}, 30.0, clock=clock):
        assert remaining() == 1.0


@pytest.mark.parametrize("most", [0, -1.0, float("nan"), float("inf"), True, "9"])
def test_the_servers_bound_is_some_time(most):
    with pytest.raises((TypeError, ValueError), match="most must be a"):
        deadline_from({}, most)


@pytest.mark.parametrize(
    ("told", "most", "level"),
    [
        ("sheddable", "critical", Criticality.SHEDDABLE),
        (" Sheddable_Plus ", "critical", Criticality.SHEDDABLE_PLUS),
        ("critical_plus", "critical", Criticality.CRITICAL),
        ("critical_plus", Criticality.CRITICAL_PLUS, Criticality.CRITICAL_PLUS),
        ("critical", "sheddable", Criticality.SHEDDABLE),
        ("important", "critical_plus", Criticality.CRITICAL),
        ("3", "critical_plus", Criticality.CRITICAL),
        ("", "sheddable", Criticality.SHEDDABLE),
    ],
)
def test_nobody_is_more_critical_than_the_server_admits(told, most, level):
    with criticality_from({"x-criticality": told}, most=most):
        assert current_criticality() is level
    assert current_criticality() is Criticality.CRITICAL


def test_by_default_nobody_can_raise_himself_above_the_others():
    with criticality_from({"X-Criticality": "critical_plus"}):
        assert current_criticality() is Criticality.CRITICAL
    with criticality_from({}):
        assert current_criticality() is Criticality.CRITICAL


def test_the_most_is_a_criticality():
    with pytest.raises(ValueError, match="not 'important'"):
        criticality_from({}, most="important")


# --- from one to the next ------------------------------------------------------------------------


@given(st.floats(0.001, 1e6), st.sampled_from(list(Criticality)), st.floats(0.001, 1e6))
def test_over_any_number_of_hops_time_only_gets_less_and_importance_stays(seconds, level, most):
    clock = FakeClock(start=0.0)
    with deadline(seconds, clock=clock), criticality(level):
        sent = headers()
    with deadline_from(sent, most, clock=clock), criticality_from(sent, most="critical_plus"):
        assert remaining() <= min(seconds, most)
        assert remaining() >= min(seconds, most) - 0.001 - 1e-9
        assert current_criticality() is level
        assert float(headers().get(propagation.TIMEOUT_HEADER, "0")) <= float(
            sent[propagation.TIMEOUT_HEADER]
        )
