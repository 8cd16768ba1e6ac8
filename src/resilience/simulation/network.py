"""What lies between clients and servers: messages take their time, or get lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resilience.checks import number
from resilience.simulation.distributions import Constant, distribution

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable
    from random import Random

    from resilience.simulation.distributions import Distribution

NO_DELAY = Constant(0.0)


@dataclass(frozen=True, kw_only=True)
class Network:
    """How messages travel, in each direction alike.

    Args:
        delay: Seconds that one message takes; later ones may overtake it.
        loss: The share of messages that never arrive, 0 to 1. Nobody is told: clients need a timeout.
    """

    delay: Distribution = NO_DELAY
    loss: float = 0.0

    def __post_init__(self) -> None:
        """Check the arguments."""
        distribution("delay", self.delay)
        number("loss", self.loss, least=0, most=1)


class Link:
    """A network while a simulation is under way.

    Args:
        network: How it is when nothing is the matter.
        loop: Whose time messages take.
        random: What chance is drawn from.
    """

    def __init__(self, network: Network, loop: AbstractEventLoop, random: Random) -> None:
        self._delay = network.delay
        self._loop = loop
        self._loss = network.loss
        self._random = random
        self.worsen(0.0, 0.0)

    def worsen(self, delay: float, loss: float) -> None:
        """Add `delay` seconds to what each message takes, and lose a share of those that would arrive."""
        self._more_delay = delay
        self._lost = 1.0 - (1.0 - self._loss) * (1.0 - loss)
        self._is_perfect = self._delay == NO_DELAY and not delay and not self._lost

    def carry(self, deliver: Callable[..., object], *message: Any) -> None:
        """Call `deliver` with the message when that arrives, if it does."""
        if self._is_perfect:
            deliver(*message)
        elif not self._lost or self._random.random() >= self._lost:
            delay = self._delay(self._random) + self._more_delay
            self._loop.call_later(delay, deliver, *message)
