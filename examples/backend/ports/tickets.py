"""Tickets as JSON Web Tokens (joserfc), and the table of those that were used.

The algorithm is ours to say, HMAC with SHA-256, whatever a token's header claims: `none`, and public keys
taken for secrets, are refused before anything is compared. Each purpose has a key of its own, made of the
backend's secret, so a ticket for one is noise to the other.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Final

from joserfc import jwt
from joserfc.errors import ExpiredTokenError, JoseError
from joserfc.jwk import OctKey

from examples.backend.domain.tickets import Purpose, Ticket
from examples.backend.ports.database import EVERY, insert
from examples.backend.ports.tables import used_tickets
from resilience import ErrorCode, ServiceError
from resilience.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from examples.backend.ports.database import Database
    from resilience.clock import Clock

ALGORITHM: Final = "HS256"
SKEW: Final = 5
"""Seconds by which the clocks of our processes may differ."""
LONGEST: Final = 1024
"""Characters of a text that is looked at; ours have some 400."""


class JoseSeal:
    """Signs tickets.

    Args:
        secret: The backend's secret; at least 32 bytes.
        clock: Tells the wall time.
    """

    def __init__(self, secret: bytes, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        # One step of a key derivation (NIST SP 800-108): the secret is uniform already, so none is extracted.
        self._keys = {
            purpose: OctKey.import_key(hmac.digest(secret, b"backend ticket " + purpose.encode(), "sha256"))
            for purpose in Purpose
        }

    def close(self, ticket: Ticket) -> str:
        """Return the ticket as text that may stand in an address."""
        claims = {
            "jti": ticket.id,
            "aud": ticket.purpose.value,
            "sub": ticket.user_id,
            "iat": int(ticket.issued_at),
            "exp": int(ticket.expires_at),
            "thing": ticket.thing,
            "tenant": ticket.tenant_id,
            "session": ticket.session_id,
        }
        return jwt.encode({"alg": ALGORITHM}, claims, self._keys[ticket.purpose], algorithms=[ALGORITHM])

    def open(self, text: str, purpose: Purpose) -> Ticket:
        """Return the ticket that a text is.

        Raises:
            ServiceError: It is none of ours, or for another purpose (`INVALID_TOKEN`), or its time is over
                (`TOKEN_EXPIRED`).
        """
        claims = self._claims(text, purpose)
        return Ticket(
            id=claims["jti"],
            purpose=purpose,
            thing=claims["thing"],
            user_id=claims["sub"],
            tenant_id=claims["tenant"],
            session_id=claims["session"],
            issued_at=claims["iat"],
            expires_at=claims["exp"],
        )

    def _claims(self, text: str, purpose: Purpose) -> jwt.Claims:
        if len(text) > LONGEST or not text.isascii():
            raise ServiceError(code=ErrorCode.INVALID_TOKEN)
        needed: jwt.ClaimsOption = {"essential": True}
        rules = jwt.JWTClaimsRegistry(
            now=int(self._clock.wall()),
            leeway=SKEW,
            aud={"essential": True, "value": purpose.value},
            thing={"essential": True, "allow_blank": True},
            **dict.fromkeys(("jti", "sub", "iat", "exp", "tenant", "session"), needed),
        )
        try:
            claims = jwt.decode(text, self._keys[purpose], algorithms=[ALGORITHM]).claims
            rules.validate(claims)
        except ExpiredTokenError as error:
            raise ServiceError(code=ErrorCode.TOKEN_EXPIRED) from error
        except (JoseError, ValueError, RecursionError) as error:  # not all of base64's and JSON's are its own
            raise ServiceError(code=ErrorCode.INVALID_TOKEN) from error
        return claims


class DatabaseUsedTickets:
    """Remembers which tickets were used: a row each, which whoever comes second finds there."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def use(self, ticket_id: str, until: float) -> bool:
        """Note that a ticket is used, until it has expired; return False if it was used before."""

        def work(connection: Connection) -> bool:
            row = insert(connection, used_tickets).values(id=ticket_id, expires_at=until)
            new = row.on_conflict_do_nothing().returning(used_tickets.c.id)
            return connection.execute(new).first() is not None

        return await self._database.write(work, tenant=EVERY)

    async def forget(self, now: float) -> None:
        """Forget those that no process would take any more, however its clock differs from this one's."""
        await self._database.prune(used_tickets, used_tickets.c.expires_at < now - 2 * SKEW)
