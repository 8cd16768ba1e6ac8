"""What the provider's webhooks tell us: that something about a call has changed.

The rules:

- A delivery is a hint, not a fact. It is noted; what is done about a call is done by what the provider
  answers when *we* ask, see `recordings`. So a forged delivery gains nothing.
- It may come twice, and later than what happened after it. Noting it again changes nothing.
- The tenant's part of the address is the secret: whoever does not know it is told that nothing is there.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from resilience import ErrorCode, ServiceError
from resilience.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import Collection

    from examples.backend.domain.limits import Limits
    from resilience.clock import Clock

PATH: Final = "telephony"
"""What deliveries of this kind are limited by, together with the tenant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEvent:
    """One delivery."""

    tenant: str
    call_sid: str
    status: str
    date_updated: str
    """As the provider wrote it; with the rest, it tells a repetition from news."""
    received_at: float
    """Unix seconds."""


class CallEvents(Protocol):
    """What was delivered so far."""

    async def add(self, event: CallEvent) -> bool:
        """Note `event`; return whether it was news."""
        ...


def mark_of(tenant: str) -> str:
    """Return what may stand in logs for a tenant: the tenant's name is a secret.

    Example:
        >>> mark_of("demo")
        '2a97516c354b6884'
    """
    return hashlib.sha256(tenant.encode()).hexdigest()[:16]


class Webhooks:
    """The use case: take a delivery."""

    def __init__(
        self, *, tenants: Collection[str], events: CallEvents, limits: Limits, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._tenants = [tenant.encode() for tenant in tenants]
        self._events = events
        self._limits = limits
        self._clock = clock

    async def admit(self, tenant: str) -> None:
        """Let a delivery for `tenant` in, before its body is looked at.

        Raises:
            ServiceError: There is no such tenant (404).
            RateLimitedError: Too many deliveries for this tenant.
        """
        given = tenant.encode("utf-8", "surrogatepass")
        known = sum(hmac.compare_digest(given, one) for one in self._tenants)  # all of them, in constant time
        if not known:
            raise ServiceError(code=ErrorCode.NOT_FOUND)
        await self._limits.webhook(PATH, mark_of(tenant))

    async def take(self, tenant: str, call_sid: str, status: str, date_updated: str) -> bool:
        """Note a delivery; return whether it was news."""
        return await self._events.add(
            CallEvent(
                tenant=tenant,
                call_sid=call_sid,
                status=status,
                date_updated=date_updated,
                received_at=self._clock.wall(),
            )
        )
