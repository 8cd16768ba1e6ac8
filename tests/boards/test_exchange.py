"""Breakers of several processes, one exchange each, in one process: stepped by hand."""

from __future__ import annotations

import gc
import logging
import threading
from contextlib import suppress
from math import inf

import pytest

from resilience import CircuitBreaker
from resilience.boards.exchange import BATCH, Exchange
from resilience.errors import CircuitOpenError
from resilience.testing import FakeClock
from tests.boards.doubles import MemoryEngine

GARBAGE = '{"generation": "yesterday"}'


def failing():
    raise OSError


class Process:
    """A breaker with an exchange of its own."""

    def __init__(self, clock, ledgers, **options):
        self.engine = MemoryEngine(clock, ledgers)
        self.exchange = Exchange(self.engine, 1.0, clock)
        self.changes = []
        self.options = {"name": "storage", "clock": clock, "recovery_jitter": 0.0, "probes": 2, **options}
        self.breaker = self.another()

    def another(self, **options):
        """Return one more breaker."""
        both = {**self.options, **options}
        return CircuitBreaker(1, 60.0, shared=self.exchange, on_change=self.changes.append, **both)

    def trip(self):
        with suppress(OSError):
            self.breaker.execute(failing)

    def is_let_through(self):
        try:
            self.breaker.execute(len, "")
        except CircuitOpenError:
            return False
        return True


class Team:
    """Some processes, whose engines are one."""

    def __init__(self, count=2, **options):
        self.clock = FakeClock()
        self.ledgers = {}
        self.all = [Process(self.clock, self.ledgers, **options) for _ in range(count)]
        for process in self.all:
            for other in self.all:
                process.engine.listeners.append(other.exchange.hear)
        self.step()

    def step(self, rounds=6):
        """Let all carry what there is; no time passes."""
        for _ in range(rounds):
            for process in self.all:
                process.exchange.step(wait=False)

    def pass_(self, seconds):
        self.clock.advance(seconds)
        self.step()

    def states(self):
        return [process.breaker.state for process in self.all]


@pytest.fixture
def team():
    return Team()


def test_when_one_trips_the_others_follow_and_all_close_together(team):
    first, second = team.all
    first.trip()
    team.step()
    assert team.states() == ["open", "open"]
    assert second.changes[0].reason == "opened by another process"
    assert second.breaker.snapshot().time_until_retry == 60.0

    team.pass_(60.0)
    assert (first.is_let_through(), second.is_let_through()) == (True, True)
    team.step()
    assert team.states() == ["closed", "closed"]
    reasons = {
        change.reason for process in team.all for change in process.changes if change.after == "closed"
    }
    assert reasons == {"probes succeeded", "closed by another process"}


def test_what_a_channel_loses_comes_with_the_refresh(team):
    first, second = team.all
    first.engine.listeners.clear()
    first.trip()
    team.step()
    assert second.breaker.state == "closed"

    team.pass_(1.0)

    assert second.breaker.state == "open"


def test_a_caller_who_finds_no_place_has_one_asked_for(team):
    first, second = team.all
    first.trip()
    team.step()
    team.pass_(60.0)
    permits = [process.breaker.acquire() for process in team.all]
    assert not second.is_let_through()
    team.step()
    assert not second.is_let_through()  # two are in flight
    permits[0].neutral()
    team.step()

    assert second.is_let_through()


def test_a_permit_that_is_dropped_gives_its_place_to_another_process(team):
    first, second = team.all
    first.trip()
    team.step()
    team.pass_(60.0)
    permits = [process.breaker.acquire() for process in team.all]
    second.is_let_through()
    team.step()
    del permits[0]
    gc.collect()
    team.step()

    assert second.is_let_through()


def test_breakers_of_one_name_in_one_process_know_each_other(team):
    twin = team.all[0].another()
    stranger = team.all[0].another(name="search")
    team.step()
    team.all[0].trip()
    team.step()

    assert (twin.state, stranger.state) == ("open", "closed")


def test_a_newcomer_learns_at_once_how_things_stand(team):
    team.all[0].trip()
    team.step()
    newcomer = team.all[1].another()
    team.step()

    assert newcomer.state == "open"


def test_many_are_read_in_batches():
    team = Team(1)
    process = team.all[0]
    others = [process.another(name=f"n{number}") for number in range(BATCH + 1)]
    process.engine.asked.clear()
    team.pass_(1.0)

    assert [len(labels) for what, labels in process.engine.asked if what == "read"] == [BATCH, 2]
    assert len(others) == BATCH + 1


def test_a_breaker_that_nobody_holds_is_forgotten(team):
    process = team.all[0]
    others = [process.another(), process.another(name="gone")]
    team.step()
    others.clear()
    gc.collect()
    process.engine.asked.clear()
    team.pass_(1.0)

    assert process.engine.asked == [("read", ["storage"])]


def test_without_a_breaker_nothing_is_asked():
    clock = FakeClock()
    engine = MemoryEngine(clock)
    exchange = Exchange(engine, 1.0, clock)
    exchange.step(wait=False)

    assert engine.asked == []
    assert not exchange.is_needed


def test_one_that_is_gone_when_its_turn_comes_is_passed_over(team):
    process = team.all[0]
    breaker = process.another(name="gone")
    team.step()
    member = breaker._gate.wake.__self__
    member.wake()
    del breaker
    gc.collect()
    team.step()
    process.exchange._bring(member, None, 0.0)
    process.exchange._part(member)

    assert process.exchange._report(member) == inf


# --- trouble -------------------------------------------------------------------------------------


def test_an_engine_that_fails_is_no_error_and_one_line_in_the_log(team, caplog):
    first, _ = team.all
    first.engine.error = OSError("no route")
    first.trip()
    team.step()
    assert not first.exchange.in_touch
    first.breaker.reset()
    first.trip()
    team.step()
    assert team.states() == ["open", "closed"]
    for _ in range(59):
        team.pass_(1.0)
    assert len(caplog.records) == 1
    assert "a dictionary failed, its breakers go on alone: OSError: no route" in caplog.text
    team.pass_(1.0)
    assert first.is_let_through()
    assert first.is_let_through()
    assert team.states() == ["closed", "closed"]

    assert first.exchange.recoveries == 0
    first.engine.error = None
    team.pass_(1.0)
    assert first.exchange.recoveries == 1
    assert "answers again" in caplog.text


def test_what_has_changed_apart_comes_together_when_the_engine_is_back(team):
    first, second = team.all
    first.engine.error = OSError()
    first.trip()
    team.pass_(10.0)
    assert team.states() == ["open", "closed"]
    first.engine.error = None
    team.pass_(1.0)

    assert team.states() == ["open", "open"]
    assert second.breaker.snapshot().time_until_retry == 49.0


def test_an_engine_that_lost_its_data_is_told_it_by_the_refresh(team):
    team.all[0].trip()
    team.step()
    team.ledgers.clear()
    team.pass_(1.0)
    newcomer = team.all[1].another()
    team.step()

    assert newcomer.state == "open"


@pytest.mark.parametrize("when", ["before", "after"])
def test_garbage_is_logged_and_left_and_its_breaker_goes_on_alone(team, caplog, when):
    first, _ = team.all
    other = first.another(name="search")
    if when == "before":
        team.ledgers["storage"] = GARBAGE
        team.pass_(1.0)
    else:
        team.clock.step(-0.5)
        team.ledgers["storage"] = GARBAGE
    first.trip()
    team.step()
    team.pass_(60.0)

    assert first.is_let_through()
    assert first.is_let_through()
    assert team.states() == ["closed", "closed"]
    assert team.ledgers["storage"] == GARBAGE
    assert "the breaker 'storage' goes on alone: GarbledError" in caplog.text
    assert other.state == "closed"
    assert first.exchange.in_touch


def test_a_note_about_an_unknown_ledger_is_ignored(team):
    process = team.all[0]
    process.engine.asked.clear()
    process.exchange.hear("nobody's")
    process.exchange.hear(None)
    process.exchange.step(wait=False)

    assert process.engine.asked == []


# --- waiting -------------------------------------------------------------------------------------


def test_a_step_waits_for_a_note_or_for_the_refresh():
    clock = FakeClock(start=1e9)
    exchange = Exchange(MemoryEngine(clock), 3600.0, clock)
    exchange.step()  # the first refresh is due at once
    done = threading.Event()

    def step():
        exchange.step()
        done.set()

    thread = threading.Thread(target=step)
    thread.start()
    assert not done.is_set()
    exchange.hear(None)
    thread.join(10.0)
    assert done.is_set()


def test_what_is_due_is_looked_at_without_a_note(team):
    team.all[0].trip()
    team.step()
    assert 0 < team.all[0].exchange._rest() <= 1.0
    team.clock.advance(59.5)
    team.step()

    assert team.all[0].exchange._rest() == 0.5


# --- the end and forks ---------------------------------------------------------------------------


def test_who_leaves_gives_back_the_places_that_wait(team):
    first, second = team.all
    first.trip()
    team.step()
    team.pass_(60.0)
    assert len(second.engine.ledgers["storage"].split("/")) == 3  # both have a place

    first.exchange.leave()

    assert len(second.engine.ledgers["storage"].split("/")) == 2
    assert not first.exchange.in_touch
    first.exchange.leave()


def test_who_leaves_parts_with_all_breakers_even_if_the_engine_fails(team):
    first = team.all[0]
    first.trip()
    other = first.another(name="other")
    team.step()
    team.pass_(60.0)
    first.engine.error = OSError("gone")

    with pytest.raises(OSError, match="gone"):
        first.exchange.leave()

    assert [each._gate.core.in_touch for each in (first.breaker, other)] == [False, False]


def test_a_note_that_an_interrupt_left_unwritten_is_made_up_for(team):
    first, second = team.all
    first.breaker._gate.wake.__self__._is_noted = True
    first.trip()
    team.step()
    team.pass_(1.0)

    assert second.breaker.state == "open"


def test_a_forked_child_is_somebody_else_and_holds_no_place(team):
    first = team.all[0]
    first.trip()
    team.step()
    team.pass_(60.0)
    member = first.breaker._gate.wake.__self__
    before = member.voter
    first.exchange.after_fork()

    assert member.voter != before
    assert (first.engine.forks, first.exchange.in_touch) == (2, False)
    assert first.breaker._gate.core._held == set()
    team.step()
    assert first.exchange.in_touch
    assert first.is_let_through() is False  # the parent and the other have both places


def test_a_bad_listener_is_logged_and_hurts_nobody(team, caplog):
    heard = []

    def listener(change):
        heard.append(change)
        raise RuntimeError("a listener's own trouble")

    process = team.all[1]
    loud = CircuitBreaker(
        1, 60.0, shared=process.exchange, on_change=listener, name="storage", clock=team.clock
    )
    team.all[0].trip()
    with caplog.at_level(logging.ERROR):
        team.step()

    assert loud.state == "open"
    assert process.exchange.in_touch
    assert heard
