"""Servers: so many workers, a queue before them, and what they do about work that comes too late.

Rules:
    - A worker does one piece of work at a time, and what it has begun it finishes, unless the server stops
      what nobody waits for any more.
    - A refusal costs the server nothing and reaches the client at once; that is what makes it worth having.
    - A server may have a policy of its own, a production object such as a limit of concurrency. It stands
      before the queue, and sees the time that the client has left as the deadline of its context. The client
      gets its rejections as a response, with code and `retry_after`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, prod
from typing import TYPE_CHECKING, Final

from resilience.checks import count, number
from resilience.deadline import deadline
from resilience.errors import ServiceError, service_unavailable_error
from resilience.simulation.distributions import Constant, Exponential, distribution
from resilience.simulation.policies import checked_factory, guarded, made
from resilience.simulation.queues import Fifo

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from resilience.simulation.distributions import Distribution
    from resilience.simulation.policies import Call, Factory
    from resilience.simulation.queues import Discipline
    from resilience.simulation.triggers import Trigger
    from resilience.simulation.world import World

    Reply = asyncio.Future[None]


_TWENTY_MILLISECONDS: Final = Exponential(0.020)
_FIFO: Final = Fifo()


@dataclass(frozen=True, kw_only=True)
class Server:
    """How a server works. The defaults are those of most: it does whatever it is asked, in order.

    Args:
        workers: How many pieces of work it does at a time, at least 1; None for any number.
        service_time: Seconds that a worker takes over one.
        discipline: In which order it takes up what waits: `Fifo()`, `Lifo()` or `CoDel()`.
        queue_limit: How much may wait, at least 0; whatever comes on top is refused at once. None
            for no limit.
        stops_dead_work: Whether it notices that a client has given up, and stops what it does for it or
            strikes it off the queue. Most finish it, and keep their workers busy for nobody.
        least_time_left: Seconds, at least 0: what has less than that left when its turn comes is turned
            away, not begun. Clients must tell their deadline for that. None takes up everything.
        policy: Makes a policy that guards the server: a factory as for clients; None for none.
    """

    workers: int | None = 10
    service_time: Distribution = _TWENTY_MILLISECONDS
    discipline: Discipline = _FIFO
    queue_limit: int | None = None
    stops_dead_work: bool = False
    least_time_left: float | None = None
    policy: Factory | None = None

    def __post_init__(self) -> None:
        """Check the arguments."""
        if self.workers is not None:
            count("workers", self.workers, least=1)
        distribution("service_time", self.service_time)
        if not hasattr(self.discipline, "queue"):
            raise TypeError(f"discipline={self.discipline!r} must be Fifo(), Lifo() or CoDel()")
        if self.queue_limit is not None:
            count("queue_limit", self.queue_limit, least=0)
        if self.least_time_left is not None:
            number("least_time_left", self.least_time_left, least=0)
        if self.policy is not None:
            checked_factory(self.policy, "Server.policy")

    @property
    def capacity(self) -> float | None:
        """How much it can do, per second; None where there is no limit, or no mean to go by."""
        mean = _mean(self.service_time)
        return None if self.workers is None or not mean else self.workers / mean


def _mean(times: Distribution) -> float | None:
    if isinstance(times, Constant):
        return times.seconds
    mean: float | None = getattr(times, "mean", None)
    return mean


class Work:
    """One request that has reached a server.

    Args:
        reply: What the client waits for; None if it waits no more.
        until: The instant at which the client gives up; infinite if never.
    """

    __slots__ = ("_reply", "done", "is_over", "on_leave", "timer", "until")

    def __init__(self, reply: Reply | None, until: float) -> None:
        self._reply = reply
        self.done: Reply | None = None
        """What the server's own policy waits for, where it has one."""
        self.is_over = False
        """Whether the server is through with it."""
        self.on_leave: Callable[[Work], object] | None = None
        """Called with it when the client waits no more."""
        self.timer: asyncio.TimerHandle | None = None
        """The end of the service, once that has begun."""
        self.until = until

    @property
    def is_wanted(self) -> bool:
        """Whether the client still waits for it."""
        return self._reply is not None and not self._reply.done()

    def answer(self, error: Exception | None) -> None:
        """Let the client have its answer, if it still waits."""
        if self._reply is not None:
            settle(self._reply, error)

    def again(self) -> Work:
        """Return the same work, not begun yet."""
        return Work(self._reply, self.until)

    def leave(self) -> None:
        """Take note that the client waits no more: it has its answer, or has given up."""
        self._reply = None  # a long queue must not hold everything that its clients were doing
        if self.on_leave is not None:
            self.on_leave(self)


def settle(reply: Reply, error: Exception | None) -> None:
    """Let `reply` be an answer, unless it is one."""
    if not reply.done():
        if error is None:
            reply.set_result(None)
        else:
            reply.set_exception(error)


class Serving:
    """A server while a simulation is under way.

    Args:
        server: How it works.
        shard: Its number.
        world: Where it stands.
    """

    def __init__(self, server: Server, shard: int, world: World) -> None:
        self.busy = 0
        """How many workers are."""
        self._call_later = world.loop.call_later
        self._carry = world.link.carry
        self._clock = world.clock
        self._log = world.log
        self._loop = world.loop
        self._now = world.clock.now
        self._queue = server.discipline.queue()
        self._random = world.random(f"server {shard}")
        self._server = server
        self._spawn = world.spawn
        self._struck_off = 0
        """How much of the queue is there no more, as the client has given up."""
        self._workers = inf if server.workers is None else server.workers
        self._most_waiting = inf if server.queue_limit is None else server.queue_limit
        self._guarded = (
            None
            if server.policy is None
            else guarded(
                made(server.policy, world.clock, self._random.random, f"server-{shard}"), self._serve
            )
        )
        self.strike([])

    @property
    def waiting(self) -> int:
        """How much is in the queue."""
        return len(self._queue) - self._struck_off

    def strike(self, triggers: list[Trigger]) -> None:
        """Be struck by these from now on, and by no others."""
        self._slowness = 1.0 / prod(trigger.speed for trigger in triggers)
        self._failing = 1.0 - prod(1.0 - trigger.failing for trigger in triggers)
        downs = {trigger.down for trigger in triggers}
        self._down = "hangs" if "hangs" in downs else "refuses" if "refuses" in downs else None

    # --- a request arrives -----------------------------------------------------------------------

    def receive(self, work: Work) -> None:
        """Take a request in, or refuse it."""
        if self._down is not None:
            if self._down == "refuses":
                self._carry(work.answer, ConnectionRefusedError("the server is down"))
        elif self._guarded is None:
            if self._server.stops_dead_work:
                work.on_leave = self._forget
            self._enter(work)
        else:
            task = self._spawn(self._receive_guarded(work, self._guarded))
            if self._server.stops_dead_work:
                work.on_leave = lambda _: task.cancel()

    async def _receive_guarded(self, work: Work, guarded: Call) -> None:
        """Have the work done by way of the server's policy, and tell the client what came of it."""
        error: Exception | None = None
        try:
            if work.until == inf:
                await guarded(work)
            else:
                with deadline(max(0.0, work.until - self._now()), clock=self._clock):
                    await guarded(work)
        except ServiceError as rejection:
            # What a client sees is a response, not the class of our own that was raised.
            error = ServiceError(rejection.message, rejection.code, retry_after=rejection.retry_after)
            if not work.is_over:
                self._log.refused(self._now())
        except OSError as failure:
            error = failure
        self._carry(work.answer, error)

    async def _serve(self, work: Work) -> None:
        """Do the work; this is what the server's policy guards."""
        if work.done is not None:  # a policy that repeats it: the piece before may be in the queue still
            work = work.again()
        work.done = self._loop.create_future()
        self._enter(work)
        try:
            await work.done
        finally:
            self._forget(work)

    def _enter(self, work: Work) -> None:
        if self.busy < self._workers:
            self._begin(work)
        elif self.waiting < self._most_waiting:
            self._queue.put(work, self._now())
        else:
            self._turn_away(work)

    def _turn_away(self, work: Work) -> None:
        work.is_over = True
        if work.is_wanted:
            self._log.refused(self._now())
            self._answer(work, service_unavailable_error("The server"))

    def _answer(self, work: Work, error: Exception | None) -> None:
        if work.done is None:
            self._carry(work.answer, error)
        else:
            settle(work.done, error)

    # --- work is done ----------------------------------------------------------------------------

    def _begin(self, work: Work) -> None:
        self.busy += 1
        seconds = self._server.service_time(self._random) * self._slowness
        work.timer = self._call_later(seconds, self._finish, work)

    def _finish(self, work: Work) -> None:
        work.is_over = True
        work.timer = None  # it holds this work
        if not work.is_wanted:
            self._log.wasted(self._now())
        failed = self._failing and self._random.random() < self._failing
        self._answer(work, ConnectionResetError("the server failed") if failed else None)
        self._go_on()

    def _forget(self, work: Work) -> None:
        """Stop `work`, or strike it off the queue, unless the server is through with it."""
        if work.is_over:
            return
        work.is_over = True
        if work.timer is None:
            self._struck_off += 1
        else:
            work.timer.cancel()
            self._go_on()

    def _go_on(self) -> None:
        """Let a worker that has become free take up what is next."""
        self.busy -= 1
        least = self._server.least_time_left
        while self._queue:
            now = self._now()
            work, is_in_time = self._queue.take(now)
            if work.is_over:
                self._struck_off -= 1
            elif not is_in_time or (least is not None and work.until - now < least):
                self._turn_away(work)
            else:
                self._begin(work)
                return
