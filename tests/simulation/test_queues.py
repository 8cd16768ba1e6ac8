"""The orders in which a server takes up what waits."""

from __future__ import annotations

import pytest

from resilience.simulation.queues import CoDel, Fifo, Lifo


def test_first_in_first_out():
    queue = Fifo().queue()
    for work in "abc":
        queue.put(work, 0.0)
    assert len(queue) == 3
    assert [queue.take(9.0) for _ in range(3)] == [("a", True), ("b", True), ("c", True)]


def test_last_in_first_out():
    queue = Lifo().queue()
    for work in "abc":
        queue.put(work, 0.0)
    assert [queue.take(9.0)[0] for _ in range(3)] == ["c", "b", "a"]


def test_codel_lets_a_short_queue_wait_and_cuts_a_standing_one():
    queue = CoDel(target=0.005, interval=0.1).queue()
    queue.put("patient", 1.0)  # the queue was empty just now
    queue.put("also patient", 1.05)
    queue.put("hasty", 1.2)  # it has not been empty for 0.2 s
    assert queue.take(1.1) == ("patient", True)
    assert queue.take(1.2) == ("also patient", False)
    assert queue.take(1.21) == ("hasty", False)
    assert len(queue) == 0
    queue.put("patient again", 1.3)
    assert queue.take(1.39) == ("patient again", True)


@pytest.mark.parametrize("limits", [{"target": 0}, {"target": 0.2}, {"interval": 0.001}])
def test_figures_out_of_range_are_refused(limits):
    with pytest.raises(ValueError, match="must be a finite number"):
        CoDel(**limits)
