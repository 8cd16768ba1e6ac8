"""A simulation under way: the clock, the servers and what lies between, in one place."""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from math import inf
from random import Random
from typing import TYPE_CHECKING, Any

from resilience.deadline import CURRENT
from resilience.retry.budget import begin_process
from resilience.simulation.log import Log, Outcome
from resilience.simulation.network import Link
from resilience.simulation.policies import guarded, made
from resilience.simulation.server import Serving, Work, settle

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from contextvars import Context

    from resilience.simulation.clock import SimulatedClock
    from resilience.simulation.policies import Call, Factory
    from resilience.simulation.scenario import Scenario
    from resilience.simulation.triggers import Trigger


class Request:
    """What a client calls with, and what its policy passes on: the argument of the guarded function."""

    __slots__ = ("place", "shard")

    def __init__(self, place: int, shard: int) -> None:
        self.place = place
        """Its place in the log."""
        self.shard = shard
        """The number of the shard that it goes to: what a keyed policy goes by."""


class World:
    """All that there is in one run.

    Args:
        scenario: What is to be run.
        clock: The simulation's.
    """

    def __init__(self, scenario: Scenario, clock: SimulatedClock) -> None:
        self.clock = clock
        self.loop = asyncio.get_running_loop()
        self.log = Log()
        self.over: asyncio.Future[None] = self.loop.create_future()
        """Done when the run is over; fails with what was not foreseen."""
        self.load = 1.0
        """What the clients' load is multiplied by at present."""
        self._scenario = scenario
        self._tasks: set[asyncio.Task[None]] = set()  # the loop itself holds them weakly
        self.link = Link(scenario.network, self.loop, self.random("network"))
        self.servers = [Serving(server, shard, self) for shard, server in enumerate(scenario.shards)]

    def random(self, purpose: str) -> Random:
        """Return where to draw chance from for one purpose, so that none disturbs another.

        With one seed, clients call at the same instants whatever their policy does.
        """
        return Random(f"{self._scenario.seed} {purpose}")  # noqa: S311 - it is to repeat itself

    def spawn(
        self, coroutine: Coroutine[Any, Any, None], context: Context | None = None
    ) -> asyncio.Task[None]:
        """Run `coroutine` as a task; what it raises ends the run."""
        task = self.loop.create_task(coroutine, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) and not self.over.done():
            self.over.set_exception(error)

    def strike(self, triggers: list[Trigger]) -> None:
        """Let these be what goes wrong from now on."""
        for shard, server in enumerate(self.servers):
            server.strike([trigger for trigger in triggers if trigger.strikes(shard)])
        arriving, self.load = 1.0, 1.0
        for trigger in triggers:
            self.load *= trigger.load
            arriving *= 1.0 - trigger.loss
        self.link.worsen(sum(trigger.delay for trigger in triggers), 1.0 - arriving)


class Process:
    """A client process: its own policy, its own budgets, its own chance.

    Args:
        number: From 0.
        world: Where it runs.
        factory: Makes its policy; None for none.
        timeout: Seconds that it waits for the answer to one attempt; None for as long as it takes.
        failures: What its calls may end with.
    """

    def __init__(
        self,
        number: int,
        world: World,
        factory: Factory | None,
        timeout: float | None,
        failures: tuple[type[Exception], ...],
    ) -> None:
        self.number = number
        self._failures = failures
        self._log = world.log
        self._now = world.clock.now
        self._timeout = timeout
        self._world = world
        self._context = copy_context()
        self._guarded = self._context.run(self._begin, factory)

    def _begin(self, factory: Factory | None) -> Call:
        begin_process()
        if factory is None:
            return self._attempt
        name = f"client-{self.number}"
        chance = self._world.random(f"policy {self.number}")
        return guarded(made(factory, self._world.clock, chance.random, name), self._attempt)

    def call(self, shard: int) -> asyncio.Task[None]:
        """Begin a call to `shard`; return its task, which does not fail."""
        return self._world.spawn(self._call(shard), self._context.copy())

    async def _call(self, shard: int) -> None:
        log = self._log
        place = log.begin(self._now(), self.number, shard)
        try:
            await self._guarded(Request(place, shard))
        except self._failures:
            outcome = Outcome.FAILED if log.attempts[place] else Outcome.REJECTED
        else:
            outcome = Outcome.SUCCEEDED
        log.end(place, self._now(), outcome)

    async def _attempt(self, request: Request) -> None:
        """Ask the server once, and wait for its answer as long as the timeout and the deadline allow."""
        now = self._now()
        self._log.attempt(request.place, now)
        until = inf if self._timeout is None else now + self._timeout
        ends = CURRENT.get()
        if ends is not None:
            until = min(until, now + ends.left())
        loop = self._world.loop
        reply = loop.create_future()
        timer = None if until == inf else loop.call_at(until, _give_up, reply)
        work = Work(reply, until)
        try:
            self._world.link.carry(self._world.servers[request.shard].receive, work)
            await reply
        finally:
            del reply  # what it raised holds this frame
            work.leave()
            if timer is not None:
                timer.cancel()


def _give_up(reply: asyncio.Future[None]) -> None:
    settle(reply, TimeoutError("no answer in time"))
