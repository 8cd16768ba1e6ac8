"""Doing what is still to be done about calls, whatever happens to those who do it.

A job is a row beside its call, written in the same transaction as whatever made it necessary. So nothing that
was announced is forgotten, by whatever process and at whatever moment it ends. The rules:

- A worker takes a job by a lease and changes its row only while the lease is its own. The lease lasts longer
  than the work's deadline; of a worker that was killed it runs out, and whoever comes next takes the job up.
- The work may therefore be done twice, but counts once: the object has the same name both times, and only
  one of the two finds the row as it left it.
- A recording that is not there yet is no failure and no attempt: it is looked for again when the provider
  says. Nor is a breaker that rejects, or a limit that is used up: the job waits until it is let through.
- What fails is tried again, at growing intervals of five minutes at most, until it is three days old. What
  would fail for ever is given up before, and its tenant can read why.
- A call that was deleted has its object removed at once, and once more after all leases of before have run
  out: who was just storing it cannot bring it back.
"""

from __future__ import annotations

import itertools
import logging
from dataclasses import dataclass
from functools import partial
from random import random as system_random
from typing import TYPE_CHECKING, Any, Final, Protocol

from examples.backend.domain.bringing import UnknownCallError, UnusableError
from examples.backend.domain.recordings import NotReady, flight_of
from resilience import CircuitOpenError, RateLimitedError, ServiceError, service_unavailable_error
from resilience.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import Callable

    from examples.backend.domain.bringing import Bringer
    from examples.backend.domain.recordings import Call, Flights, Recording
    from resilience.clock import Clock

logger: Final = logging.getLogger("backend.jobs")

NOT_FOUND: Final = 404
FIRST_PAUSE: Final = 2.0
"""Seconds after the first failure; twice as many after each further one."""
LONGEST_PAUSE: Final = 300.0
SHORTEST_WAIT: Final = 1.0
"""Seconds that a job waits at least, whoever says that it need not: nothing is asked again in a circle."""
TOO_OLD: Final = 3 * 86_400.0
"""Seconds after which a job that still fails is given up: the longest weekend, and then some."""
MOST_DOUBLINGS: Final = 16
MOST_DOUBTS: Final = 8
"""Attempts, some four minutes, after which it is believed that the provider does not know a call, or has no
sound where it should be. A webhook may be quicker than its database, and whatever stands between us may
answer in its place while it is down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A call that something is to be done about, and that is leased to us."""

    call_sid: str
    tenant: str
    state: str
    """The call's: one that was deleted is to be removed, any other brought."""
    attempts: int
    """How many have failed."""
    created_at: float
    """Unix seconds at which it became necessary."""
    lease: str


@dataclass(frozen=True, slots=True)
class Later:
    """A job is to be tried again."""

    seconds: float
    failed: bool
    """Whether that was an attempt, which failed."""


@dataclass(frozen=True, slots=True)
class Never:
    """A job is given up."""

    state: str
    """What becomes of the call: `missing` or `failed`."""
    reason: str
    """Why, for the tenant to read."""


class Queue(Protocol):
    """The jobs. What changes one returns whether it was still leased as it says; if not, nothing is done."""

    async def claim(self, lease: str, now: float, until: float) -> Job | None:
        """Lease the job that has been due for longest; None if none is."""
        ...

    async def note(self, job: Job, call: Call) -> bool:
        """Keep what the provider tells about the call; if it has a recording, that is being fetched now."""
        ...

    async def store(self, job: Job, recording: Recording) -> bool:
        """Enter the recording; the job is done."""
        ...

    async def put_off(self, job: Job, not_before: float, attempts: int, error: str | None) -> bool:
        """Have the job done later, by anybody."""
        ...

    async def give_up(self, job: Job, never: Never) -> bool:
        """Say what has become of the call; the job is done."""
        ...

    async def finish(self, job: Job) -> bool:
        """Forget a job that is done."""
        ...

    async def hand_back(self, leases: str) -> int:
        """End all leases that begin so; return how many there were."""
        ...


class Worker:
    """Does jobs. Any number of tasks or threads may call it at the same time.

    Args:
        queue: The jobs.
        bringer: Brings recordings.
        flights: Shares fetches with those who ask for a recording.
        process: Tells this process's leases from those of all others.
        lease: Seconds; longer than bringing a recording may take.
        clock: Where the time comes from.
        random: Returns a random number in [0, 1).
    """

    def __init__(
        self,
        *,
        queue: Queue,
        bringer: Bringer,
        flights: Flights,
        process: str,
        lease: float,
        clock: Clock = SYSTEM_CLOCK,
        random: Callable[[], float] = system_random,
    ) -> None:
        self._queue = queue
        self._bringer = bringer
        self._flights = flights
        self._process = process
        self._lease = lease
        self._clock = clock
        self._random = random
        self._numbers = itertools.count(1)  # `next` on it is atomic, with and without the GIL

    async def work(self) -> bool:
        """Do the next job that is due; return whether there was one."""
        now = self._clock.wall()
        job = await self._queue.claim(f"{self._process}/{next(self._numbers)}", now, now + self._lease)
        if job is None:
            return False
        try:
            await (self._remove(job) if job.state == "deleted" else self._bring(job))
        except Exception as error:  # noqa: BLE001 - whatever it is, the job has to go on or come to an end
            await self._after(job, error)
        return True

    async def hand_back(self) -> None:
        """Let others have at once what this process still had in hand; its workers have stopped."""
        if handed_back := await self._queue.hand_back(f"{self._process}/"):
            logger.info("handed back %d jobs", handed_back)

    async def _bring(self, job: Job) -> None:
        outcome = await self._flights.share(
            flight_of(job.call_sid, job.tenant), partial(self._bring_and_enter, job)
        )
        if isinstance(outcome, NotReady):
            not_before = self._clock.wall() + max(outcome.retry_after, SHORTEST_WAIT)
            await self._queue.put_off(job, not_before, job.attempts, None)

    async def _bring_and_enter(self, job: Job) -> Recording | NotReady:
        brought = await self._bringer.bring(job.call_sid, job.tenant, partial(self._note, job))
        if not isinstance(brought, NotReady) and not await self._queue.store(job, brought):
            raise _taken_over(job)
        return brought

    async def _note(self, job: Job, call: Call) -> None:
        if not await self._queue.note(job, call):
            raise _taken_over(job)

    async def _remove(self, job: Job) -> None:
        """Remove a deleted call's object; the job is done once nobody can be storing it any longer."""
        await self._bringer.discard(job.call_sid, job.tenant)
        settled_at = job.created_at + self._lease
        if self._clock.wall() < settled_at:
            await self._queue.put_off(job, settled_at, 0, None)
        else:
            await self._queue.finish(job)

    async def _after(self, job: Job, error: Exception) -> None:
        """Take note of what came in the way of a job."""
        now = self._clock.wall()
        step = next_step(error, job.attempts, now - job.created_at, self._random())
        if isinstance(step, Never) and job.state == "deleted":  # which has to be, however long it takes
            step = Later(LONGEST_PAUSE, failed=True)
        if isinstance(step, Never):
            logger.warning("call %s is %s: %s", job.call_sid, step.state, step.reason)
            await self._queue.give_up(job, step)
        else:
            known = isinstance(error, ServiceError)
            told = "call %s: %s; again in %.0f s"
            logger.warning(told, job.call_sid, error, step.seconds, exc_info=None if known else error)
            await self._queue.put_off(job, now + step.seconds, job.attempts + step.failed, str(error))


def _taken_over(job: Job) -> ServiceError:
    """Return what those get who wait for a fetch that is ours no longer: somebody else's, or deleted."""
    logger.info("call %s was taken over by somebody else", job.call_sid)
    return service_unavailable_error("The recording", SHORTEST_WAIT)


def next_step(error: Exception, attempts: int, age: float, chance: float) -> Later | Never:
    """Return what becomes of a job, now that an error has come in its way.

    Args:
        error: What was raised.
        attempts: How many have failed before.
        age: Seconds since the job became necessary.
        chance: A random number in [0, 1).

    Example:
        >>> next_step(CircuitOpenError("telephony", 4.2), 0, 0.0, 0.5)
        Later(seconds=4.2, failed=False)
        >>> next_step(TimeoutError(), 2, 0.0, 0.5)
        Later(seconds=6.0, failed=True)
        >>> next_step(UnusableError("the recording is no sound"), 7, 0.0, 0.5)
        Never(state='failed', reason='the recording is no sound')
    """
    no_doubt = attempts + 1 >= MOST_DOUBTS
    if isinstance(error, UnusableError) and (error.final or no_doubt):
        return Never("failed", error.reason)
    if (
        isinstance(error, ServiceError)
        and error.status == NOT_FOUND
        and (no_doubt or not isinstance(error, UnknownCallError))
    ):
        return Never("missing", error.message)
    asked: Any = getattr(error, "retry_after", None)
    wait = max(asked or 0.0, SHORTEST_WAIT)
    if isinstance(error, CircuitOpenError | RateLimitedError):  # nobody was asked, so nothing has failed
        return Later(wait, failed=False)
    if age > TOO_OLD:
        return Never("failed", "it could not be brought for three days")
    whole = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(attempts, MOST_DOUBLINGS))
    return Later(max(wait, whole * (1.0 + chance) / 2.0), failed=True)
