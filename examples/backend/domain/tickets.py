"""Tickets: short-lived, signed permissions for what cannot send a session's token along.

A browser opens a WebSocket, or a download, by an address alone. A ticket stands in that address instead of
the session's token, which must not: addresses end in logs and histories. The rules:

- A ticket is for one purpose and one thing, of one user in one session. It ends with that session, and after
  a minute in any case.
- One that opens a WebSocket works once, in whichever process: who reads it in a log comes too late. One for a
  download works until it ends, since players fetch a file in several requests.
- Nothing is believed of a ticket before its signature was checked.
"""

from __future__ import annotations

import enum
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from resilience import ErrorCode, ServiceError
from resilience.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from examples.backend.domain.accounts import Member
    from resilience.clock import Clock

LIFETIME: Final = 60.0
"""Seconds from asking for a ticket to using it: a page does both at once, and a slow network gets time."""
ID_BYTES: Final = 16


class Purpose(enum.StrEnum):
    """What a ticket is for."""

    LIVE = "live"
    DOWNLOAD = "download"

    @property
    def once(self) -> bool:
        """Whether such a ticket works once only."""
        return self is Purpose.LIVE


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """What a ticket says."""

    id: str
    purpose: Purpose
    thing: str
    """What of that purpose: the call whose recording is downloaded; nothing for `LIVE`."""
    user_id: str
    tenant_id: str
    session_id: str
    issued_at: float
    expires_at: float
    """In Unix seconds."""


class Seal(Protocol):
    """Signs tickets."""

    def close(self, ticket: Ticket) -> str:
        """Return the ticket as text that may stand in an address."""
        ...

    def open(self, text: str, purpose: Purpose) -> Ticket:
        """Return the ticket that a text is.

        Raises:
            ServiceError: It is none of ours, or for another purpose (`INVALID_TOKEN`), or its time is over
                (`TOKEN_EXPIRED`).
        """
        ...


class UsedTickets(Protocol):
    """Remembers, for all processes, which tickets were used."""

    async def use(self, ticket_id: str, until: float) -> bool:
        """Note that a ticket is used, until it has expired; return False if it was used before."""
        ...


class Sessions(Protocol):
    """Tells which sessions are over. The library's session stores answer this."""

    async def ended(self, session_ids: Sequence[str]) -> list[str]:
        """Return those of the ids whose session is not alive."""
        ...


class Tickets:
    """The use cases."""

    def __init__(
        self, *, seal: Seal, used: UsedTickets, sessions: Sessions, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._seal = seal
        self._used = used
        self._sessions = sessions
        self._clock = clock

    def issue(self, member: Member, purpose: Purpose, thing: str = "") -> str:
        """Return a new ticket for somebody who is logged in, good for `LIFETIME` seconds."""
        now = self._clock.wall()
        ticket = Ticket(
            id=secrets.token_urlsafe(ID_BYTES),
            purpose=purpose,
            thing=thing,
            user_id=member.user.id,
            tenant_id=member.user.tenant_id,
            session_id=member.session.session_id,
            issued_at=now,
            expires_at=now + LIFETIME,
        )
        return self._seal.close(ticket)

    async def redeem(self, text: str, purpose: Purpose, thing: str = "") -> Ticket:
        """Return the ticket that `text` is, if it opens this very thing, now.

        Raises:
            ServiceError: It does not: `TOKEN_EXPIRED` where a new one would help, else `INVALID_TOKEN`.
        """
        ticket = self._seal.open(text, purpose)
        if ticket.thing != thing:
            raise ServiceError("This ticket is for something else", ErrorCode.INVALID_TOKEN)
        if await self._sessions.ended([ticket.session_id]):
            raise ServiceError("The session of this ticket has ended", ErrorCode.INVALID_TOKEN)
        if purpose.once and not await self._used.use(ticket.id, ticket.expires_at):
            raise ServiceError("This ticket was used already", ErrorCode.INVALID_TOKEN)
        return ticket
