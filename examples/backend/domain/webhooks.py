"""What others' webhooks tell us: that something about a call has changed.

The rules:

- A delivery is a hint, not a fact. It is noted, together with a job for the workers, in one transaction, and
  answered at once; what is done about the call is done by what the provider answers when *we* ask (`jobs`).
  So a forged delivery gains nothing, and a slow provider delays no answer.
- It may come twice, and later than what happened after it. Noting it again changes nothing, and the order
  does not matter: it says which call to look at, not what will be found.
- It may tell of a call that is another tenant's. Then it is accepted and means nothing; nobody is told whose
  the call is.
- The tenant's part of the address is a secret: whoever does not know it is told that nothing is there. The
  signed webhook is worth more: it proves who has sent it, and when. Only it can have something deleted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from examples.backend.domain.tokens import hash_of
from resilience import ErrorCode, ServiceError
from resilience.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import Callable

    from examples.backend.domain.limits import Limits
    from resilience.clock import Clock

KEPT: Final = 3600.0
"""Seconds for which the ids of signed deliveries are kept: a replay is refused by its time long before."""
EVENTS_KEPT: Final = 30 * 86_400.0
"""Seconds for which it is known what the unsigned ones told."""


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
    """What was delivered so far. Each method is one transaction."""

    async def add(self, event: CallEvent, delivery_id: str | None = None) -> bool:
        """Note `event` and have the workers look at its call, if it is news and the call is the tenant's.

        Args:
            event: What was delivered.
            delivery_id: Of a signed delivery. One that is known already is no news.

        Returns:
            Whether it was news.
        """
        ...

    async def remove(self, tenant: str, call_sid: str, delivery_id: str, now: float) -> bool:
        """Delete a call's recording, if the delivery is news and the call is the tenant's; return whether."""
        ...

    async def forget(self, events_before: float, deliveries_before: float) -> None:
        """Forget what is older than these."""
        ...


class Headers(Protocol):
    """A request's headers: names without regard to case."""

    def get(self, name: str, /) -> str | None:
        """Return the header of this name, if it is there."""
        ...


class Tenants(Protocol):
    """Whose webhooks come where."""

    async def by_webhook(self, webhook_hash: str) -> str | None:
        """Return the id of the tenant whose webhooks' secret has this hash."""
        ...


class Secrets(Protocol):
    """What tenants sign deliveries with."""

    async def signing_secret(self, tenant_id: str) -> str:
        """Return a tenant's secret; empty if it has none."""
        ...


class Signatures(Protocol):
    """Tells whether a delivery is signed."""

    def check(self, secret: str, body: bytes, headers: Headers) -> str:
        """Return the id of a delivery that is signed with this secret, now.

        Raises:
            ServiceError: It is not (401).
        """
        ...


class Webhooks:
    """The use cases: take a delivery.

    Args:
        tenants: Whose webhooks come where.
        events: What was delivered so far.
        secrets: What tenants sign deliveries with.
        signatures: Tells whether a delivery is signed.
        limits: How many are taken.
        wake: Tells the workers that there is something to do.
        clock: Where the time comes from.
    """

    def __init__(
        self,
        *,
        tenants: Tenants,
        events: CallEvents,
        secrets: Secrets,
        signatures: Signatures,
        limits: Limits,
        wake: Callable[[], object] = lambda: None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._tenants = tenants
        self._events = events
        self._secrets = secrets
        self._signatures = signatures
        self._limits = limits
        self._wake = wake
        self._clock = clock

    async def admit(self, path: str, secret: str) -> str:
        """Let a delivery in by its address, before its body is looked at; return the tenant's id.

        Args:
            path: What deliveries of this kind are limited by, together with the tenant.
            secret: The tenant's part of the address.

        Raises:
            ServiceError: There is no such address (404).
            RateLimitedError: Too many deliveries for this tenant.
        """
        tenant = await self._tenants.by_webhook(hash_of(secret))
        if tenant is None:
            raise ServiceError(code=ErrorCode.NOT_FOUND)
        await self._limits.webhook(path, tenant)
        return tenant

    async def check(self, tenant: str, body: bytes, headers: Headers) -> str:
        """Return the id of a signed delivery.

        Raises:
            ServiceError: It is not signed by whom it should be, or not now (401).
        """
        return self._signatures.check(await self._secrets.signing_secret(tenant), body, headers)

    async def take(
        self, tenant: str, call_sid: str, status: str, date_updated: str, delivery_id: str | None = None
    ) -> bool:
        """Note a delivery, and have its call looked at; return whether it was news."""
        event = CallEvent(
            tenant=tenant,
            call_sid=call_sid,
            status=status,
            date_updated=date_updated,
            received_at=self._clock.wall(),
        )
        is_news = await self._events.add(event, delivery_id)
        if is_news:
            self._wake()
        return is_news

    async def remove(self, tenant: str, call_sid: str, delivery_id: str) -> bool:
        """Delete a call's recording, as a signed delivery says; return whether that was news."""
        is_news = await self._events.remove(tenant, call_sid, delivery_id, self._clock.wall())
        if is_news:
            self._wake()
        return is_news

    async def forget(self) -> None:
        """Forget deliveries that cannot come again."""
        now = self._clock.wall()
        await self._events.forget(now - EVENTS_KEPT, now - KEPT)
