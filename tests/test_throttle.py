from __future__ import annotations

import pytest

from resilience import AdaptiveThrottle, OverloadedError, service_unavailable_error
from resilience.events import CallRefused
from resilience.testing import FakeClock
from resilience.throttle import AdaptiveThrottleStats
from tests.children import forking, in_child
from tests.threads import together


class Draws:
    """A source of chance that draws what it is told."""

    def __init__(self, draw):
        self.draw = draw

    def __call__(self):
        return self.draw


@pytest.fixture
def clock():
    return FakeClock()


def busy(throttle, times):
    for _ in range(times):
        throttle.acquire().failure(service_unavailable_error("busy"))


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"ratio": 0.9}, ValueError),
        ({"ratio": "2"}, TypeError),
        ({"window": 0}, ValueError),
        ({"window": 10.1}, ValueError),
        ({"most": -0.1}, ValueError),
        ({"most": 0.91}, ValueError),
        ({"overload": 7}, TypeError),
        ({"name": 7}, TypeError),
        ({"random": 7}, TypeError),
        ({"on_refused": 7}, TypeError),
    ],
)
def test_wrong_arguments(arguments, error):
    with pytest.raises(error):
        AdaptiveThrottle(**arguments)


def test_it_refuses_with_the_rule_s_probability(clock):
    told = []
    chance = Draws(0.99)
    throttle = AdaptiveThrottle(name="search", clock=clock, random=chance, on_refused=told.append)
    throttle.execute(str)
    busy(throttle, 5)
    chance.draw = 4 / 7 - 0.001  # (6 - 2 * 1) / (6 + 1)
    with pytest.raises(OverloadedError, match="it refuses more calls than it accepts"):
        throttle.guard()
    assert told == [CallRefused("adaptive throttle", "search", "it refuses more calls than it accepts")]
    assert throttle.stats() == AdaptiveThrottleStats("search", 7, 1, 5 / 8, 1)
    chance.draw = 5 / 8
    with throttle.guard():
        pass
    assert repr(throttle) == "<AdaptiveThrottle 'search', refuses 44%>"


def test_other_failures_are_answers(clock):
    throttle = AdaptiveThrottle(clock=clock)
    for error in (ConnectionRefusedError(), ValueError()):
        throttle.acquire().failure(error)
    assert throttle.stats()[1:4] == (2, 2, 0.0)


def test_a_neutral_call_is_no_request(clock):
    throttle = AdaptiveThrottle(clock=clock, random=Draws(0.99))
    throttle.acquire().neutral()
    throttle.acquire().failure(OverloadedError("inner", "full", None))
    busy(throttle, 1)
    throttle.acquire().neutral()
    assert throttle.stats()[1:3] == (1, 0)


def test_who_says_what_an_overload_is(clock):
    throttle = AdaptiveThrottle(clock=clock, overload=KeyError, random=Draws(0.99))
    throttle.acquire().failure(TimeoutError())
    throttle.acquire().failure(KeyError())
    assert throttle.stats()[1:3] == (2, 1)


def test_no_chance_is_asked_while_nothing_is_refused(clock):
    def never():
        raise AssertionError

    throttle = AdaptiveThrottle(clock=clock, random=never)
    throttle.execute(str)
    busy(throttle, 1)
    clock.advance(10.1)
    throttle.execute(str)
    with pytest.raises(AssertionError):
        busy(throttle, 2)


def test_at_most_nine_tenths_are_refused(clock):
    throttle = AdaptiveThrottle(clock=clock, random=Draws(0.99))
    busy(throttle, 1000)
    assert throttle.stats().probability == 0.9


@forking
def test_a_forked_child_goes_on(clock):
    throttle = AdaptiveThrottle(clock=clock, random=Draws(0.99))
    busy(throttle, 3)

    def look():
        assert throttle.stats()[1:3] == (3, 0)
        busy(throttle, 1)

    with throttle._lock:
        assert in_child(look) == 0


def test_threads_lose_no_request():
    throttle = AdaptiveThrottle(clock=FakeClock(yielding=True), random=Draws(0.99))

    def run(number):
        for _ in range(50):
            if number % 2:
                busy(throttle, 1)
            else:
                throttle.execute(str)

    together(8, run)
    assert throttle.stats()[1:3] == (400, 200)
