"""Every interleaving of four callers at one breaker.

Twice: as a model for Spin (`breaker.pml`), which shows also that neither the generation nor the atomic
admission can be left out; and with the real state machine, walked through every state that four callers,
their outcomes, the hand and the passing of time can bring it to.
"""

from __future__ import annotations

import copy
import shutil
import subprocess
from collections import deque
from pathlib import Path
from typing import NamedTuple

import pytest

from resilience._core.breaker import Breaker, Event, Outcome, Policy, State
from resilience._core.trip import InARow

MODEL = Path(__file__).with_name("breaker.pml")

# --- by Spin -------------------------------------------------------------------------------------


def verify(folder, *variant):
    """Let Spin try every interleaving of the model, and return what it found."""
    tools = {"spin", "gcc"}
    if missing := sorted(tool for tool in tools if shutil.which(tool) is None):
        pytest.skip(f"the breaker's Spin model: no {' and no '.join(missing)} on this machine")
    commands = (
        ["spin", *variant, "-a", str(MODEL)],
        ["gcc", "-O1", "-w", "-DSAFETY", "-DCOLLAPSE", "-o", "pan", "pan.c"],
        ["./pan", "-w22", "-m10000"],
    )
    for command in commands:
        run = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return run.stdout


def test_four_callers_by_spin(tmp_path):
    found = verify(tmp_path)

    assert "errors: 0" in found
    assert "max search depth too small" not in found


@pytest.mark.parametrize(
    ("variant", "violated"),
    [("-DNO_GENERATION", "proved==2"), ("-DNO_ATOMIC_ADMIT", "taken<=2")],
)
def test_without_either_protection_spin_finds_a_counterexample(tmp_path, variant, violated):
    assert f"assertion violated ({violated})" in verify(tmp_path, variant)


# --- by the state machine itself -----------------------------------------------------------------

POLICY = Policy(
    InARow(2),
    recovery_time=10.0,
    recovery_jitter=0.0,
    recovery_growth=1.0,
    max_recovery_time=10.0,
    probes=2,
    lease=10.0,
)
CALLERS = 4
TICK = 5.0  # half a lease: so that some have run out and others have not
HANDS = (Event.FORCE_OPEN, Event.FORCE_CLOSE, Event.RESET)
OVER = Breaker(POLICY, 0.0).period  # stands for whatever generation is over


class Call(NamedTuple):
    """A call in flight: the period that admitted it, and its ticket."""

    period: object
    ticket: int


class World:
    """A real breaker, and four callers that are idle (None) or have a call in flight."""

    def __init__(self, breaker, callers, now):
        self.breaker = breaker
        self.callers = callers
        self.now = now

    def copy(self):
        """Return a copy that shares nothing that changes."""
        breaker, period = copy.copy(self.breaker), copy.copy(self.breaker.period)
        period.leases, period.window = dict(period.leases), copy.copy(period.window)
        breaker.period = period
        callers = [
            call and Call(period if call.period is self.breaker.period else OVER, call.ticket)
            for call in self.callers
        ]
        return World(breaker, callers, self.now)

    def key(self):
        """Return what tells states apart: times as seconds from now, callers without regard to who is who."""
        period = self.breaker.period
        leases = {ticket: max(0.0, end - self.now) for ticket, end in period.leases.items()}
        callers = sorted(
            "idle" if call is None else "late" if call.period is not period else self.place(call, leases)
            for call in self.callers
        )
        rest = max(0.0, period.until - self.now) if period.state is State.OPEN else 0.0
        # Held closed they grow without end, and without consequence.
        failures = min(period.window.figures(0.0).failures, 2) if period.passes else 0
        return (
            period.state,
            rest,
            failures,
            period.successes,
            tuple(sorted(leases.values())),
            tuple(callers),
        )

    @staticmethod
    def place(call, leases):
        return f"place {leases.get(call.ticket)}" if call.ticket else "passed"

    def admit(self, who):
        grant = self.breaker.admit(self.now)
        self.callers[who] = grant and Call(grant.period, grant.ticket)

    def settle(self, who, outcome):
        call, before = self.callers[who], self.breaker.period
        evidence = (before.successes, before.window.figures(0.0), before.state)
        change = self.breaker.settle(call.period, call.ticket, outcome, self.now)
        after = self.breaker.period
        self.callers[who] = None
        late = call.period is not before
        if late or outcome is Outcome.NEUTRAL:  # then nothing moves, but for the place that is given back
            assert change is None
            assert after is before
            assert (before.successes, before.window.figures(0.0), before.state) == evidence
        if change is not None and change.after is State.CLOSED:
            assert before.successes + 1 == POLICY.probes
            assert outcome is Outcome.SUCCESS
        if change is not None and change.after is State.OPEN:
            assert outcome is Outcome.FAILURE

    def check(self):
        """Assert what holds in every state."""
        period = self.breaker.period
        in_flight = [
            call
            for call in self.callers
            if call and call.period is period and period.leases.get(call.ticket, 0.0) > self.now
        ]
        assert len(in_flight) + period.successes <= POLICY.probes or period.passes
        assert len(period.leases) + period.successes <= POLICY.probes
        if period.state is not State.FORCED_OPEN:
            later = self.copy()
            later.now += POLICY.recovery_time + POLICY.lease
            assert later.breaker.admit(later.now) is not None, "wedged"

    def next_worlds(self):
        """Yield every world that one step leads to."""
        for who, call in enumerate(self.callers):
            if call is None:
                world = self.copy()
                world.admit(who)
                yield world
            else:
                for outcome in Outcome:
                    world = self.copy()
                    world.settle(who, outcome)
                    yield world
        world = self.copy()
        world.now += TICK
        yield world
        for event in HANDS:
            world = self.copy()
            world.breaker.apply(event, world.now)
            yield world


def explore():
    """Visit every state once, check it, and return the keys of all."""
    first = World(Breaker(POLICY, 0.0), [None] * CALLERS, 0.0)
    seen, waiting = {first.key()}, deque([first])
    while waiting:
        world = waiting.popleft()
        world.check()
        for following in world.next_worlds():
            key = following.key()
            if key not in seen:
                seen.add(key)
                waiting.append(following)
    return seen


def test_four_callers_at_the_real_state_machine():
    seen = explore()

    assert {state for state, *_ in seen} == set(State)
    assert any("late" in callers for *_, callers in seen)
    assert len(seen) > 150  # 199 when this was written, who is who not told apart


def test_without_the_generation_check_the_walk_finds_a_counterexample(monkeypatch):
    settle = Breaker.settle

    def settle_whatever_is_over(self, period, ticket, outcome, now, draw=0.0, *, slow=False):
        return settle(self, self.period, ticket, outcome, now, draw, slow=slow)

    monkeypatch.setattr(Breaker, "settle", settle_whatever_is_over)

    with pytest.raises(AssertionError):
        explore()


def test_without_leases_that_end_the_walk_finds_a_wedge(monkeypatch):
    monkeypatch.setattr(Breaker, "_end_leases", lambda self, now: None)

    with pytest.raises(AssertionError, match="wedged"):
        explore()
