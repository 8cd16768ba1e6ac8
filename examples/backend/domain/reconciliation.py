"""Finding what webhooks lost: the provider's own list of calls is read, again and again.

The rules:

- The list is read from an hour before where the last reading ended: a call is listed by when it began, and
  may be listed late. Where one turn is not enough for that hour, the next goes on where it ended instead, or
  it would never get any further. What is known already is left as it is.
- A call that no webhook has announced is the tenant's whose webhooks have told of calls by the same number of
  ours before, the last of them if there were several. That shows whose number it is without anybody having to
  say so; and nobody can lay claim to a number but by knowing of its calls. A call by a number of which nobody
  was ever told is left alone, and the log says how many there were.
- One process at a time reads. One that dies over it has its turn taken by the next.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from resilience import deadline, remaining
from resilience.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from resilience.clock import Clock

logger: Final = logging.getLogger("backend.reconciliation")

OVERLAP: Final = 3600.0
"""Seconds that are read twice."""
FIRST_LOOK: Final = 86_400.0
"""Seconds that the very first reading goes back."""
LONGEST_READING: Final = 120.0
"""Seconds for one turn."""
MOST_PAGES: Final = 50
"""That are read in one turn: no more than a quarter of the requests that the provider takes in a minute."""
UNHEARD: Final = {"failed", "busy", "no-answer"}
"""The states of calls that nobody has spoken in, so nothing was recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A call in the provider's list."""

    sid: str
    status: str
    line: str
    """Our number, by which the provider sent or took the call."""
    created_at: float
    """Unix seconds."""


class CallList(Protocol):
    """The provider's list."""

    def calls(self, since: float) -> AsyncIterator[Sequence[Listed]]:
        """Return the calls that began at or after `since`, the oldest first, page by page."""
        ...


class Announcements(Protocol):
    """What is known already."""

    async def begin(self, now: float, first: float, interval: float) -> float | None:
        """Take a turn at reading; return from where on, or None if it is not time for one.

        Args:
            now: Unix seconds.
            first: From where on, if nobody ever did.
            interval: Seconds that shall lie between two turns.
        """
        ...

    async def advance(self, to: float) -> None:
        """Note from where on the next turn reads, unless it is further on already."""
        ...

    async def announce(self, listed: Sequence[Listed], now: float) -> tuple[int, int]:
        """Have calls that are not known looked at; return how many there were, and how many were nobody's."""
        ...

    async def mend(self, now: float) -> int:
        """Give calls that are expected, but that nobody looks for, a job; return how many there were."""
        ...


class Reconciliation:
    """The use case.

    Args:
        provider: Its list of calls.
        announcements: What is known already.
        interval: Seconds between two readings.
        wake: Tells the workers that there is something to do.
        clock: Where the time comes from.
    """

    def __init__(
        self,
        *,
        provider: CallList,
        announcements: Announcements,
        interval: float,
        wake: Callable[[], object] = lambda: None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._provider = provider
        self._announcements = announcements
        self._interval = interval
        self._wake = wake
        self._clock = clock

    async def look(self) -> int:
        """Read what is new in the list, if it is time; return how many calls were found that webhooks lost.

        Raises:
            ServiceError: The provider failed. What was read until then is kept; the next turn goes on there.
            DeadlineExceeded: It took too long. Likewise.
        """
        now = self._clock.wall()
        begin = await self._announcements.begin(now, now - FIRST_LOOK, self._interval)
        if begin is None:
            return 0
        found = unclaimed = pages = 0
        newest = begin
        with deadline(LONGEST_READING):
            try:
                async for page in self._provider.calls(begin):
                    heard = [call for call in page if call.status not in UNHEARD]
                    lost, nobodys = await self._announcements.announce(heard, self._clock.wall())
                    found += lost
                    unclaimed += nobodys
                    newest = page[-1].created_at if page else newest
                    await self._announcements.advance(newest - OVERLAP)
                    pages += 1
                    if pages == MOST_PAGES:
                        break
            finally:
                was_enough = pages < MOST_PAGES and remaining() != 0
                if not was_enough and newest - OVERLAP <= begin:
                    await self._announcements.advance(newest)
        mended = await self._announcements.mend(self._clock.wall())
        if found or mended:
            logger.warning("found %d calls that no webhook told of, and %d without a job", found, mended)
            self._wake()
        if unclaimed:
            logger.info("%d calls by numbers of which no tenant was ever told", unclaimed)
        return found
