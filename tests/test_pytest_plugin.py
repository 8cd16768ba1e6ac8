from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from resilience.events import RateLimited, publish
from resilience.testing import EventRecorder, FakeClock, FaultInjector, SeededRandom


def test_the_clock_moves_by_itself(resilience_clock):
    assert isinstance(resilience_clock, FakeClock)

    resilience_clock.sleep(3600)

    assert resilience_clock.sleeps == [3600]


def test_chance_repeats_itself(resilience_random):
    assert resilience_random() == SeededRandom()()


def test_delays_sleep_on_the_clock(resilience_clock, resilience_faults):
    assert isinstance(resilience_faults, FaultInjector)

    resilience_faults.delay(60).strike()

    assert resilience_clock.sleeps == [60]


def test_events_are_recorded(resilience_events):
    assert isinstance(resilience_events, EventRecorder)

    publish(RateLimited("login", ("ada",), 12.5))

    assert len(resilience_events) == 1


def test_pytest_finds_the_plugin():
    (plugin,) = (point for point in entry_points(group="pytest11") if point.name == "resilience")

    assert plugin.value == "resilience.pytest_plugin"


def test_the_plugin_loads_nothing_heavy():
    heavy = "asyncio", "logging", "resilience.testing"
    source = (
        "import sys, types; pytest = sys.modules['pytest'] = types.ModuleType('pytest');"
        "pytest.fixture = lambda fn: fn; import resilience.pytest_plugin;"
        f"sys.exit(' '.join(set({heavy}) & set(sys.modules)) or None)"
    )

    subprocess.run([sys.executable, "-c", source], check=True, env={})


@pytest.mark.parametrize("fixture", ["clock", "random", "faults", "events"])
def test_fixtures_are_listed_with_their_help(fixture, pytestconfig):
    plugin = pytestconfig.pluginmanager.get_plugin("resilience")

    assert getattr(plugin, f"resilience_{fixture}").__doc__
