"""Policies to compare with, and the theory that they have to bear out (docs/simulator.md)."""

from __future__ import annotations

from functools import partial

import pytest

from resilience.simulation import controls
from resilience.simulation.scenario import Scenario, run
from resilience.simulation.triggers import slow
from resilience.testing import FakeClock

OUTAGE = Scenario(triggers=(slow(0.1, start=10.0, length=10.0),), duration=60.0)


def test_naive_retries_never_come_out_of_it():
    result = run(OUTAGE.replace(policy=controls.naive_retries, duration=50.0))
    assert result.recovery_time is None
    assert result.stays_below(0.01) == 30.0
    assert result.during.amplification > 3.0


def test_without_retries_it_takes_as_long_as_the_backlog():
    """(D(λ - C_trigger) - T·C) / (C - λ): 10 s of 400/s at 50/s, a timeout of 1 s, 500/s."""
    assert run(OUTAGE.replace(duration=65.0)).recovery_time == pytest.approx((10 * 350 - 500) / 100, rel=0.1)


def test_a_budget_adds_its_capacity_to_the_backlog_and_nothing_else():
    """50 processes of 5 tokens."""
    result = run(OUTAGE.replace(policy=controls.retries_only, duration=70.0))
    assert result.recovery_time == pytest.approx((10 * 350 + 50 * 5 - 500) / 100, rel=0.1)


def test_the_defaults_recover_at_once():
    result = run(OUTAGE.replace(policy=controls.defaults, duration=40.0))
    assert result.recovery_time <= 10.0
    assert result.peak_amplification() <= 1.15


async def test_backoff_waits_longer_each_time_up_to_its_limit():
    clock = FakeClock()

    async def failing(request):
        raise ConnectionError(request)

    policy = controls.backoff_retries(clock, lambda: 0.5, retries=5, max_delay=0.5)
    with pytest.raises(ConnectionError):
        await policy(failing)("a")
    assert clock.sleeps == [0.05, 0.1, 0.2, 0.25, 0.25]


async def test_what_is_not_transient_is_not_repeated():
    calls = []

    async def failing(request):
        calls.append(request)
        raise KeyError(request)

    with pytest.raises(KeyError):
        await controls.naive_retries(FakeClock())(failing)("a")
    assert calls == ["a"]


def test_a_control_can_have_other_figures():
    result = run(OUTAGE.replace(policy=partial(controls.naive_retries, retries=0), duration=20.0))
    assert result.amplification == 1.0
