from __future__ import annotations

import copy
import gc
import pickle

import pytest

from resilience._core.counting import Charge
from resilience._core.key import canonical
from resilience._core.table import SHARDS
from resilience.events import subscribe
from resilience.stores.memory import MemoryStore
from resilience.stores.on_loop import on_loop
from resilience.testing import FakeClock
from tests.stores.conformance import (  # noqa: F401 - fixtures
    StoreConformance,
    awaited,
    clock,
    counter,
    six,
    store,
)


@pytest.fixture
def make_store():
    return lambda clock: MemoryStore(clock=clock)  # noqa: F811 - the fixture's name is the argument's too


class TestConformance(StoreConformance):
    pass


class TestConformanceOnALoop(StoreConformance):
    @pytest.fixture
    def make_store(self, make_store, awaited):  # noqa: F811 - the fixture's name is the argument's too
        return lambda clock: awaited(lambda: on_loop(make_store(clock)))  # noqa: F811 - as above


def test_counts_by_process_and_never_blocks():
    assert not MemoryStore.shared
    assert not MemoryStore.blocking


@pytest.mark.parametrize("most", [True, 1.5, "9"])
def test_max_keys_is_a_whole_number(most):
    with pytest.raises(TypeError, match="max_keys must be a whole number"):
        MemoryStore(most)


def test_max_keys_is_positive():
    with pytest.raises(ValueError, match="max_keys must be at least 1"):
        MemoryStore(0)


def test_the_machine_s_clock_is_read_by_itself():
    each = counter("1/0.001 seconds")
    machine = MemoryStore()
    assert machine.take([Charge(each, "ada")])[0]
    while not machine.take([Charge(each, "ada")])[0]:
        pass


def test_an_injected_clock_stands_still_until_it_has_caught_up():
    fake = FakeClock()
    here = MemoryStore(clock=fake)
    each = counter("1/minute")
    here.take([Charge(each, "ada")])
    fake.step(-30)
    assert here.peek([Charge(each, "ada")])[0].retry_after == 60
    fake.step(30 + 60)
    assert here.peek([Charge(each, "ada")])[0]


class Spy:
    """Stands for what is asked where the fast path cannot answer."""

    def __init__(self):
        self.asked = []

    def __call__(self, *key, cost=1):
        self.asked.append((key, cost))
        return "asked"


@pytest.fixture
def otherwise():
    return Spy()


def fast(here, each, otherwise, waiting=(), hooks=()):
    here.take([Charge(each, "ada")])
    here.take([Charge(each, b"")])
    return here.fast_path(each, waiting, hooks, otherwise)


@pytest.mark.parametrize("notation", ["3/hour", "3/hour gcra", "3/hour fixed-window"])
def test_fast_path_decides_as_take_does(notation, otherwise):
    here = MemoryStore(clock=FakeClock())
    each = counter(notation)
    take_one = fast(here, each, otherwise)
    decisions = [take_one("ada") for _ in range(3)]
    assert [decision.remaining for decision in decisions] == [1, 0, 0]
    assert [bool(decision) for decision in decisions] == [True, True, False]
    assert decisions[2] == here.take([Charge(each, "ada")])[0]
    assert take_one().remaining == 1  # no key at all is everybody's
    assert not otherwise.asked


def test_fast_path_takes_keys_of_several_parts(otherwise):
    here = MemoryStore(clock=FakeClock())
    each = counter("3/hour")
    take_one = fast(here, each, otherwise)
    here.take([Charge(each, canonical(("ada", "::1")))])
    assert [take_one("ada", "::1").remaining, take_one("ada").remaining] == [1, 1]
    with pytest.raises(ValueError, match="a part of the key is empty"):
        take_one("ada", "")
    assert not otherwise.asked


def test_fast_path_leaves_the_rest_to_others(otherwise):
    fake = FakeClock()
    here = MemoryStore(clock=fake)
    waiting = {}
    take_one = fast(here, counter("1/hour"), otherwise, waiting)
    assert take_one("bob") == take_one("ada", "::1") == take_one("ada", cost=2) == "asked"
    assert otherwise.asked == [(("bob",), 1), (("ada", "::1"), 1), (("ada",), 2)]
    waiting["bob"] = True
    assert take_one("ada") == take_one() == "asked"
    waiting.clear()
    fake.advance(3600 / SHARDS + 1)
    assert take_one("ada") == "asked"  # a shard is due


def test_fast_path_tells_of_refusals_where_somebody_listens(otherwise):
    here = MemoryStore(clock=FakeClock())
    each = counter("1/hour")
    assert fast(here, each, otherwise, hooks=("listener",))("ada") == "asked"
    unsubscribe = subscribe(lambda event: None)
    assert here.fast_path(each, (), (), otherwise)("ada") == "asked"
    unsubscribe()
    assert not here.fast_path(each, (), (), otherwise)("ada")


def test_fast_path_gives_way_to_a_thread_in_between(otherwise):
    machine = MemoryStore()
    each = counter("6/hour")
    take_one = fast(machine, each, otherwise)
    lock = machine._lock

    class Between:
        def __enter__(self):
            machine._lock = lock
            machine.take([Charge(each, "ada")])

        def __exit__(self, *exception):
            pass

    machine._lock = Between()
    assert take_one("ada") == "asked"
    assert machine.peek([Charge(each, "ada")])[0].remaining == 4


@pytest.mark.parametrize("notation", ["3/hour", "3/hour gcra", "3/hour fixed-window"])
def test_an_entry_takes_one_unit_or_leaves_it_to_take(notation):
    fake = FakeClock()
    here = MemoryStore(clock=fake)
    each = counter(notation)
    waiting = {}
    take_one = here.entry(each, waiting)
    assert not take_one("ada")  # there is something to tidy up
    here.take([Charge(each, "ada")])
    assert not take_one("bob")  # who is not held
    assert take_one("ada")
    waiting["ada"] = True
    assert not take_one("ada")
    waiting.clear()
    assert [take_one("ada"), take_one("ada")] == [True, False]
    assert here.peek([Charge(each, "ada")])[0].remaining == 0
    fake.advance(3600 / SHARDS + 1)
    assert not take_one("ada")  # a shard is due


def test_an_entry_gives_way_to_a_thread_in_between():
    machine = MemoryStore()
    each = counter("6/hour")
    take_one = machine.entry(each, ())
    machine.take([Charge(each, "ada")] * 2)  # the first one may tidy up
    machine.take([Charge(each, "ada")])
    lock = machine._lock

    class Between:
        def __enter__(self):
            machine._lock = lock
            machine.take([Charge(each, "ada")])

        def __exit__(self, *exception):
            pass

    before = machine.peek([Charge(each, "ada")])[0].remaining
    machine._lock = Between()
    assert not take_one("ada")
    assert machine.peek([Charge(each, "ada")])[0].remaining == before - 1


def test_no_state_stays_with_the_garbage_collector():
    here = MemoryStore()
    for notation in ("6/15 minutes", "6/15 minutes gcra", "100/15 minutes", "6/15 minutes fixed-window"):
        here.take([Charge(counter(notation), "ada")])
    states = [state for table in here._tables.values() for shard in table.young for state in shard.values()]
    assert len(states) == 4
    gc.collect()  # it lets go of a tuple that holds nothing of interest to it at the first sight of it
    assert not any(map(gc.is_tracked, states))


def test_spare_places_are_not_shown():
    here = MemoryStore(1, clock=FakeClock())
    each = counter()
    for key in ("ada", "bob", "eve"):
        here.take([Charge(each, key)])
    holding = here.holding([each], 10)
    assert holding.size == 2
    assert [entry.key for entry in holding.entries] == ["ada"]


def test_a_reset_frees_nobody_else_in_a_spare_place():
    here = MemoryStore(1, clock=FakeClock())
    each = counter("1/hour")
    for key in ("ada", "bob"):
        here.take([Charge(each, key)])
    here.reset([each], "eve")
    assert not here.take([Charge(each, "bob")])[0]
    here.reset([each], "ada")
    assert here.holding([each], 10).entries == ()


def test_the_lock_is_new_after_a_fork():
    here = MemoryStore()
    before = here._lock
    here.after_fork()
    assert here._lock is not before
    assert here.take([Charge(counter(), "ada")])[0]


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_it_is_not_copied(duplicate):
    with pytest.raises(TypeError, match="share the one there is"):
        duplicate(MemoryStore())
