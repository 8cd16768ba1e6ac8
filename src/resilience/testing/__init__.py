"""What tests of code that uses resilience need: time, chance, faults and cancellations that obey.

- `FakeClock` makes an hour pass at once, or steps back.
- `SeededRandom` draws the same jitter in every run.
- `FaultInjector` makes the n-th call fail, drag on or hang.
- `EventRecorder` remembers what the policies tell.
- `cancel_at_every_tick` cancels a task at every point where a cancellation can strike it.
- `wait_until` and `wait_until_async` wait for a state instead of for a time.

With pytest, the first four come as fixtures by themselves: `resilience_clock`, `resilience_random`,
`resilience_faults` and `resilience_events`.
"""

from __future__ import annotations

from resilience.testing.chance import SeededRandom
from resilience.testing.fake_clock import FakeClock
from resilience.testing.faults import FaultInjector
from resilience.testing.recording import EventRecorder
from resilience.testing.ticks import cancel_at_every_tick
from resilience.testing.waiting import wait_until, wait_until_async

__all__ = [
    "EventRecorder",
    "FakeClock",
    "FaultInjector",
    "SeededRandom",
    "cancel_at_every_tick",
    "wait_until",
    "wait_until_async",
]
