"""What the policies tell, as lines of the log: degradation, refusals, and what was given up."""

from __future__ import annotations

import logging
from typing import Any, Final

from examples.backend.domain.accounts import masked
from resilience.events import BreakerChanged, MemoryAlert, RateLimited, RetryScheduled, RetryStopped

logger: Final = logging.getLogger("backend.policies")


def log_event(event: Any) -> None:
    """Write one line for an event that an operator wants to know of; pass over the others."""
    match event:
        case BreakerChanged():
            logger.warning(
                "breaker %s: %s, was %s (%s; %d of %d calls failed)",
                event.name,
                event.after,
                event.before,
                event.reason,
                event.failures,
                event.calls,
            )
        case RateLimited():
            logger.warning("limit %s refused %s", event.limiter, ", ".join(map(masked, event.key)))
        case RetryScheduled():
            logger.info("%s: attempt %d failed, another in %.2f s", event.name, event.attempt, event.delay)
        case RetryStopped():
            logger.warning("%s: given up after %d attempts: %s", event.name, event.attempts, event.reason)
        case MemoryAlert():
            logger.warning("memory: %d of %d bytes in use", event.resident, event.limit)
        case _:
            pass
