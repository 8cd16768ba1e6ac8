"""Live events in the database, and the mailboxes of connections: one for event loops, one for threads.

A mailbox is what a `SocketRegistry` closes: `close` says why, and comes back when whoever serves the
connection has closed it.
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import socket
import threading
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, insert, or_, select

from examples.backend.domain.live import WAITING, Ending, LiveEvent, Mailbox
from examples.backend.ports.database import EVERY
from examples.backend.ports.tables import live_events

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Row

    from examples.backend.ports.database import Database


def announce(connection: Connection, *, tenant_id: str, at: float, kind: str, body: dict[str, Any]) -> None:
    """Tell all who listen in a tenant, if and when this transaction is committed."""
    connection.execute(insert(live_events).values(tenant_id=tenant_id, at=at, kind=kind, body=body))


class DatabaseLiveEvents:
    """The table of events."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def newest(self) -> int:
        """Return the greatest id there is; 0 if there is none."""
        newest = select(func.coalesce(func.max(live_events.c.id), 0))
        return await self._database.read(lambda one: int(one.execute(newest).scalar_one()), tenant=EVERY)

    async def since(self, last: int, missing: Sequence[int], limit: int) -> list[LiveEvent]:
        """Return the events of all tenants after the id `last`, and those of the ids `missing`; by id."""
        wanted = live_events.c.id > last
        if missing:
            wanted = or_(wanted, live_events.c.id.in_(missing))
        rows = select(live_events).where(wanted).order_by(live_events.c.id).limit(limit)
        return await self._database.read(lambda one: list(map(_event, one.execute(rows).all())), tenant=EVERY)

    async def of_tenant(self, tenant_id: str, after: int, limit: int) -> list[LiveEvent] | None:
        """Return a tenant's events after an id, by id; None if some may be forgotten already."""
        oldest = select(func.coalesce(func.min(live_events.c.id), 0))
        rows = (
            select(live_events)
            .where(live_events.c.tenant_id == tenant_id, live_events.c.id > after)
            .order_by(live_events.c.id)
            .limit(limit)
        )

        def work(connection: Connection) -> list[LiveEvent] | None:
            if after < connection.execute(oldest).scalar_one() - 1:
                return None
            return list(map(_event, connection.execute(rows).all()))

        return await self._database.read(work, tenant=EVERY)  # the oldest is anybody's

    async def forget(self, before: float) -> None:
        """Forget what happened before that instant, but never the newest, by which ids go on."""
        newest = select(func.max(live_events.c.id)).scalar_subquery()
        await self._database.prune(live_events, (live_events.c.at < before) & (live_events.c.id < newest))


def _event(row: Row[Any]) -> LiveEvent:
    return LiveEvent(id=row.id, tenant_id=row.tenant_id, at=row.at, kind=row.kind, body=row.body)


class TaskMailbox(Mailbox):
    """The mailbox of a connection that an event loop serves; only tasks of that loop use it."""

    def __init__(self, limit: int = WAITING) -> None:
        super().__init__(limit)
        self._news = asyncio.Event()
        self._over = asyncio.Event()
        self._served = asyncio.Event()

    def wake(self) -> None:
        """Have whoever waits for this mailbox look into it."""
        self._news.set()
        if self.ending is not None:
            self._over.set()

    async def wait(self, seconds: float) -> bool:
        """Wait until there may be something to take, or the connection is to be closed.

        Returns:
            False if the time was over first.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()
        woken = self._news.is_set()
        self._news.clear()
        return woken

    async def wait_for_ending(self) -> Ending:
        """Wait until the connection is to be closed; return why."""
        await self._over.wait()
        assert self.ending is not None  # noqa: S101 - for the type checker: see `wake`
        return self.ending

    async def close(self, code: int, reason: str) -> None:
        """Have the connection closed, and wait for that."""
        self.end(Ending(code, reason))
        await self._served.wait()

    def served(self) -> None:
        """Note that the connection is closed."""
        self._served.set()


class ThreadMailbox(Mailbox):
    """The mailbox of a connection that a thread serves; it can be waited for together with a socket."""

    def __init__(self, limit: int = WAITING) -> None:
        super().__init__(limit)
        self._bell, self._button = socket.socketpair()
        self._bell.setblocking(False)
        self._button.setblocking(False)
        self._served = threading.Event()

    def fileno(self) -> int:
        """Return what is readable when there may be something to take."""
        return self._bell.fileno()

    def wake(self) -> None:
        """Have whoever waits for this mailbox look into it."""
        with self._lock, contextlib.suppress(OSError):  # it rings already; or the connection is closed
            self._button.send(b"\0")

    async def wait(self, seconds: float) -> bool:
        """Wait until there may be something to take, or the connection is to be closed; blocks the thread.

        Returns:
            False if the time was over first.
        """
        with selectors.DefaultSelector() as selector:
            selector.register(self, selectors.EVENT_READ)
            rings = selector.select(seconds)
        self.hush()
        return bool(rings)

    def hush(self) -> None:
        """Stop ringing; whoever calls this looks into the mailbox afterwards."""
        with contextlib.suppress(BlockingIOError):
            while self._bell.recv(4096):
                pass

    def close(self, code: int, reason: str) -> None:
        """Have the connection closed, and wait for that."""
        self.end(Ending(code, reason))
        self._served.wait()

    def served(self) -> None:
        """Note that the connection is closed."""
        self._served.set()
        with self._lock:
            self._bell.close()
            self._button.close()
