"""Messages take their time, or get lost."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from resilience.simulation.distributions import Constant
from resilience.simulation.loop import simulate
from resilience.simulation.network import Link, Network


def carried(network, count=1000, delay=0.0, loss=0.0):
    """Return the instants at which messages arrived."""

    async def main(clock):
        arrived = []
        link = Link(network, asyncio.get_running_loop(), Random(1))
        link.worsen(delay, loss)
        for message in range(count):
            link.carry(lambda _: arrived.append(clock.now()), message)
        await asyncio.sleep(10)
        return arrived

    return simulate(main)


def test_without_delay_a_message_is_there_at_once():
    assert carried(Network()) == [0.0] * 1000


def test_delay_and_trouble_add_up():
    assert carried(Network(delay=Constant(0.5)), count=2, delay=0.25) == [0.75, 0.75]


@pytest.mark.parametrize(("own", "trouble", "arriving"), [(0.5, 0.0, 500), (0.5, 0.5, 250), (0.0, 1.0, 0)])
def test_messages_get_lost(own, trouble, arriving):
    assert len(carried(Network(loss=own), loss=trouble)) == pytest.approx(arriving, abs=50)


def test_figures_out_of_range_are_refused():
    with pytest.raises(ValueError, match="loss must be"):
        Network(loss=1.1)
    with pytest.raises(TypeError, match="delay=1 must be a distribution"):
        Network(delay=1)
