"""What is written down."""

from __future__ import annotations

from resilience.simulation.log import Log, Outcome


def test_calls_and_attempts():
    log = Log()
    first, second = log.begin(1.0, 7, 0), log.begin(2.0, 8, 1)
    log.attempt(second, 2.0)
    log.attempt(second, 2.5)
    log.end(second, 3.0, Outcome.SUCCEEDED)
    log.refused(2.5)
    log.wasted(4.0)
    assert (first, second) == (0, 1)
    assert list(log.began) == [1.0, 2.0]
    assert list(log.ended) == [1.0, 3.0]
    assert list(log.outcome) == [Outcome.UNFINISHED, Outcome.SUCCEEDED]
    assert list(log.attempts) == [0, 2]
    assert list(log.process) == [7, 8]
    assert list(log.shard) == [0, 1]
    assert list(log.sent) == [2.0, 2.5]
    assert list(log.refusals) == [2.5]
    assert list(log.wasted_at) == [4.0]
