"""How much of something each key may take, in which window; alone, or several limiters at once.

- `limiter` has what users call, and `base` what the sync and the async one have in common.
- `reservation` has units that can be given back; `together` asks several limiters, all or nothing.
- `outage` decides while a store is away, and `share` takes units of hot keys in batches; `source` puts both
  before the store.
- Where they count is `resilience.stores`; how they decide is `resilience._core`.
"""

from __future__ import annotations

from resilience._core.key import fold
from resilience._core.quota import Decision, Quota
from resilience.limiter.base import KeyUse, LimiterStats
from resilience.limiter.limiter import AsyncRateLimiter, RateLimiter
from resilience.limiter.reservation import AsyncReservation, Reservation
from resilience.limiter.together import (
    acquire_all,
    acquire_all_async,
    require_all,
    require_all_async,
    reserve_all,
    reserve_all_async,
)

__all__ = [
    "AsyncRateLimiter",
    "AsyncReservation",
    "Decision",
    "KeyUse",
    "LimiterStats",
    "Quota",
    "RateLimiter",
    "Reservation",
    "acquire_all",
    "acquire_all_async",
    "fold",
    "require_all",
    "require_all_async",
    "reserve_all",
    "reserve_all_async",
]
