from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from resilience._core.bulkhead import Arrival, Arrived, Slots


def full(queue=2):
    slots = Slots(1, queue)
    slots.arrive("runs", 0)
    return slots


def test_places_are_given_while_there_are_some():
    slots = Slots(2, 0)
    assert [slots.arrive(name, 0).arrival for name in "abc"] == [
        Arrival.ADMITTED,
        Arrival.ADMITTED,
        Arrival.REFUSED,
    ]
    assert (slots.running, slots.waiting) == (2, 0)
    assert slots.release() is None
    assert slots.arrive("d", 0) == Arrived(Arrival.ADMITTED, None)


def test_a_place_goes_on_to_the_first_in_line():
    slots = full()
    assert [slots.arrive(name, 0).arrival for name in "abc"] == [
        Arrival.WAITING,
        Arrival.WAITING,
        Arrival.REFUSED,
    ]
    assert (slots.release(), slots.release(), slots.running) == ("a", "b", 1)
    assert (slots.release(), slots.running) == (None, 0)


def test_a_higher_priority_goes_first():
    slots = full(queue=4)
    for waiter, priority in (("low", 0), ("high", 2), ("middle", 1), ("high too", 2)):
        slots.arrive(waiter, priority)
    assert [slots.release() for _ in range(5)] == ["high", "high too", "middle", "low", None]


def test_the_last_of_the_lowest_makes_room():
    slots = full()
    slots.arrive("first", 1)
    slots.arrive("second", 1)
    assert slots.arrive("same", 1) == (Arrival.REFUSED, None)
    assert slots.arrive("lower", 0) == (Arrival.REFUSED, None)
    assert slots.arrive("higher", 2) == (Arrival.WAITING, "second")
    assert (slots.waiting, slots.release(), slots.release()) == (2, "higher", "first")


def test_without_a_queue_no_priority_helps():
    assert full(queue=0).arrive("high", 9) == (Arrival.REFUSED, None)


def test_one_leaves_the_line_once():
    slots = full()
    slots.arrive("a", 0)
    assert slots.leave("a", 0)
    assert not slots.leave("a", 0)
    assert (slots.waiting, slots.release()) == (0, None)


class AnyOrder(RuleBasedStateMachine):
    """Whatever comes and goes in whatever order, held against a sorted list."""

    @initialize(limit=st.integers(1, 3), queue=st.integers(0, 4))
    def begin(self, limit, queue):
        self.slots = Slots(limit, queue)
        self.line = []  # (minus priority, number) of those who wait: sorted, the first to go first
        self.running = 0
        self.number = 0

    @rule(priority=st.integers(-1, 2))
    def arrive(self, priority):
        self.number += 1
        waiter = (-priority, self.number)
        arrival, evicted = self.slots.arrive(waiter, priority)
        if self.running < self.slots.limit:
            self.running += 1
            assert (arrival, evicted) == (Arrival.ADMITTED, None)
            return
        self.line.append(waiter)
        worst = max(self.line) if len(self.line) > self.slots.queue else None
        if worst is not None:
            self.line.remove(worst)
        assert arrival is (Arrival.REFUSED if worst == waiter else Arrival.WAITING)
        assert evicted == (None if worst == waiter else worst)

    @rule()
    def release(self):
        if self.running:
            expected = min(self.line, default=None)
            assert self.slots.release() == expected
            if expected is None:
                self.running -= 1
            else:
                self.line.remove(expected)

    @rule(data=st.data())
    def leave(self, data):
        if self.line:
            waiter = data.draw(st.sampled_from(self.line))
            assert self.slots.leave(waiter, -waiter[0])
            self.line.remove(waiter)

    @invariant()
    def nobody_waits_beside_a_free_place(self):
        if self.number:
            assert (self.slots.running, self.slots.waiting) == (self.running, len(self.line))
            assert not self.line or self.running == self.slots.limit
            assert all(self.slots._lines.values())


TestAnyOrder = AnyOrder.TestCase
