from __future__ import annotations

import copy
import pickle
from contextlib import suppress

import pytest

from resilience.breaker.registry import BreakerRegistry
from resilience.testing import FakeClock


@pytest.fixture
def clock():
    return FakeClock()


def fail(breaker, times=1):
    for _ in range(times):
        with suppress(OSError), breaker.guard():
            raise OSError


def test_one_breaker_for_each_key():
    hosts = BreakerRegistry(2, 60.0, name="hosts")

    assert hosts.get("a") is hosts.get("a")
    assert hosts.get("a") is not hosts.get("b")
    assert hosts.get("a").name == "hosts:a"
    assert len(hosts) == 2


def test_without_a_name_the_key_is_the_name():
    assert BreakerRegistry().get(("shard", 7)).name == "('shard', 7)"


def test_all_share_the_settings_and_none_the_state(clock):
    hosts = BreakerRegistry(2, 60.0, clock=clock, recovery_jitter=0.0)
    fail(hosts.get("a"), 2)

    assert hosts.get("a").snapshot().time_until_retry == 60.0
    assert hosts.get("b").is_closed
    assert {key: snapshot.state for key, snapshot in hosts.snapshots().items()} == {
        "a": "open",
        "b": "closed",
    }


def test_a_key_may_have_options_of_its_own():
    hosts = BreakerRegistry(5, 60.0)

    assert hosts.get("a", failure_threshold=2).snapshot().threshold == 2
    assert hosts.get("a").snapshot().threshold == 2
    assert hosts.get("a", failure_threshold=2) is hosts.get("a")


def test_conflicting_options_are_refused():
    hosts = BreakerRegistry(5, 60.0)
    hosts.get("a")

    with pytest.raises(ValueError, match="the breaker of 'a' was made with"):
        hosts.get("a", failure_threshold=2)


def test_beyond_the_cap_one_that_nobody_asked_for_is_forgotten_first():
    hosts = BreakerRegistry(2, 60.0, max_keys=3)
    a, b, c = (hosts.get(key) for key in "abc")
    hosts.get("d")  # all were asked for: the oldest goes
    assert hosts.get("b") is b

    hosts.get("e")

    assert len(hosts) == 3
    assert hosts.get("b") is b
    assert "c" not in hosts.snapshots()
    assert a is not c


def test_one_with_trouble_is_not_forgotten_before_its_time(clock):
    hosts = BreakerRegistry(2, 60.0, max_keys=2, forget_after=30.0, clock=clock, recovery_jitter=0.0)
    failing, opened = hosts.get("failing"), hosts.get("open")
    fail(failing)
    fail(opened, 2)
    for key in range(50):
        hosts.get(key)
    assert hosts.snapshots().keys() == {"failing", "open"}

    clock.advance(30.0)
    hosts.get("new")
    assert hosts.snapshots().keys() == {"open", "new"}

    clock.advance(60.0)
    hosts.get("newer")
    hosts.get("newest")
    assert "open" not in hosts.snapshots()


def test_if_all_have_trouble_a_new_key_shares_the_overflow_breaker(clock):
    hosts = BreakerRegistry(2, 60.0, max_keys=1, name="hosts", clock=clock)
    fail(hosts.get("a"))

    assert hosts.get("b") is hosts.get("c")
    assert hosts.get("b").name == "hosts:(overflow)"


def test_breakers_of_a_registry_are_shared_by_their_names(clock):
    class Board:
        names = []  # noqa: RUF012 - for this test alone

        def enrol(self, gate, core):
            self.names.append(gate.name)
            return lambda: None

    hosts = BreakerRegistry(2, 60.0, name="hosts", clock=clock, shared=Board(), quorum=2)
    hosts.get("a.example")

    assert Board.names == ["hosts:(overflow)", "hosts:a.example"]


def test_one_held_by_hand_is_never_forgotten(clock):
    hosts = BreakerRegistry(2, 60.0, max_keys=1, clock=clock)
    hosts.get("a").force_open()
    clock.advance(1e9)
    hosts.get("b")

    assert hosts.get("a").state == "forced-open"


def test_a_new_key_looks_at_few_breakers_only(clock):
    hosts = BreakerRegistry(2, 60.0, max_keys=100, clock=clock)
    for key in range(99):
        fail(hosts.get(key))
    quiet = hosts.get("quiet")

    asked = [hosts.get(f"new {number}") for number in range(13)]

    assert asked.count(asked[0]) == 12  # the overflow breaker, until the quiet one came up
    assert hosts.get("new 12") is asked[12]
    assert quiet.name not in hosts.snapshots()


@pytest.mark.parametrize("wrong", [{"max_keys": 0}, {"forget_after": 0}, {"probes": 0}])
def test_wrong_arguments(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        BreakerRegistry(**wrong)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_it_is_not_copied(duplicate):
    with pytest.raises(TypeError, match="BreakerRegistry 'hosts' cannot be copied or pickled"):
        duplicate(BreakerRegistry(name="hosts"))


class LateKey:
    """A key that is added by somebody else in the moment between the two looks for it."""

    def __init__(self, hosts):
        self.hosts = hosts
        self.looks = 0

    def __hash__(self):
        self.looks += 1
        if self.looks == 2:
            self.made = self.hosts.get(self)
        return 7


def test_who_loses_the_race_for_a_key_gets_the_winner_s_breaker():
    hosts = BreakerRegistry()
    key = LateKey(hosts)

    assert hosts.get(key) is key.made
    assert len(hosts) == 1
