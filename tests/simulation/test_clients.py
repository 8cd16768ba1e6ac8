"""Who calls, how often, and from how many processes."""

from __future__ import annotations

import pytest

from resilience.simulation.clients import ClosedLoop, OpenLoop
from resilience.simulation.distributions import Constant
from resilience.simulation.scenario import Scenario, run
from resilience.simulation.server import Server
from resilience.simulation.triggers import spike

QUICK = Server(workers=None, service_time=Constant(0.01))


def played(clients, **changes):
    return run(Scenario(clients=clients, servers=QUICK, duration=100.0).replace(**changes))


def test_an_open_loop_calls_at_its_rate_from_all_processes_and_to_all_shards():
    result = played(OpenLoop(rate=50.0, processes=5), servers=(QUICK, QUICK))
    calls = len(result.log.began)
    assert calls == pytest.approx(5000, abs=200)
    for processes in range(5):
        assert result.log.process.count(processes) == pytest.approx(calls / 5, rel=0.1)
    assert result.log.shard.count(0) == pytest.approx(calls / 2, rel=0.1)


def test_arrivals_are_poisson():
    """The variance of the counts is their mean."""
    counts = played(OpenLoop(rate=50.0)).series.offered
    mean = sum(counts) / len(counts)
    assert sum((count - mean) ** 2 for count in counts) / len(counts) == pytest.approx(mean, rel=0.4)


def test_an_open_loop_goes_with_a_spike_at_once():
    offered = played(OpenLoop(rate=5.0), triggers=(spike(20.0, start=40.0, length=20.0),)).series.offered
    assert sum(offered[40:60]) == pytest.approx(2000, abs=150)
    assert sum(offered[60:]) == pytest.approx(200, abs=50)
    assert offered[40] > 60


def test_a_closed_loop_waits_for_its_answers():
    """Two callers in each of three processes, and 0.99 s of thought after 0.01 s of work."""
    result = played(ClosedLoop(callers=2, processes=3, think_time=Constant(0.99)))
    assert len(result.log.began) == pytest.approx(6 * 100, abs=6)
    slower = played(
        ClosedLoop(callers=2, processes=3, think_time=Constant(0.99)),
        servers=Server(workers=None, service_time=Constant(1.01)),
    )
    assert len(slower.log.began) == pytest.approx(6 * 50, abs=6)


def test_a_closed_loop_thinks_less_in_a_spike():
    clients = ClosedLoop(callers=1, processes=10, think_time=Constant(0.99))
    offered = played(clients, triggers=(spike(9.9, start=50.0, length=10.0),)).series.offered
    assert sum(offered[20:30]) == pytest.approx(100, abs=10)
    assert sum(offered[52:58]) == pytest.approx(10 * 6 / 0.11, rel=0.1)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: OpenLoop(rate=0), ValueError),
        (lambda: OpenLoop(processes=0), ValueError),
        (lambda: OpenLoop(timeout=0), ValueError),
        (lambda: ClosedLoop(callers=0), ValueError),
        (lambda: ClosedLoop(think_time=1.0), TypeError),
        (lambda: ClosedLoop(processes=True), TypeError),
    ],
)
def test_figures_out_of_range_are_refused(make, error):
    with pytest.raises(error):
        make()
    assert OpenLoop(timeout=None).timeout is None
