"""What goes wrong, and when."""

from __future__ import annotations

import pytest

from resilience.simulation.triggers import Trigger, down, failing, lossy, slow, spike


def test_the_usual_ones():
    assert slow(0.1, start=1.0, length=2.0) == Trigger(start=1.0, length=2.0, speed=0.1)
    assert down() == Trigger(down="refuses")
    assert down(hangs=True).down == "hangs"
    assert spike(2.0).load == 2.0
    assert failing(0.1).failing == 0.1
    assert lossy(0.1, delay=0.2) == Trigger(loss=0.1, delay=0.2)


def test_when_and_whom_it_strikes():
    trigger = slow(shards=(1, 2), start=3.0, length=4.0)
    assert trigger.end == 7.0
    assert [trigger.strikes(shard) for shard in range(3)] == [False, True, True]
    assert Trigger().strikes(9)
    assert trigger.replace(speed=0.5).speed == 0.5


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"start": -1}, ValueError),
        ({"length": 0}, ValueError),
        ({"speed": 0}, ValueError),
        ({"failing": 2}, ValueError),
        ({"load": True}, TypeError),
        ({"delay": -1}, ValueError),
        ({"loss": 1.1}, ValueError),
        ({"down": "sleeps"}, ValueError),
        ({"shards": [0]}, TypeError),
        ({"shards": (-1,)}, ValueError),
    ],
)
def test_figures_out_of_range_are_refused(arguments, error):
    with pytest.raises(error, match=next(iter(arguments))):
        Trigger(**arguments)
