"""What goes wrong, and when: the push after which a system recovers, or does not.

A trigger is over when it is over. What goes on afterwards is the system's own doing, and is what a
simulation is there to show.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from resilience.checks import count, number

ALL_SHARDS: Final = None


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """Something that goes wrong for a while; `slow`, `down`, `spike`, `failing` and `lossy` make the usual.

    Args:
        start: Seconds after the beginning, at least 0.
        length: Seconds that it lasts, above 0.
        speed: What the servers' speed is multiplied by, above 0: 0.1 is a tenth of the capacity. It counts
            for work that is begun meanwhile.
        down: What happens to requests that arrive meanwhile: `"refuses"`, they are refused at once, as by
            a port that is closed; `"hangs"`, nobody ever hears of them again. What the server has
            already, it finishes. None takes them in.
        failing: The share of requests that fail after having been worked on, 0 to 1.
        load: What the clients' load is multiplied by, above 0.
        delay: Seconds that are added to each message's way, at least 0.
        loss: The share of messages that get lost, 0 to 1, on top of the network's own.
        shards: Whose servers it strikes, by their numbers from 0; None strikes all. Load and network are
            always struck as a whole.
    """

    start: float = 60.0
    length: float = 10.0
    speed: float = 1.0
    down: Literal["refuses", "hangs"] | None = None
    failing: float = 0.0
    load: float = 1.0
    delay: float = 0.0
    loss: float = 0.0
    shards: tuple[int, ...] | None = ALL_SHARDS

    def __post_init__(self) -> None:
        """Check the arguments."""
        number("start", self.start, least=0)
        number("length", self.length, above=0)
        number("speed", self.speed, above=0)
        number("failing", self.failing, least=0, most=1)
        number("load", self.load, above=0)
        number("delay", self.delay, least=0)
        number("loss", self.loss, least=0, most=1)
        if self.down not in {None, "refuses", "hangs"}:
            raise ValueError(f"down={self.down!r} must be 'refuses', 'hangs' or None")
        if self.shards is not None:
            if not isinstance(self.shards, tuple):  # pyright: ignore[reportUnnecessaryIsInstance] - from untyped code
                raise TypeError(f"shards={self.shards!r} must be a tuple of numbers, such as (0,)")
            for shard in self.shards:
                count("shards", shard, least=0)

    @property
    def end(self) -> float:
        """Seconds after the beginning at which it is over."""
        return self.start + self.length

    def strikes(self, shard: int) -> bool:
        """Whether the servers of `shard` are struck."""
        return self.shards is None or shard in self.shards

    def replace(self, **changes: Any) -> Trigger:
        """Return one with other arguments."""
        return replace(self, **changes)


def slow(speed: float = 0.1, *, start: float = 60.0, length: float = 10.0, **more: Any) -> Trigger:
    """Return a trigger that leaves the servers `speed` of their capacity."""
    return Trigger(start=start, length=length, speed=speed, **more)


def down(*, hangs: bool = False, start: float = 60.0, length: float = 10.0, **more: Any) -> Trigger:
    """Return a trigger that takes the servers down: they refuse connections, or `hangs`: never answer."""
    return Trigger(start=start, length=length, down="hangs" if hangs else "refuses", **more)


def spike(load: float = 3.0, *, start: float = 60.0, length: float = 10.0, **more: Any) -> Trigger:
    """Return a trigger that multiplies the load."""
    return Trigger(start=start, length=length, load=load, **more)


def failing(share: float, *, start: float = 60.0, length: float = 10.0, **more: Any) -> Trigger:
    """Return a trigger that makes `share` of the requests fail."""
    return Trigger(start=start, length=length, failing=share, **more)


def lossy(
    loss: float, *, delay: float = 0.0, start: float = 60.0, length: float = 10.0, **more: Any
) -> Trigger:
    """Return a trigger that loses a share of the messages, and delays the others."""
    return Trigger(start=start, length=length, loss=loss, delay=delay, **more)
