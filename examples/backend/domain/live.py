"""Live updates: whoever of a tenant listens is told what happens to its recordings.

Whatever changes a recording writes an event into a table, in the same transaction. Each process reads what is
new there, again and again, and hands it to its listeners, so it does not matter in which process something
happens, nor who listens where. The rules:

- Each event is handed on once in each process, and none is left out. Ids are given when a row is written,
  but rows appear when their transaction commits, so a smaller id may appear after a greater one: ids that are
  missing are asked for again, until no transaction can be about to bring them.
- A listener is told of its own tenant's events only.
- Whoever was away says up to where they have heard, and is told the rest; if that is too much, or forgotten,
  they are told to look for themselves. After such a return an event may come twice: its id tells.
- A listener that is slower than the events is parted with, and may come back. Nobody else waits for it.
- How many listen is bounded, in all and for each user.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, Self

from resilience import ErrorCode, ServiceError, rate_limit_error, service_unavailable_error
from resilience.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from resilience.clock import Clock
    from resilience.janitor.sockets import Registration, SocketRegistry

logger: Final = logging.getLogger("backend.live")

BATCH: Final = 500
"""Events that are read at a time."""
BACKLOG: Final = 500
"""Events that somebody who was away is told; beyond it a page does better to load anew."""
WAITING: Final = 1000
"""Events that may wait to be sent to one listener: two batches, so that a burst parts with no reader."""
PATIENCE: Final = 30.0
"""Seconds after which an id that is missing has been given up by its transaction. No transaction of ours
takes that long: each statement of them ends within 5 s."""
MOST_MISSING: Final = 1000
"""Ids that are asked for again; more are only ever missing if the database has skipped them."""
KEPT: Final = 3600.0
"""Seconds for which events are kept, for those who were away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveEvent:
    """Something that happened in a tenant."""

    id: int
    tenant_id: str
    at: float
    """In Unix seconds."""
    kind: str
    """Such as `recording`. `reset` says: you have missed something, so look for yourself."""
    body: dict[str, Any] = field(default_factory=dict[str, Any])
    after: int = 0
    """Give it back to go on from here: all events up to this id have been told."""


class Listener(NamedTuple):
    """Who listens."""

    user_id: str
    tenant_id: str
    session_id: str


class Ending(NamedTuple):
    """Why a connection is to be closed: a WebSocket's close code, and words."""

    code: int
    reason: str


GONE: Final = Ending(1001, "the other side has left")
TOO_SLOW: Final = Ending(1013, "too slow, come back")
UNWANTED: Final = Ending(1003, "this socket only tells")
TOO_LONG: Final = Ending(1009, "message too long")
TIME_IS_UP: Final = Ending(1000, "time is up, come back")


class LiveEvents(Protocol):
    """The table of events."""

    async def newest(self) -> int:
        """Return the greatest id there is; 0 if there is none."""
        ...

    async def since(self, last: int, missing: Sequence[int], limit: int) -> list[LiveEvent]:
        """Return the events of all tenants after the id `last`, and those of the ids `missing`; by id."""
        ...

    async def of_tenant(self, tenant_id: str, after: int, limit: int) -> list[LiveEvent] | None:
        """Return a tenant's events after an id, by id; None if some may be forgotten already."""
        ...

    async def forget(self, before: float) -> None:
        """Forget what happened before that instant, but never the newest, by which ids go on."""
        ...


class Sessions(Protocol):
    """Tells which sessions are over. The library's session stores answer this."""

    async def ended(self, session_ids: Sequence[str]) -> list[str]:
        """Return those of the ids whose session is not alive."""
        ...


class Mailbox(ABC):
    """What waits to be sent on one connection, and whether it is to be closed. Threads may share it.

    Whoever serves the connection waits for it in its own way: see `ports/live.py`.
    """

    def __init__(self, limit: int = WAITING) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._events: deque[LiveEvent] = deque()
        self._ending: Ending | None = None

    @property
    def ending(self) -> Ending | None:
        """Why the connection is to be closed, as soon as it is."""
        return self._ending

    def put(self, event: LiveEvent) -> None:
        """Add an event. If that is too many, the connection is to be closed."""
        with self._lock:
            if self._ending is None and len(self._events) < self._limit:
                self._events.append(event)
            elif self._ending is None:
                self._ending = TOO_SLOW
        self.wake()

    def take(self) -> LiveEvent | None:
        """Return the next event; None if there is none, or the connection is to be closed."""
        with self._lock:
            return self._events.popleft() if self._events and self._ending is None else None

    def end(self, ending: Ending) -> None:
        """Have the connection closed. The first reason counts."""
        with self._lock:
            self._ending = self._ending or ending
        self.wake()

    @abstractmethod
    def wake(self) -> None:
        """Have whoever waits for this mailbox look into it."""

    @abstractmethod
    def close(self, code: int, reason: str) -> object:
        """Have the connection closed, and come back when it is: what a `SocketRegistry` calls."""


class Hub:
    """The listeners of this process. Threads may share it.

    Args:
        most: How many there may be.
        most_of_user: How many one user may have.
    """

    def __init__(self, *, most: int, most_of_user: int) -> None:
        self._most = most
        self._most_of_user = most_of_user
        self._lock = threading.Lock()
        self._listeners: dict[Mailbox, Listener] = {}
        self._of_user: Counter[str] = Counter()

    def __len__(self) -> int:
        """Return how many listen."""
        return len(self._listeners)

    def enter(self, mailbox: Mailbox, listener: Listener) -> None:
        """Add a listener.

        Raises:
            ServiceError: There are as many as there may be: 503, or 429 if it is this user's doing.
        """
        with self._lock:
            if self._of_user[listener.user_id] >= self._most_of_user:
                raise rate_limit_error(retry_after=5.0)
            if len(self._listeners) >= self._most:
                raise service_unavailable_error("Live updates", retry_after=5.0)
            self._listeners[mailbox] = listener
            self._of_user[listener.user_id] += 1

    def leave(self, mailbox: Mailbox) -> None:
        """Take a listener out, if it is in."""
        with self._lock:
            listener = self._listeners.pop(mailbox, None)
            if listener is not None:
                self._of_user[listener.user_id] -= 1
                if not self._of_user[listener.user_id]:
                    del self._of_user[listener.user_id]

    def deliver(self, event: LiveEvent) -> None:
        """Tell those of the event's tenant."""
        with self._lock:
            told = [box for box, who in self._listeners.items() if who.tenant_id == event.tenant_id]
        for mailbox in told:
            mailbox.put(event)


class Follower:
    """Reads the table as it grows. One at a time may call it.

    Args:
        events: The table.
        deliver: Is told each event, once.
        clock: Tells for how long an id has been missing.
    """

    def __init__(
        self, events: LiveEvents, deliver: Callable[[LiveEvent], None], clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._events = events
        self._deliver = deliver
        self._clock = clock
        self._last = 0
        self._missing: dict[int, float] = {}  # id -> when it was noticed
        self.heard = 0
        """All events up to this id have been told, or will never be there."""

    async def start(self) -> None:
        """Begin after what there is. What is on its way into it counts as new."""
        self._last = max(0, await self._events.newest() - MOST_MISSING)
        self._note(await self._events.since(self._last, [], MOST_MISSING))

    async def look(self) -> None:
        """Tell what is new."""
        full = True
        while full:
            asked_at = self._clock.now()
            found = await self._events.since(self._last, sorted(self._missing), BATCH)
            self._note(found)
            self._give_up(asked_at)
            for event in found:
                self._deliver(replace(event, after=min(event.id, self.heard)))
            full = len(found) >= BATCH

    def _note(self, found: list[LiveEvent]) -> None:
        """Remember what was found, and which ids before it were not."""
        now = self._clock.now()
        for event in found:
            if event.id > self._last:
                skipped = range(max(self._last + 1, event.id - MOST_MISSING), event.id)
                self._missing.update(dict.fromkeys(skipped, now))
                self._last = event.id
            else:
                self._missing.pop(event.id, None)
        for excess in sorted(self._missing)[: max(0, len(self._missing) - MOST_MISSING)]:
            del self._missing[excess]
        self._look_back()

    def _give_up(self, asked_at: float) -> None:
        """Forget the ids that were still missing when it was asked for them after so long."""
        for missing, noticed_at in list(self._missing.items()):
            if asked_at - noticed_at > PATIENCE:
                del self._missing[missing]
        self._look_back()

    def _look_back(self) -> None:
        self.heard = min(self._missing, default=self._last + 1) - 1


class Subscription:
    """One listener's place; a context manager that gives it up."""

    def __init__(self, live: Live, mailbox: Mailbox, registration: Registration) -> None:
        self._live = live
        self._mailbox = mailbox
        self._registration = registration
        self._missed: deque[LiveEvent] = deque()
        self._told: frozenset[int] = frozenset()
        self.begins_at = 0
        """All events up to this id were told before, or are not for this subscription."""

    def catch_up(self, missed: list[LiveEvent], begins_at: int) -> None:
        """Tell `missed` first, and do not repeat it."""
        self._missed.extend(missed)
        self._told = frozenset(event.id for event in missed)
        self.begins_at = begins_at

    def take(self) -> LiveEvent | None:
        """Return the next event to send, if there is one."""
        if self._missed and self._mailbox.ending is None:
            return self._missed.popleft()
        event = self._mailbox.take()
        while event is not None and (event.id <= self.begins_at or event.id in self._told):
            event = self._mailbox.take()  # told already, perhaps by a process that was ahead of this one
        return event

    def close(self) -> None:
        """Give the place up."""
        self._registration.unregister()
        self._live.hub.leave(self._mailbox)

    def __enter__(self) -> Self:
        """Return the subscription; leaving the block gives the place up."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Give the place up."""
        self.close()


class Live:
    """The use cases.

    Args:
        events: The table of events.
        sessions: Tells which sessions are over.
        sockets: Closes what belongs to a session that ends; the janitor's.
        most: How many may listen to this process.
        most_of_user: How many of them may be one user's.
        clock: Tells the time.
    """

    def __init__(
        self,
        *,
        events: LiveEvents,
        sessions: Sessions,
        sockets: SocketRegistry,
        most: int,
        most_of_user: int = 5,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._events = events
        self._sessions = sessions
        self._sockets = sockets
        self._clock = clock
        self.hub = Hub(most=most, most_of_user=most_of_user)
        self._follower = Follower(events, self.hub.deliver, clock)
        self.is_behind = False
        """Whether the last look failed."""

    async def start(self) -> None:
        """Begin to follow the events: `look` is to be called again and again from now on."""
        await self._follower.start()

    async def look(self) -> None:
        """Tell the listeners of this process what is new.

        Where that cannot be found out it is logged, once, and made up for by a later look.
        """
        try:
            await self._follower.look()
        except Exception as error:  # noqa: BLE001 - whatever a database does
            if not self.is_behind:
                logger.warning("live updates are behind: %r", error.__cause__ or error)
            self.is_behind = True
        else:
            if self.is_behind:
                logger.info("live updates have caught up")
            self.is_behind = False

    async def forget(self) -> None:
        """Forget what is old."""
        await self._events.forget(self._clock.wall() - KEPT)

    async def subscribe(self, listener: Listener, mailbox: Mailbox, after: int | None) -> Subscription:
        """Have `mailbox` told of what happens in the listener's tenant from now on, or after `after`.

        Raises:
            ServiceError: The session has ended, or there are too many listeners.
        """
        self.hub.enter(mailbox, listener)
        registration = self._sockets.register(mailbox, listener.session_id, listener.user_id)
        subscription = Subscription(self, mailbox, registration)
        try:
            await self._begin(subscription, listener, after)
        except BaseException:
            subscription.close()
            raise
        return subscription

    async def _begin(self, subscription: Subscription, listener: Listener, after: int | None) -> None:
        # A session that has ended before it was registered would never be closed.
        if await self._sessions.ended([listener.session_id]):
            raise ServiceError(code=ErrorCode.UNAUTHORIZED)
        heard = self._follower.heard
        if after is None:
            subscription.catch_up([], heard)
            return
        missed = await self._events.of_tenant(listener.tenant_id, after, BACKLOG + 1)
        if missed is None or len(missed) > BACKLOG:
            reset = LiveEvent(
                id=heard, tenant_id=listener.tenant_id, at=self._clock.wall(), kind="reset", after=heard
            )
            subscription.catch_up([reset], heard)
            return
        told = [replace(event, after=max(after, min(event.id, heard))) for event in missed]
        subscription.catch_up(told, after)
