"""Outages by name."""

from __future__ import annotations

import pytest

from resilience.simulation.outages import OUTAGES
from resilience.simulation.scenario import run


@pytest.mark.parametrize("name", OUTAGES)
def test_each_is_what_it_says(name):
    outage = OUTAGES[name]
    assert outage.scenario.name == name
    assert outage.about
    capacity = sum(server.capacity for server in outage.scenario.shards)
    assert outage.scenario.clients.rate / capacity == pytest.approx(0.8)


@pytest.mark.parametrize("name", OUTAGES)
def test_each_takes_effect(name):
    scenario = OUTAGES[name].scenario
    triggers = tuple(trigger.replace(start=8.0, length=5.0) for trigger in scenario.triggers)
    result = run(scenario.replace(triggers=triggers, duration=16.0))
    assert result.before.share > 0.99
    assert result.during.share < 0.95
