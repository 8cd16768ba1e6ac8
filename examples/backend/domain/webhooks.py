"""What the provider's webhooks tell us: that something about a call has changed.

The rules:

- A delivery is a hint, not a fact. It is noted; what is done about a call is done by what the provider
  answers when *we* ask, see `recordings`. So a forged delivery gains nothing.
- It may come twice, and later than what happened after it. Noting it again changes nothing.
- The tenant's part of the address is the secret: whoever does not know it is told that nothing is there.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from resilience import ErrorCode, ServiceError
from resilience.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
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


class Tenants(Protocol):
    """Whose webhooks come where."""

    async def by_webhook(self, webhook_hash: str) -> str | None:
        """Return the id of the tenant whose webhooks' secret has this hash."""
        ...


def hash_of(secret: str) -> str:
    """Return what is kept of the secret part of a webhooks' URL: it is drawn at random, so a plain hash will do.

    Example:
        >>> hash_of("demo")[:16]
        '2a97516c354b6884'
    """
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


class Webhooks:
    """The use case: take a delivery."""

    def __init__(
        self, *, tenants: Tenants, events: CallEvents, limits: Limits, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._tenants = tenants
        self._events = events
        self._limits = limits
        self._clock = clock

    async def admit(self, secret: str) -> str:
        """Let a delivery in by its address, before its body is looked at; return the tenant's id.

        Raises:
            ServiceError: There is no such address (404).
            RateLimitedError: Too many deliveries for this tenant.
        """
        tenant = await self._tenants.by_webhook(hash_of(secret))
        if tenant is None:
            raise ServiceError(code=ErrorCode.NOT_FOUND)
        await self._limits.webhook(PATH, tenant)
        return tenant

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
