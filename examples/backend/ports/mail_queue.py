"""What is still to be handed to the mail server: a table, and the postman who empties it.

The rules:

- Whoever has a message to send is done once it stands in the table. So a mail server that is slow or down
  delays no answer, and none tells by its time whether a message was written.
- Messages are sealed: a code that could be read in the table would undo the hashing of codes.
- A postman of any process takes a message by a lease. If it dies, the lease runs out and another one takes
  the message: it comes at least once.
- What the server cannot take now is tried again later, less and less often, as long as it is of use. What
  it will never take is dropped. Both are logged, without saying what it was or to whom.
"""

from __future__ import annotations

import json
import logging
import secrets
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from joserfc import jwe
from joserfc.jwk import OctKey
from sqlalchemy import delete, select, update

from examples.backend.domain.letters import Letter
from examples.backend.ports.database import EVERY
from examples.backend.ports.mail import is_final
from examples.backend.ports.tables import mails
from resilience import CircuitOpenError
from resilience.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from examples.backend.ports.database import Database
    from resilience.clock import Clock

logger: Final = logging.getLogger("backend.mail")

SEALED_BY: Final = {"alg": "dir", "enc": "A256GCM"}
LEASE: Final = 60.0
"""Seconds; handing a message over takes a quarter of it at most."""
FIRST_PAUSE: Final = 5.0
LONGEST_PAUSE: Final = 600.0
"""Seconds until a message is tried again; each pause is twice the one before."""


class Claimed(NamedTuple):
    """A message that a postman has taken."""

    id: str
    sealed: str
    attempts: int
    """This one included."""
    expires_at: float


class Server(Protocol):
    """Takes messages."""

    async def deliver(self, letter: Letter, message_id: str) -> None:
        """Take one message, or raise."""
        ...


class MailQueue:
    """Answers `examples.backend.domain.accounts.Mail`, and empties itself.

    Args:
        database: Where the table is.
        key: What messages are sealed with; 32 bytes.
        server: Who takes them.
        clock: Tells the wall time.
    """

    def __init__(self, database: Database, key: bytes, server: Server, clock: Clock = SYSTEM_CLOCK) -> None:
        self._database = database
        self._key = OctKey.import_key(key)
        self._server = server
        self._clock = clock

    async def send(self, letter: Letter) -> None:
        """Put a message into the queue."""
        now = self._clock.wall()
        row = mails.insert().values(
            id=secrets.token_hex(8),
            sealed=jwe.encrypt_compact(SEALED_BY, json.dumps(letter), self._key),
            not_before=now,
            expires_at=now + letter.useful_for,
        )
        await self._database.write(lambda db: db.execute(row), tenant=EVERY)

    async def deliver(self) -> None:
        """Hand over what is due, one message after the other, until there is none or the server is unwell."""
        while (claimed := await self._claim()) is not None:
            if not await self._hand_over(claimed):
                return

    async def _hand_over(self, claimed: Claimed) -> bool:
        """Hand over one message; return whether the next one is worth a try."""
        try:
            letter = Letter(*json.loads(jwe.decrypt_compact(claimed.sealed, self._key).plaintext or b""))
            await self._server.deliver(letter, claimed.id)
        except CircuitOpenError as error:
            await self._put_off(claimed, error.retry_after or FIRST_PAUSE, attempts=claimed.attempts - 1)
            return False
        except Exception as error:  # noqa: BLE001 - whatever it is, another key say, the next one has its turn
            await self._failed(claimed, error)
            return True
        await self._drop(claimed)
        logger.info("message %s was handed over, attempt %d", claimed.id, claimed.attempts)
        return True

    async def _failed(self, claimed: Claimed, error: Exception) -> None:
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(claimed.attempts - 1, 30))
        reason = f"{type(error).__name__} {getattr(error, 'smtp_code', '')}".strip()
        if is_final(error) or self._clock.wall() + pause >= claimed.expires_at:
            logger.error("message %s was given up, attempt %d: %s", claimed.id, claimed.attempts, reason)
            await self._drop(claimed)
        else:
            logger.warning("message %s is tried again in %.0f s: %s", claimed.id, pause, reason)
            await self._put_off(claimed, pause, attempts=claimed.attempts)

    async def _claim(self) -> Claimed | None:
        now = self._clock.wall()
        first = (
            select(mails.c.id)
            .where(mails.c.not_before <= now, mails.c.leased_until <= now)
            .order_by(mails.c.not_before)
            .limit(1)
            .with_for_update(skip_locked=True)  # what another postman is just taking is not waited for
            .scalar_subquery()
        )
        claim = (
            update(mails)
            .where(mails.c.id == first)
            .values(attempts=mails.c.attempts + 1, leased_until=now + LEASE)
            .returning(mails.c.id, mails.c.sealed, mails.c.attempts, mails.c.expires_at)
        )

        def work(db: Connection) -> Claimed | None:
            row = db.execute(claim).one_or_none()
            return None if row is None else Claimed(*row)

        if not await self._is_due(now):
            return None
        return await self._database.write(work, tenant=EVERY)

    async def _is_due(self, now: float) -> bool:
        """Return whether there is a message, at the price of a look: claiming costs a write."""
        due = select(mails.c.id).where(mails.c.not_before <= now, mails.c.leased_until <= now).limit(1)
        return await self._database.read(lambda db: db.execute(due).first() is not None, tenant=EVERY)

    async def _put_off(self, claimed: Claimed, pause: float, *, attempts: int) -> None:
        put_off = (
            update(mails)
            .where(mails.c.id == claimed.id)
            .values(not_before=self._clock.wall() + pause, leased_until=0.0, attempts=attempts)
        )
        await self._database.write(lambda db: db.execute(put_off), tenant=EVERY)

    async def _drop(self, claimed: Claimed) -> None:
        drop = delete(mails).where(mails.c.id == claimed.id)
        await self._database.write(lambda db: db.execute(drop), tenant=EVERY)
