"""A scenario: what a run consists of, frozen; and `run`, which runs one and returns what happened."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from resilience.checks import count, number
from resilience.errors import ServiceError
from resilience.retry.budget import begin_process
from resilience.simulation.clients import OpenLoop
from resilience.simulation.loop import simulate
from resilience.simulation.network import Network
from resilience.simulation.policies import checked_factory
from resilience.simulation.result import Result
from resilience.simulation.server import Server, settle
from resilience.simulation.triggers import Trigger
from resilience.simulation.world import Process, World

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilience.simulation.clients import Clients
    from resilience.simulation.clock import SimulatedClock
    from resilience.simulation.log import Log
    from resilience.simulation.policies import Factory


_CLIENTS: Final = OpenLoop()
_SERVER: Final = Server()
_NETWORK: Final = Network()


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Clients with a policy, servers, what lies between, and what goes wrong.

    Args:
        name: What figures call it.
        clients: Who calls.
        servers: Who answers: one for each shard, among which calls are spread evenly by chance.
        network: What lies between.
        triggers: What goes wrong, in any order.
        policy: Makes each client process's policy (`resilience.simulation.policies`); None for none.
        duration: Seconds that are simulated, above 0.
        warm_up: Seconds at the beginning that do not count, at least 0.
        seed: What chance is drawn from; one seed is one course of events, to the last bit.
        failures: The exceptions that calls may end with. Any other is a fault of the policy, and ends
            the run.

    Raises:
        TypeError, ValueError: An argument is of the wrong kind, or out of its range.

    Example:
        >>> from resilience.simulation import Scenario, run, slow
        >>> calm = Scenario(triggers=(slow(start=5.0, length=1.0),), duration=20.0)
        >>> run(calm).recovery_time
        0.0
    """

    name: str = "scenario"
    clients: Clients = _CLIENTS
    servers: Server | tuple[Server, ...] = _SERVER
    network: Network = _NETWORK
    triggers: tuple[Trigger, ...] = ()
    policy: Factory | None = None
    duration: float = 200.0
    warm_up: float = 5.0
    seed: int = 1
    failures: tuple[type[Exception], ...] = (ServiceError, OSError)

    def __post_init__(self) -> None:
        """Check the arguments."""
        if not hasattr(self.clients, "start"):
            raise TypeError(f"clients={self.clients!r} must be an OpenLoop or a ClosedLoop")
        if not self.shards or not all(isinstance(server, Server) for server in self.shards):  # pyright: ignore[reportUnnecessaryIsInstance] - from untyped code
            raise TypeError(f"servers={self.servers!r} must be a Server, or a tuple of one for each shard")
        if not isinstance(self.network, Network):  # pyright: ignore[reportUnnecessaryIsInstance] - from untyped code
            raise TypeError(f"network={self.network!r} must be a Network")
        if not isinstance(self.triggers, tuple) or not all(isinstance(one, Trigger) for one in self.triggers):  # type: ignore[redundant-expr]  # pyright: ignore[reportUnnecessaryIsInstance] - from untyped code
            raise TypeError(f"triggers={self.triggers!r} must be a tuple of triggers, such as (slow(0.1),)")
        if self.policy is not None:
            checked_factory(self.policy, "Scenario.policy")
        number("duration", self.duration, above=0)
        number("warm_up", self.warm_up, least=0, most=self.duration)
        count("seed", self.seed, least=0)
        for trigger in self.triggers:
            self._check_trigger(trigger)
        loses = self.network.loss or any(one.loss or one.down == "hangs" for one in self.triggers)
        if loses and self.clients.timeout is None:
            raise ValueError(
                "timeout=None, and answers may get lost: such calls would never end; give a timeout"
            )

    def _check_trigger(self, trigger: Trigger) -> None:
        if trigger.end > self.duration:
            raise ValueError(
                f"{trigger!r} ends at {trigger.end:g} s, after the duration of {self.duration:g} s"
            )
        for shard in trigger.shards or ():
            if shard >= len(self.shards):
                raise ValueError(f"{trigger!r} strikes shard {shard}, and there are {len(self.shards)} only")

    @property
    def shards(self) -> tuple[Server, ...]:
        """The servers as a tuple, one for each shard."""
        return self.servers if isinstance(self.servers, tuple) else (self.servers,)

    @property
    def begins(self) -> float:
        """Seconds until the first trigger; the whole duration without any."""
        return min((trigger.start for trigger in self.triggers), default=self.duration)

    @property
    def ends(self) -> float:
        """Seconds until the last trigger is over; the whole duration without any."""
        return max((trigger.end for trigger in self.triggers), default=self.duration)

    def replace(self, **changes: Any) -> Scenario:
        """Return a scenario with other arguments."""
        return replace(self, **changes)


def run(scenario: Scenario, *, progress: Callable[[float], object] | None = None) -> Result:
    """Run `scenario` on simulated time, and return what happened.

    The policies are the production objects themselves. The `random` module is seeded meanwhile, for the sake
    of policies that draw from it, and restored afterwards.

    Args:
        scenario: What to run.
        progress: Called with the part that is done, 0 to 1, at each simulated second; `Progress()` draws it.

    Raises:
        RuntimeError: An event loop is running in this thread already; use `asyncio.to_thread`.
        StandstillError: A policy repeats itself without ever waiting.
        BlockingError: A policy blocks the thread; use its async twin.
        Exception: What a policy raised that is not among `scenario.failures`.
    """
    before = random.getstate()
    random.seed(scenario.seed)
    try:
        log = simulate(lambda clock: _play(scenario, clock, progress or _ignore))
    finally:
        random.setstate(before)
    return Result(scenario, log)


def _ignore(_done: float) -> None:
    """Tell nobody."""


async def _play(scenario: Scenario, clock: SimulatedClock, progress: Callable[[float], object]) -> Log:
    """Let everything happen; return what was written down."""
    begin_process()  # for the servers' policies; this context is the run's alone, and each client has its own
    world = World(scenario, clock)
    clients = scenario.clients
    processes = [
        Process(number, world, scenario.policy, clients.timeout, scenario.failures)
        for number in range(clients.processes)
    ]
    load = clients.start(world, processes)

    def strike() -> None:
        now = clock.now()
        world.strike([trigger for trigger in scenario.triggers if trigger.start <= now < trigger.end])
        load.changed()

    def tick(second: int) -> None:
        world.log.waiting.append(sum(server.waiting for server in world.servers))
        progress(second / scenario.duration)
        world.loop.call_at(second + 1.0, tick, second + 1)

    for trigger in scenario.triggers:
        world.loop.call_at(trigger.start, strike)
        world.loop.call_at(trigger.end, strike)
    tick(0)
    world.loop.call_at(scenario.duration, settle, world.over, None)
    await world.over
    progress(1.0)
    return world.log
