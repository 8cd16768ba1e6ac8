"""What tests of code that uses resilience need: time, chance, faults and cancellations that obey.

Example:
    >>> clock = FakeClock()
    >>> started = clock.now()
    >>> clock.sleep(3600)                         # returns at once
    >>> clock.now() - started, clock.sleeps
    (3600.0, [3600])
"""

from __future__ import annotations

from resilience.testing.fake_clock import FakeClock
from resilience.testing.ticks import cancel_at_every_tick

__all__ = ["FakeClock", "cancel_at_every_tick"]
