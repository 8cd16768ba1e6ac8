from __future__ import annotations

import asyncio
import copy
import gc
import inspect
import logging
import os
import pickle
import random
import threading
from contextlib import suppress

import pytest

from resilience._core.counting import Charge
from resilience.breaker import CircuitBreaker
from resilience.deadline import deadline
from resilience.errors import DeadlineExceeded
from resilience.limiter import AsyncRateLimiter, RateLimiter
from resilience.stores import StoreUnavailable
from resilience.stores.memory import MemoryStore
from resilience.stores.remote import TIMEOUT, AsyncRemote, Remote
from tests.children import forking, in_child
from tests.stores.conformance import StoreConformance, clock, counter, six, store  # noqa: F401 - fixtures
from tests.stores.scripted import AsyncScriptedEngine, ScriptedEngine, ScriptedServer

WHAT = "redis://cache:6379/0"


class InLoops:
    """An awaited store, asked from threads: each question in an event loop of its own."""

    blocking = True

    def __init__(self, store):  # noqa: F811 - the fixture's name is the argument's too
        self.store = store

    def __getattr__(self, name):
        method = getattr(self.store, name)
        if not inspect.iscoroutinefunction(method):
            return method

        def ask(*arguments):
            async def run():
                return await method(*arguments)

            return asyncio.run(run())

        return ask


@pytest.fixture
def server(clock):  # noqa: F811 - see InLoops
    return ScriptedServer(clock)


@pytest.fixture(params=["sync", "async"])
def make_remote(request, server):
    def make(**options):
        options = {"clock": server.clock} | options
        if request.param == "sync":
            return Remote(ScriptedEngine(server), WHAT, **options)
        return InLoops(AsyncRemote(AsyncScriptedEngine(server), WHAT, **options))

    return make


@pytest.fixture
def remote(make_remote):
    return make_remote()


@pytest.fixture
def make_store(make_remote, server):
    def make(clock):  # noqa: F811 - the fixture's name is the argument's too
        server.store = MemoryStore(clock=clock)
        # What is remembered is not the whole answer: of others asked along it says what is certain.
        return make_remote(clock=clock, remember_refusals=0)

    return make


class TestConformance(StoreConformance):
    pass


@pytest.fixture
def one():
    return counter("1/minute")


def taken(remote, *charges):
    return [bool(decision) for decision in remote.take(list(charges))]


# --- what it is ----------------------------------------------------------------------------------


def test_they_are_shared_stores(server):
    blocking = Remote(ScriptedEngine(server), WHAT)
    awaited = AsyncRemote(AsyncScriptedEngine(server), WHAT)
    assert blocking.shared
    assert blocking.blocking
    assert awaited.shared
    RateLimiter("1/minute", name="login", store=blocking, require_shared=True)
    AsyncRateLimiter("1/minute", name="login", store=awaited, require_shared=True)


def test_they_tell_their_settings(server):
    mine = CircuitBreaker(name="mine")
    for made in (
        Remote(ScriptedEngine(server), WHAT, timeout=0.2, breaker=mine, clock=server.clock),
        AsyncRemote(AsyncScriptedEngine(server), WHAT, timeout=0.2, breaker=mine, clock=server.clock),
    ):
        assert (made.what, made.timeout, made.breaker, made.clock) == (WHAT, 0.2, mine, server.clock)
        assert repr(made) == f"<{type(made).__name__} on {WHAT}>"
    assert Remote(ScriptedEngine(server), WHAT).timeout == TIMEOUT == 0.05


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_they_cannot_be_copied(server, copied):
    for made in (Remote(ScriptedEngine(server), WHAT), AsyncRemote(AsyncScriptedEngine(server), WHAT)):
        with pytest.raises(TypeError, match="make one in each process"):
            copied(made)


def test_settings_are_checked(make_remote):
    with pytest.raises(ValueError, match="timeout"):
        make_remote(timeout=0)
    with pytest.raises(ValueError, match="remember_refusals"):
        make_remote(remember_refusals=-1)


def test_closing_closes_the_engine(server):
    with Remote(ScriptedEngine(server), WHAT):
        pass
    assert server.closed == 1


async def test_closing_closes_the_engine_on_a_loop(server):
    async with AsyncRemote(AsyncScriptedEngine(server), WHAT):
        pass
    assert server.closed == 1


# --- questions -----------------------------------------------------------------------------------


def test_each_question_has_a_token_of_its_own_and_the_whole_time(remote, server, one):
    remote.take([Charge(one, "ada")])
    remote.take([Charge(one, "bob")])
    assert len(set(server.tokens)) == 2
    assert {len(token) for token in server.tokens} == {16}
    assert all(seconds == pytest.approx(0.05) for _, _, seconds in server.asked)


def test_a_token_does_not_depend_on_the_seed_that_a_program_chose(remote, server, one):
    for name in ("ada", "bob"):
        random.seed(1)
        remote.take([Charge(one, name)])
    assert len({token[:8] for token in server.tokens}) == 2  # PostgreSQL keeps no more than these


def test_a_deadline_shortens_all_but_tidying_up(remote, server, clock, one):  # noqa: F811
    charge = Charge(one, "ada")
    with deadline(0.02, clock=clock):
        (decision,) = remote.take([charge])
        remote.peek([charge])
        remote.holding([one], 10)
        remote.refund([charge], [decision.receipt])
        remote.reset([one], "ada")
    assert [round(seconds, 6) for _, _, seconds in server.asked] == [0.02, 0.02, 0.02, 0.05, 0.05]


def test_after_the_deadline_only_tidying_up_is_begun(remote, server, clock, one):  # noqa: F811
    charge = Charge(one, "ada")
    (decision,) = remote.take([charge])
    with deadline(0.02, clock=clock):
        clock.advance(0.02)
        for question in (
            lambda: remote.take([charge]),
            lambda: remote.peek([charge]),
            lambda: remote.holding([one], 1),
        ):
            with pytest.raises(DeadlineExceeded):
                question()
        remote.refund([charge], [decision.receipt])
    assert server.questions == ["take", "refund"]
    assert taken(remote, charge) == [True]


@pytest.mark.parametrize("step", ["unsent", "cut"])
def test_a_lost_reply_is_asked_for_again_with_the_same_token(remote, server, one, step):
    server.script = [step]
    assert taken(remote, Charge(one, "ada")) == [True]
    assert server.questions == ["take", "take"]
    assert len(set(server.tokens)) == 1
    assert taken(remote, Charge(one, "ada")) == [False]
    assert remote.breaker.snapshot().failures == 0


@pytest.mark.parametrize("step", ["unsent", "cut"])
def test_a_refund_whose_reply_is_lost_is_made_once(remote, server, step):
    charge = Charge(counter("3/minute"), "ada")
    receipts = [remote.take([charge])[0].receipt for _ in range(3)]
    server.script = [step]
    remote.refund([charge], receipts[:1])
    assert remote.peek([charge])[0].remaining == 1
    assert len(set(server.tokens[3:5])) == 1
    assert len(set(server.tokens)) == 5  # three takes, one refund, and None for the peek


def test_it_is_asked_twice_at_most(remote, server, one):
    server.always = "unsent"
    with pytest.raises(StoreUnavailable, match=r"no reply \(unsent\)") as caught:
        remote.take([Charge(one, "ada")])
    assert isinstance(caught.value.__cause__.__cause__, ConnectionError)
    assert len(server.asked) == 2
    assert remote.breaker.snapshot().failures == 1


@pytest.mark.parametrize("step", ["silent", "late"])
def test_it_is_not_asked_again_once_the_time_is_up(remote, server, clock, one, step):  # noqa: F811
    server.script = [step]
    began = clock.now()
    with pytest.raises(StoreUnavailable, match=r"answer within 0\.05 s"):
        remote.take([Charge(one, "ada")])
    assert len(server.asked) == 1
    assert clock.now() - began == pytest.approx(0.05)


@pytest.mark.parametrize("step", ["unable", "refused", ValueError("a slip")])
def test_an_answer_is_no_lost_reply(remote, server, one, step):
    server.script = [step]
    with pytest.raises((StoreUnavailable, ValueError)):
        remote.take([Charge(one, "ada")])
    assert len(server.asked) == 1


def test_every_question_is_guarded(remote, server, one):
    server.always = "unsent"
    charge = Charge(one, "ada")
    for question in (
        lambda: remote.take([charge]),
        lambda: remote.peek([charge]),
        lambda: remote.refund([charge], [0]),
        lambda: remote.reset([one], "ada"),
        lambda: remote.holding([one], 1),
    ):
        with pytest.raises(StoreUnavailable):
            question()
    assert remote.breaker.state == "open"
    asked = len(server.asked)
    with pytest.raises(StoreUnavailable, match="did not answer lately"):
        remote.take([charge])
    assert len(server.asked) == asked == 10


# --- refusals ------------------------------------------------------------------------------------


def test_what_was_refused_is_refused_without_asking(remote, server, clock, one):  # noqa: F811
    charge = Charge(one, "ada")
    assert [*taken(remote, charge), *taken(remote, charge)] == [True, False]
    for _ in range(59):
        clock.advance(1)
        if clock.now() < 1059:
            assert taken(remote, charge) == [False]
    assert len(server.asked) == 2
    clock.advance(1)
    assert taken(remote, charge) == [True]


def test_the_figures_of_a_remembered_refusal_are_those_of_now(remote, clock, one):  # noqa: F811
    charge = Charge(one, "ada")
    remote.take([charge])
    told = remote.take([charge])[0]
    clock.advance(20.5)
    again = remote.take([charge])[0]
    assert (told.retry_after, again.retry_after, again.remaining, again.reset_after) == (60, 39.5, 0, 39.5)


def test_others_are_asked_about(remote, server, one):
    remote.take([Charge(one, "ada")])
    remote.take([Charge(one, "ada")])
    assert taken(remote, Charge(one, "bob")) == [True]
    assert len(server.asked) == 3


def test_of_several_charges_one_known_refusal_is_enough(remote, server, one):
    charges = [Charge(counter("6/minute", "address"), "192.0.2.1"), Charge(one, "ada")]
    assert taken(remote, *charges) == [True, True]
    assert taken(remote, *charges) == [True, False]
    assert taken(remote, *charges) == [True, False]
    assert len(server.asked) == 2
    assert taken(remote, charges[0]) == [True]
    assert remote.peek(charges[:1])[0].remaining == 4


def test_a_peek_asks_always(remote, server, one):
    charge = Charge(one, "ada")
    remote.take([charge])
    remote.take([charge])
    server.store.reset([one], "ada")
    assert remote.peek([charge])[0]


def test_a_reset_makes_it_ask_again(remote, one):
    charge = Charge(one, "ada")
    remote.take([charge])
    remote.take([charge])
    remote.reset([one], "ada")
    assert taken(remote, charge) == [True]


def test_a_refund_makes_it_ask_again(remote, one):
    charge = Charge(one, "ada")
    receipt = remote.take([charge])[0].receipt
    remote.take([charge])
    remote.refund([charge], [receipt])
    assert taken(remote, charge) == [True]


def test_a_reset_whose_reply_is_lost_forgets_too(remote, server, one):
    charge = Charge(one, "ada")
    remote.take([charge])
    remote.take([charge])
    server.script = ["late"]
    with pytest.raises(StoreUnavailable):
        remote.reset([one], "ada")
    assert taken(remote, charge) == [True]


def test_refusals_are_remembered_for_as_long_as_wished(make_remote, server, clock, one):  # noqa: F811
    remote = make_remote(remember_refusals=5.0)
    charge = Charge(one, "ada")
    for _ in range(3):
        remote.take([charge])
    assert len(server.asked) == 2
    clock.advance(5)
    remote.take([charge])
    assert len(server.asked) == 3


def test_no_refusal_is_remembered_if_so_wished(make_remote, server, one):
    remote = make_remote(remember_refusals=0)
    for _ in range(3):
        remote.take([Charge(one, "ada")])
    assert len(server.asked) == 3


def test_a_refusal_that_arrives_after_a_reset_is_not_remembered(server, one):
    class SlowEngine(ScriptedEngine):
        """Its second take is answered, but the answer is on its way while somebody resets the key."""

        def take(self, charges, token, until):
            decisions = super().take(charges, token, until)
            if not all(decisions):
                remote.reset([one], "ada")
            return decisions

    remote = Remote(SlowEngine(server), WHAT, clock=server.clock)
    assert taken(remote, Charge(one, "ada"), Charge(one, "bob")) == [True, True]
    assert taken(remote, Charge(one, "ada")) == [False]
    assert taken(remote, Charge(one, "ada")) == [True]


# --- forks, threads, garbage ---------------------------------------------------------------------


@forking
def test_a_child_can_ask_where_a_thread_of_its_parent_held_the_lock(server, one):
    remote = Remote(ScriptedEngine(server), WHAT)
    held, done = threading.Event(), threading.Event()

    def hold():
        with remote._guard._lock:
            held.set()
            done.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(10)

    def work():
        remote.take([Charge(one, "ada")])
        remote.take([Charge(one, "ada")])
        remote.reset([one], "ada")

    try:
        assert in_child(work) == 0
    finally:
        done.set()
        holder.join()


@forking
def test_a_child_makes_other_tokens_than_its_parent(server, one):
    remote = Remote(ScriptedEngine(server), WHAT)
    read, write = os.pipe()

    def work():
        remote.take([Charge(one, "ada")])
        os.write(write, server.tokens[0])

    assert in_child(work) == 0
    remote.take([Charge(one, "ada")])
    assert os.read(read, 16) != server.tokens[0]
    os.close(read)
    os.close(write)


def unavailable_in_garbage():
    """Return the errors that only the garbage collector can free."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        return [thing for thing in gc.garbage if isinstance(thing, StoreUnavailable)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


def test_a_failure_leaves_nothing_to_the_garbage_collector(server, one):
    remote = Remote(ScriptedEngine(server), WHAT, clock=server.clock)
    server.always = "unsent"
    gc.collect()
    for _ in range(20):  # in time, the breaker rejects them
        with suppress(StoreUnavailable):
            remote.take([Charge(one, "ada")])
    assert not unavailable_in_garbage()


async def test_nor_does_an_awaited_one(awaited, server, one):
    server.always = "unsent"
    gc.collect()
    for _ in range(20):
        with suppress(StoreUnavailable):
            await awaited.take([Charge(one, "ada")])
    assert not unavailable_in_garbage()


# --- cancellation --------------------------------------------------------------------------------


@pytest.fixture
def awaited(server):
    return AsyncRemote(AsyncScriptedEngine(server), WHAT, clock=server.clock)


async def cancel_after(ticks, coroutine):
    """Cancel `coroutine` after so many ticks of the loop; return whether it was cancelled."""
    task = asyncio.ensure_future(coroutine)
    for _ in range(ticks):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    return task.cancelled()


@pytest.mark.parametrize("ticks", range(1, 6))
async def test_what_a_cancelled_take_may_have_taken_comes_back(awaited, server, ticks):
    charge = Charge(counter("3/minute"), "ada")
    cancelled = await cancel_after(ticks, awaited.take([charge]))
    await awaited.close()
    assert server.store.peek([charge])[0].remaining == (3 if cancelled else 2)
    assert cancelled == (ticks < 3)
    assert not awaited._afterwards


async def test_what_a_cancelled_take_did_not_get_is_not_given_back(awaited, server, one):
    await awaited.take([Charge(one, "ada")])
    assert await cancel_after(2, awaited.take([Charge(one, "ada")]))
    await awaited.close()
    assert server.questions == ["take", "take", "take"]
    assert not server.store.peek([Charge(one, "ada")])[0]


async def test_a_cancelled_call_leaves_at_once_and_is_neutral(awaited, clock, one):  # noqa: F811
    began = clock.now()
    assert await cancel_after(1, awaited.take([Charge(one, "ada")]))
    assert clock.now() == began
    assert awaited.breaker.snapshot().failures == 0
    await awaited.close()


@pytest.mark.parametrize("ticks", range(1, 6))
async def test_a_cancelled_refund_is_made_once(awaited, server, ticks):
    charge = Charge(counter("3/minute"), "ada")
    receipts = [(await awaited.take([charge]))[0].receipt for _ in range(3)]
    await cancel_after(ticks, awaited.refund([charge], receipts[:1]))
    await awaited.close()
    assert server.store.peek([charge])[0].remaining == 1


@pytest.mark.parametrize("ticks", range(1, 6))
async def test_a_cancelled_reset_is_made(awaited, server, one, ticks):
    await awaited.take([Charge(one, "ada")])
    await awaited.take([Charge(one, "ada")])
    await cancel_after(ticks, awaited.reset([one], "ada"))
    await awaited.close()
    assert await awaited.take([Charge(one, "ada")])


async def test_what_cannot_be_tidied_up_is_logged(awaited, server, one, caplog):
    server.always = RuntimeError("a defect")
    assert await cancel_after(1, awaited.take([Charge(one, "ada")]))
    await awaited.close()
    assert "could not be tidied up" in caplog.messages[-1]
    assert caplog.records[-1].levelno == logging.ERROR


async def test_in_an_outage_a_thousand_cancelled_calls_are_one_line(awaited, server, one, caplog):
    server.always = "unsent"
    calls = [asyncio.create_task(awaited.take([Charge(one, "ada")])) for _ in range(1000)]
    await asyncio.sleep(0)
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    assert all(call.cancelled() for call in calls)
    await awaited.close()
    (line,) = caplog.messages
    assert "unavailable" in line


async def test_a_cancelled_peek_leaves_nothing_to_do(awaited, server, one):
    assert await cancel_after(1, awaited.peek([Charge(one, "ada")]))
    assert not awaited._afterwards
    assert not server.asked


async def test_tidying_up_goes_on_after_the_deadline(awaited, server, clock):  # noqa: F811
    charge = Charge(counter("3/minute"), "ada")

    async def take():
        with deadline(0.01, clock=clock):
            await awaited.take([charge])

    async def cancel():
        task = asyncio.ensure_future(take())
        for _ in range(2):
            await asyncio.sleep(0)
        clock.advance(0.01)
        task.cancel()
        await asyncio.wait([task])

    await cancel()
    await awaited.close()
    assert server.store.peek([charge])[0].remaining == 3
    assert server.questions == ["take", "take", "refund"]


def test_a_loop_that_ends_at_once_leaves_no_warning(awaited, server):
    charge = Charge(counter("3/minute"), "ada")

    async def main():
        await cancel_after(2, awaited.take([charge]))

    asyncio.run(main())
    gc.collect()
    assert server.store.peek([charge])[0].remaining == 2  # it counts until it lapses
    assert not awaited._afterwards


async def test_closing_on_one_loop_leaves_the_errands_of_another_alone(awaited, one):
    begun, done = threading.Event(), threading.Event()

    def elsewhere():
        async def main():
            await cancel_after(1, awaited.take([Charge(one, "ada")]))
            begun.set()
            await asyncio.get_running_loop().run_in_executor(None, done.wait, 10)

        asyncio.run(main())

    thread = threading.Thread(target=elsewhere)
    thread.start()
    await asyncio.get_running_loop().run_in_executor(None, begun.wait, 10)
    await awaited.close()
    done.set()
    await asyncio.get_running_loop().run_in_executor(None, thread.join)


@forking
def test_a_child_begins_without_its_parent_s_tasks(awaited, one):
    async def main():
        assert await cancel_after(1, awaited.take([Charge(one, "ada")]))
        assert awaited._afterwards

        def work():
            assert not awaited._afterwards

        assert in_child(work) == 0

    asyncio.run(main())
