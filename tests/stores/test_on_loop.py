from __future__ import annotations

import asyncio
import gc
import logging
import threading

import pytest

from resilience._core.counting import Charge
from resilience.stores import StoreUnavailable
from resilience.stores.memory import MemoryStore
from resilience.stores.on_loop import Inline, OffLoop, _look_at, on_loop
from resilience.testing import FakeClock, wait_until_async
from tests.stores.conformance import counter

LOGIN = counter()
ADA = [Charge(LOGIN, "ada")]


class Slow(MemoryStore):
    """A store that blocks until it is let go."""

    blocking = True

    def __init__(self):
        super().__init__(clock=FakeClock())
        self.entered = threading.Event()
        self.go = threading.Event()
        self.fails = None

    def take(self, charges):
        self.entered.set()
        assert self.go.wait(10)
        if self.fails:
            raise self.fails
        return super().take(charges)


class Native(MemoryStore):
    async def take(self, charges):
        return super().take(charges)


def left(store):
    return store.peek(ADA)[0].remaining


def test_each_kind_of_store_is_asked_in_its_way():
    assert isinstance(on_loop(MemoryStore()), Inline)
    assert isinstance(on_loop(Slow()), OffLoop)
    native = Native()
    assert on_loop(native) is native


@pytest.mark.parametrize("kind", [Inline, OffLoop])
async def test_every_question_is_passed_on(kind):
    store = MemoryStore(clock=FakeClock())
    there = kind(store)
    assert there.clock is store.clock
    assert there.shared is store.shared
    decision = (await there.take(ADA))[0]
    assert decision.remaining == 5
    assert (await there.peek(ADA))[0].remaining == 5
    assert (await there.holding([LOGIN], 10)).size == 1
    await there.refund(ADA, [decision.receipt])
    assert left(store) == 6
    await there.take(ADA)
    await there.reset([LOGIN], "ada")
    assert left(store) == 6


async def test_the_loop_is_not_blocked():
    store = Slow()
    taking = asyncio.ensure_future(OffLoop(store).take(ADA))
    await wait_until_async(store.entered.is_set)
    assert not taking.done()
    store.go.set()
    assert (await taking)[0]


async def test_cancelled_while_the_store_decides_gives_back():
    store = Slow()
    taking = asyncio.ensure_future(OffLoop(store).take(ADA))
    await wait_until_async(store.entered.is_set)
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    store.go.set()
    await wait_until_async(lambda: bool(store._tables) and not store.holding([LOGIN], 1).entries)
    assert left(store) == 6


async def test_cancelled_after_the_store_has_decided_gives_back():
    store = Slow()
    store.go.set()
    there = OffLoop(store)
    taking = asyncio.ensure_future(there.take(ADA))
    await asyncio.sleep(0)
    while left(store) == 6:  # the loop is held up on purpose: the answer cannot reach the task
        pass
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    await wait_until_async(lambda: left(store) == 6)


async def test_cancelled_when_the_loop_has_no_more_threads_gives_back():
    store = Slow()
    store.go.set()
    taking = asyncio.ensure_future(OffLoop(store).take(ADA))
    await asyncio.sleep(0)
    ending = asyncio.ensure_future(asyncio.get_running_loop().shutdown_default_executor())
    while left(store) == 6:  # as above; so the loop has the ending to do before the cancellation
        pass
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert left(store) == 6
    await ending


async def test_cancelled_and_refused_gives_nothing_back():
    store = Slow()
    store.go.set()
    there = OffLoop(store)
    await there.take([Charge(LOGIN, "ada", 6)])
    store.entered.clear()
    store.go.clear()
    taking = asyncio.ensure_future(there.take(ADA))
    await wait_until_async(store.entered.is_set)
    taking.cancel()
    store.go.set()
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert left(store) == 0


async def test_a_failure_after_the_cancellation_makes_no_noise(caplog):
    store = Slow()
    store.fails = StoreUnavailable("gone")
    taking = asyncio.ensure_future(OffLoop(store).take(ADA))
    await wait_until_async(store.entered.is_set)
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    store.go.set()
    await asyncio.get_running_loop().shutdown_default_executor()
    await asyncio.sleep(0)
    gc.collect()
    assert not caplog.records


async def test_a_failure_reaches_the_caller():
    store = Slow()
    store.go.set()
    store.fails = StoreUnavailable("gone")
    with pytest.raises(StoreUnavailable, match="gone"):
        await OffLoop(store).take(ADA)


async def test_units_that_cannot_be_given_back_are_logged(caplog):
    class NoRefund(Slow):
        def refund(self, charges, receipts):
            raise StoreUnavailable("gone")

    store = NoRefund()
    taking = asyncio.ensure_future(OffLoop(store).take(ADA))
    await wait_until_async(store.entered.is_set)
    taking.cancel()
    with pytest.raises(asyncio.CancelledError), caplog.at_level(logging.ERROR, "resilience"):
        await taking
    store.go.set()
    await wait_until_async(lambda: bool(caplog.records))
    assert "could not be given back" in caplog.text


async def test_a_refund_goes_on_if_it_is_cancelled():
    store = MemoryStore(clock=FakeClock())
    there = OffLoop(store)
    decision = (await there.take(ADA))[0]
    refunding = asyncio.ensure_future(there.refund(ADA, [decision.receipt]))
    await asyncio.sleep(0)
    refunding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await refunding
    await wait_until_async(lambda: left(store) == 6)
    await asyncio.sleep(0)


def test_a_loop_that_ends_first_makes_no_noise():
    store = Slow()

    async def leave():
        taking = asyncio.ensure_future(OffLoop(store).take(ADA))
        await wait_until_async(store.entered.is_set)
        threading.Timer(0.01, store.go.set).start()
        return taking

    assert asyncio.run(leave()).cancelled()  # asyncio.run cancels what is left, and waits for the threads
    assert left(store) == 6


async def test_a_pool_that_drops_its_work_makes_no_noise():
    dropped = asyncio.get_running_loop().create_future()
    dropped.add_done_callback(_look_at)
    dropped.cancel()
    await asyncio.sleep(0)
