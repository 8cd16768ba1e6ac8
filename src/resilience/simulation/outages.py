"""Outages by name: what has taken services down again and again, in figures that are easy to check by hand.

They share one service: ten workers that take 20 ms each, so 500 calls a second; a queue without a bound,
first in, first out, whose work is finished even if nobody waits for it any more; a timeout of 1 s; and 50
client processes that call 400 times a second in all, which is a load of 80 %.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from resilience.simulation.clients import OpenLoop
from resilience.simulation.distributions import Exponential
from resilience.simulation.scenario import Scenario
from resilience.simulation.server import Server
from resilience.simulation.triggers import down, failing, lossy, slow, spike

if TYPE_CHECKING:
    from collections.abc import Mapping

    from resilience.simulation.triggers import Trigger


class Outage(NamedTuple):
    """A scenario that has a name."""

    scenario: Scenario
    about: str
    """What happens, in one line."""


_SHARDS: Final = (Server(workers=10, service_time=Exponential(0.060)),) * 3


def _outage(name: str, about: str, trigger: Trigger, base: Scenario | None = None) -> tuple[str, Outage]:
    scenario = (base or Scenario(duration=120.0)).replace(name=name, triggers=(trigger,))
    return name, Outage(scenario, about)


OUTAGES: Final[Mapping[str, Outage]] = MappingProxyType(
    dict(
        (
            _outage("outage", "a tenth of the capacity for 10 s", slow(0.1, start=20.0)),
            _outage("spike", "three times the load for 10 s", spike(3.0, start=20.0)),
            _outage("down", "connections refused for 30 s", down(start=20.0, length=30.0)),
            _outage("hang", "no answer at all for 30 s", down(hangs=True, start=20.0, length=30.0)),
            _outage("failures", "one request in ten fails for 60 s", failing(0.1, start=20.0, length=60.0)),
            _outage("lossy", "one message in ten gets lost for 60 s", lossy(0.1, start=20.0, length=60.0)),
            _outage(
                "shards",
                "one of three shards refuses connections for 30 s",
                down(start=20.0, length=30.0, shards=(0,)),
                Scenario(servers=_SHARDS, duration=120.0),
            ),
            _outage(
                "many",
                "a tenth of the capacity for 10 s, and 500 clients of little traffic each",
                slow(0.1, start=20.0),
                Scenario(clients=OpenLoop(processes=500), duration=120.0),
            ),
        )
    )
)
"""What `python -m resilience simulate` knows."""
