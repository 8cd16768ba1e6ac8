"""Bulkheads: at most so many calls at a time, and a short line for the others.

A dependency that has become slow holds whoever calls it. Without a bound, all threads or tasks of a service
end up there, and nothing is left for what is well. Rules:

- A call that finds a place free asks no clock and waits for nobody.
- Who waits is woken with the place already its own (`_core.bulkhead`), so nobody is overtaken in between. If
  it has been cancelled or has run out of time in that very moment, it hands the place on.
- The line is bounded, and so is the time in it: by `timeout`, and by the deadline of the context.
- A place is given back exactly once, however the call ends.

`Bulkhead` is for threads, `AsyncBulkhead` for tasks, of any number of event loops.
"""

from __future__ import annotations

from resilience.bulkhead.base import BulkheadStats
from resilience.bulkhead.bulkhead import AsyncBulkhead, Bulkhead

__all__ = ["AsyncBulkhead", "Bulkhead", "BulkheadStats"]
