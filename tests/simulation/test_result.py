"""What a run came to, by a log that is written by hand."""

from __future__ import annotations

import pytest

from resilience.simulation.log import Log, Outcome
from resilience.simulation.result import Level, Result
from resilience.simulation.scenario import Scenario
from resilience.simulation.triggers import slow

SCENARIO = Scenario(triggers=(slow(start=20.0, length=10.0),), duration=60.0, name="by hand")


def written(outcome_at, scenario=SCENARIO, attempts=lambda second: 1, per_second=10):
    """Return the result of calls that end half a second after they began, as `outcome_at` says."""
    log = Log()
    for tick in range(int(scenario.duration) * per_second):
        began = tick / per_second
        place = log.begin(began, 0, tick % 2)
        for _ in range(attempts(int(began))):
            log.attempt(place, began)
        outcome = outcome_at(began)
        log.end(place, began + (0.5 if outcome else 0.0), outcome)
    log.waiting.extend([3] * int(scenario.duration))
    return Result(scenario, log)


def fails_from(start, end):
    return lambda began: Outcome.FAILED if start <= began < end else Outcome.SUCCEEDED


def test_levels_before_during_and_after():
    result = written(fails_from(20, 35), attempts=lambda second: 2 if 20 <= second < 30 else 1)
    assert result.before == Level(10.0, 10.0, 10.0, 10.0)
    assert result.during == Level(10.0, 10.0, 0.0, 20.0)
    assert (result.during.share, result.during.amplification) == (0.0, 2.0)
    assert result.after.share == pytest.approx(25 / 30)
    assert result.amplification == pytest.approx(70 / 60)
    assert result.peak_amplification() == 2.0
    assert result.peak_amplification(20.0) == 1.5
    assert result.peak_amplification(100.0) == 0.0


def test_levels_of_some_shards():
    result = written(lambda began: Outcome.FAILED if round(began * 10) % 2 else Outcome.SUCCEEDED)
    assert result.level(0.0, 10.0, shards=(0,)) == Level(5.0, 5.0, 5.0, 5.0)
    assert result.level(0.0, 10.0, shards=(1,)).share == 0.0
    assert result.level(0.0, 10.0, shards=(0, 1)) == result.level(0.0, 10.0)


def test_nothing_is_whole():
    result = Result(SCENARIO, Log())
    assert result.before == Level(0.0, 0.0, 0.0, 0.0)
    assert (result.before.share, result.before.amplification) == (1.0, 0.0)
    assert result.level(5.0, 5.0) == Level(0.0, 0.0, 0.0, 0.0)
    assert result.recovery_time is None
    assert result.latency(0.5) is None


def test_calls_without_an_end_are_no_failures():
    result = written(lambda began: Outcome.UNFINISHED if began >= 50 else Outcome.SUCCEEDED)
    assert result.level(45.0, 55.0) == Level(10.0, 5.0, 5.0, 10.0)
    assert result.level(45.0, 55.0).share == 1.0


@pytest.mark.parametrize(
    ("until", "recovery"), [(25, 0.0), (30, 0.0), (35, 4.9), (49, 18.9), (52, None), (60, None)]
)
def test_recovery_is_ten_seconds_of_good_service(until, recovery):
    """A tenth of a second of failures is allowed for in them."""
    assert written(fails_from(20, until)).recovery_time == recovery


def test_a_relapse_within_ten_seconds_is_no_recovery():
    def outcome(began):
        return Outcome.FAILED if 20 <= began < 32 or 38 <= began < 40 else Outcome.SUCCEEDED

    assert written(outcome).recovery_time == 9.9


def test_without_a_trigger_there_is_no_recovery():
    assert written(fails_from(0, 0), SCENARIO.replace(triggers=())).recovery_time is None


def test_how_long_a_collapse_lasts():
    assert written(fails_from(20, 45)).stays_below(0.01) == 15.0
    assert written(fails_from(20, 60)).stays_below(0.01) == 30.0
    assert written(fails_from(0, 0)).stays_below(0.01) == 0.0


def test_series():
    outcomes = [Outcome.SUCCEEDED, Outcome.FAILED, Outcome.REJECTED, Outcome.UNFINISHED]
    result = written(
        lambda began: outcomes[int(began)], SCENARIO.replace(duration=4.0, triggers=(), warm_up=0.0)
    )
    result.log.refused(2.5)
    result.log.wasted(3.5)
    result.log.wasted(4.5)
    assert result.series._asdict() == {
        "offered": [10, 10, 10, 10],
        "good": [10, 0, 0, 0],
        "goodput": [5, 5, 0, 0],
        "failed": [0, 5, 5, 0],
        "rejected": [0, 0, 5, 5],
        "attempts": [10, 10, 10, 10],
        "refused": [0, 0, 1, 0],
        "wasted": [0, 0, 0, 1],
        "waiting": [3, 3, 3, 3],
    }


def test_latency():
    result = written(fails_from(20, 30))
    result.log.ended[0] = 9.0
    assert result.latency(0.5) == pytest.approx(0.5)
    assert result.latency(1.0) == 9.0
    assert result.latency(1.0, 1.0, 10.0) == pytest.approx(0.5)
    assert result.latency(0.5, 20.0, 30.0) is None


def test_it_shows_what_matters():
    assert repr(written(fails_from(20, 35))) == (
        "<Result of 'by hand': goodput 100.0% before, 0.0% during, 83.3% after; recovery 4.9 s; "
        "amplification 1.00>"
    )
    assert "recovery never" in repr(written(fails_from(20, 60)))
    assert written(fails_from(20, 35)).fingerprint != written(fails_from(20, 36)).fingerprint
