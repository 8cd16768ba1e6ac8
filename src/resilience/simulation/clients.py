"""Who calls, how often, and from how many processes.

- `OpenLoop`: calls come when they come, as from many people who know nothing of each other; what is slow
  does not slow them. Arrivals are Poisson, and each falls to some process by chance, which is the same as a
  Poisson stream for each.
- `ClosedLoop`: each caller waits for the end of its call, then thinks, then calls again; what is slow is
  called less often.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from resilience.checks import count, number
from resilience.simulation.distributions import Exponential, distribution

if TYPE_CHECKING:
    import asyncio

    from resilience.simulation.distributions import Distribution
    from resilience.simulation.world import Process, World


class Clients(Protocol):
    """Client processes of one kind."""

    @property
    def processes(self) -> int:
        """How many there are."""
        ...

    @property
    def timeout(self) -> float | None:
        """Seconds that they wait for the answer to one attempt."""
        ...

    def start(self, world: World, processes: list[Process]) -> Load:
        """Let them begin to call."""
        ...


class Load(Protocol):
    """Clients that are calling."""

    def changed(self) -> None:
        """Take note that `world.load` has changed."""
        ...


@dataclass(frozen=True, kw_only=True)
class OpenLoop:
    """Calls that come by themselves.

    Args:
        rate: Calls per second of all processes together, above 0.
        processes: How many client processes there are, at least 1.
        timeout: Seconds that they wait for the answer to one attempt, above 0; None for as long as it takes.
    """

    rate: float = 400.0
    processes: int = 50
    timeout: float | None = 1.0

    def __post_init__(self) -> None:
        """Check the figures."""
        number("rate", self.rate, above=0)
        _check(self)

    def start(self, world: World, processes: list[Process]) -> Load:
        """Let them begin to call."""
        return _Arrivals(self.rate, world, processes)


_ONE_SECOND: Final = Exponential(1.0)


@dataclass(frozen=True, kw_only=True)
class ClosedLoop:
    """Callers that wait for one call to end before they make the next.

    Args:
        callers: How many there are in each process, at least 1.
        think_time: Seconds between the end of a call and the next; divided by the load of a spike. Not always
            0, or time would stand still once calls are rejected at once.
        processes: How many client processes there are, at least 1.
        timeout: Seconds that they wait for the answer to one attempt, above 0; None for as long as it takes.
    """

    callers: int = 8
    think_time: Distribution = _ONE_SECOND
    processes: int = 50
    timeout: float | None = 1.0

    def __post_init__(self) -> None:
        """Check the arguments."""
        count("callers", self.callers, least=1)
        distribution("think_time", self.think_time)
        _check(self)

    def start(self, world: World, processes: list[Process]) -> Load:
        """Let them begin to call."""
        return _Callers(self, world, processes)


def _check(clients: Clients) -> None:
    count("processes", clients.processes, least=1)
    if clients.timeout is not None:
        number("timeout", clients.timeout, above=0)


class _Arrivals:
    """An open loop that is under way."""

    def __init__(self, rate: float, world: World, processes: list[Process]) -> None:
        self._processes = processes
        self._random = world.random("arrivals")
        self._rate = rate
        self._world = world
        self._timer: asyncio.TimerHandle
        self._wait()

    def _wait(self) -> None:
        seconds = self._random.expovariate(self._rate * self._world.load)
        self._timer = self._world.loop.call_later(seconds, self._arrive)

    def _arrive(self) -> None:
        process = self._processes[int(self._random.random() * len(self._processes))]
        process.call(int(self._random.random() * len(self._world.servers)))
        self._wait()

    def changed(self) -> None:
        """Draw anew when the next call comes: what has no memory may forget that it was waiting."""
        self._timer.cancel()
        self._wait()


class _Callers:
    """A closed loop that is under way."""

    def __init__(self, clients: ClosedLoop, world: World, processes: list[Process]) -> None:
        self._clients = clients
        self._world = world
        for process in processes:
            for caller in range(clients.callers):
                world.spawn(self._call_for_ever(process, caller))

    async def _call_for_ever(self, process: Process, caller: int) -> None:
        world = self._world
        random = world.random(f"caller {process.number} {caller}")
        while True:
            await world.clock.sleep_async(self._clients.think_time(random) / world.load)
            await process.call(int(random.random() * len(world.servers)))

    def changed(self) -> None:
        """Do nothing: whoever thinks already goes on as they began."""
