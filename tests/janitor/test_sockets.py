from __future__ import annotations

import asyncio
import copy
import gc
import logging
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest

from resilience.janitor.sockets import SERVICE_RESTART, SESSION_ENDED, SocketRegistry
from resilience.testing import FakeClock, wait_until, wait_until_async


class Socket:
    def __init__(self):
        self.closed = []
        self.closed_in = None

    async def close(self, code, reason):
        await asyncio.sleep(0)
        self.closed.append((code, reason))
        self.closed_in = threading.get_ident()


class BrokenSocket(Socket):
    async def close(self, code, reason):
        raise ConnectionResetError("gone")


class HungSocket(Socket):
    async def close(self, code, reason):
        await asyncio.Event().wait()


@contextmanager
def loop_in_thread():
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()


def register_in(loop, registry, *args):
    async def register():
        return registry.register(*args)

    return asyncio.run_coroutine_threadsafe(register(), loop).result(5)


# --- registration ----------------------------------------------------------------------------------


async def test_a_socket_is_registered_until_the_block_ends():
    registry, socket = SocketRegistry(), Socket()
    with registry.register(socket, "s1", "ada") as registration:
        assert registration.socket is socket
        assert len(registry) == 1
        assert registry.session_ids() == ["s1"]

    assert len(registry) == 0
    registration.unregister()
    assert await registry.end_sessions_async(["s1"], "ada") == 0
    assert socket.closed == []


async def test_a_session_with_two_sockets_is_named_once():
    registry, one, two = SocketRegistry(), Socket(), Socket()
    with registry.register(one, "s1"), registry.register(two, "s1"):
        assert registry.session_ids() == ["s1"]
        assert len(registry) == 2


async def test_a_lost_socket_is_forgotten():
    registry, socket = SocketRegistry(), Socket()
    registration = registry.register(socket, "s1")
    del socket
    gc.collect()

    assert len(registry) == 0
    assert registration.socket is None


async def test_what_cannot_be_closed_is_refused():
    with pytest.raises(TypeError, match=r"no close\(code, reason\)"):
        SocketRegistry().register(object(), "s1")


async def test_what_cannot_be_referred_to_weakly_is_refused():
    class Slotted:
        __slots__ = ()

        async def close(self, code, reason): ...

    with pytest.raises(TypeError, match="weak reference"):
        SocketRegistry().register(Slotted(), "s1")


def test_a_socket_is_registered_on_its_loop_or_not_at_all():
    with pytest.raises(RuntimeError, match="no running event loop"):
        SocketRegistry().register(Socket(), "s1")


@pytest.mark.parametrize(("option", "value"), [("close_timeout", 0), ("spread", -1)])
def test_a_duration_that_makes_no_sense_is_refused(option, value):
    with pytest.raises(ValueError, match=option):
        SocketRegistry(**{option: value})


# --- closing on the loop ---------------------------------------------------------------------------


async def test_the_sockets_of_an_ended_session_are_closed_and_no_others():
    registry, theirs, other = SocketRegistry(), Socket(), Socket()
    registry.register(theirs, "s1", "ada")
    registry.register(other, "s2", "bob")

    assert await registry.end_sessions_async(["s1", "s3"]) == 1
    assert theirs.closed == [(SESSION_ENDED, "session ended")]
    assert other.closed == []
    assert (registry.closed, registry.failed, len(registry)) == (1, 0, 1)


async def test_all_sockets_of_a_user_are_closed_whatever_their_session():
    registry, one, two, nobodys = SocketRegistry(), Socket(), Socket(), Socket()
    registry.register(one, "s1", "ada")
    registry.register(two, "s2", "ada")
    registry.register(nobodys, "s3")

    assert await registry.end_sessions_async([], "ada") == 2
    assert len(one.closed) == len(two.closed) == 1
    assert nobodys.closed == []


async def test_nothing_to_close_is_no_work():
    registry = SocketRegistry()

    assert await registry.end_sessions_async(["s1"]) == 0
    assert registry.end_sessions(["s1"]) == 0
    assert await registry.shut_down_async() == 0
    assert registry.shut_down() == 0


async def test_one_that_fails_and_one_that_hangs_keep_no_other_open(caplog):
    registry = SocketRegistry(close_timeout=0.05)
    sockets = [BrokenSocket(), HungSocket(), Socket()]
    for socket in sockets:
        registry.register(socket, "s1")

    assert await registry.end_sessions_async(["s1"]) == 1
    await wait_until_async(lambda: registry.failed == 2)
    assert sockets[2].closed == [(1008, "session ended")]
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "session s1 with 1008: ConnectionResetError('gone')" in caplog.text
    assert "TimeoutError()" in caplog.text
    assert len(registry) == 2  # to be tried again


async def test_one_that_ignores_its_cancellation_has_failed_and_can_be_tried_again(caplog):
    registry, socket, give_up = SocketRegistry(close_timeout=0.02), Socket(), asyncio.Event()

    async def never_close(code, reason):
        while not give_up.is_set():
            with suppress(asyncio.CancelledError):
                await give_up.wait()

    socket.close = never_close
    registry.register(socket, "s1")
    try:
        for attempt in (1, 2):
            assert await registry.end_sessions_async(["s1"]) == 0
            await wait_until_async(lambda: not registry._tasks)
            assert registry.failed == attempt
    finally:
        give_up.set()

    assert "TimeoutError()" in caplog.text


async def test_a_failed_close_is_tried_again():
    registry, socket = SocketRegistry(), BrokenSocket()
    registry.register(socket, "s1")
    assert await registry.end_sessions_async(["s1"]) == 0
    socket.close = lambda code, reason: asyncio.sleep(0)

    assert await registry.end_sessions_async(["s1"]) == 1


async def test_two_who_ask_at_the_same_time_close_once():
    registry, socket = SocketRegistry(), Socket()
    registry.register(socket, "s1")
    counts = await asyncio.gather(*[registry.end_sessions_async(["s1"]) for _ in range(3)])

    assert sorted(counts) == [0, 0, 1]
    assert len(socket.closed) == 1


async def test_at_shutdown_the_closes_are_spread_at_random():
    clock, draws = FakeClock(auto=False), iter([0.9, 0.1, 0.5])
    registry = SocketRegistry(spread=10.0, clock=clock, random=lambda: next(draws))
    sockets = [Socket() for _ in range(3)]
    for socket in sockets:
        registry.register(socket, "s1")
    leaving = asyncio.ensure_future(registry.shut_down_async())
    await clock.wait_for_sleepers_async(3)
    closed_after = []
    for _ in range(3):
        clock.advance(4.0 if closed_after else 1.0)
        await wait_until_async(lambda: registry.closed == len(closed_after) + 1)
        closed_after.append(registry.closed)

    assert await leaving == 3
    assert all(socket.closed == [(SERVICE_RESTART, "service restart")] for socket in sockets)
    assert sorted(clock.sleeps) == [1.0, 5.0, 9.0]


async def test_a_socket_that_is_lost_before_its_turn_is_no_failure():
    clock = FakeClock(auto=False)
    registry, socket = SocketRegistry(spread=10.0, clock=clock, random=lambda: 0.5), Socket()
    registry.register(socket, "s1")
    leaving = asyncio.ensure_future(registry.shut_down_async())
    await clock.wait_for_sleepers_async(1)
    del socket
    gc.collect()
    clock.advance(5.0)

    assert await leaving == 0
    assert registry.failed == 0


async def test_a_socket_whose_handler_ends_before_its_turn_is_left_alone():
    clock = FakeClock(auto=False)
    registry, socket = SocketRegistry(spread=10.0, clock=clock, random=lambda: 0.5), Socket()
    with registry.register(socket, "s1"):
        leaving = asyncio.ensure_future(registry.shut_down_async())
        await clock.wait_for_sleepers_async(1)
    clock.advance(5.0)

    assert await leaving == 0
    assert socket.closed == []


async def test_whoever_leaves_early_stops_no_close():
    registry, socket = SocketRegistry(), Socket()
    registry.register(socket, "s1")
    asking = asyncio.ensure_future(registry.end_sessions_async(["s1"]))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking

    await wait_until_async(lambda: registry.closed == 1)
    assert socket.closed


async def test_a_close_that_is_cancelled_is_not_counted():
    registry, socket = SocketRegistry(), HungSocket()
    registry.register(socket, "s1")
    asking = asyncio.ensure_future(registry.end_sessions_async(["s1"]))
    await wait_until_async(lambda: registry._tasks)
    for task in registry._tasks:
        task.cancel()

    assert await asking == 0
    assert registry.closed == 0
    socket.close = lambda code, reason: asyncio.sleep(0)
    assert await registry.end_sessions_async(["s1"]) == 1  # and can be tried again


# --- closing from elsewhere ------------------------------------------------------------------------


def test_a_thread_reaches_the_socket_on_its_own_loop():
    registry, socket = SocketRegistry(), Socket()
    with loop_in_thread() as loop:
        register_in(loop, registry, socket, "s1")

        assert registry.end_sessions(["s1"]) == 1
        assert socket.closed_in != threading.get_ident()
        assert socket.closed == [(1008, "session ended")]


def test_a_thread_shuts_down_the_sockets_of_several_loops():
    registry, sockets = SocketRegistry(spread=0.01), [Socket(), Socket()]
    with loop_in_thread() as first, loop_in_thread() as second:
        register_in(first, registry, sockets[0], "s1")
        register_in(second, registry, sockets[1], "s2")

        assert registry.shut_down() == 2
    assert [socket.closed for socket in sockets] == [[(1012, "service restart")]] * 2
    assert sockets[0].closed_in != sockets[1].closed_in


async def test_another_loop_is_reached_from_a_coroutine():
    registry, socket = SocketRegistry(), Socket()
    with loop_in_thread() as loop:
        register_in(loop, registry, socket, "s1")

        assert await registry.end_sessions_async(["s1"]) == 1


def test_a_thread_does_not_wait_longer_than_a_close_may_take():
    registry, socket = SocketRegistry(close_timeout=0.05), HungSocket()
    with loop_in_thread() as loop:
        register_in(loop, registry, socket, "s1")

        assert registry.end_sessions(["s1"]) == 0
        wait_until(lambda: registry.failed == 1)


async def test_on_its_own_loop_the_waiting_way_does_not_wait_for_ever():
    registry, socket = SocketRegistry(), Socket()
    registry.register(socket, "s1")

    assert registry.end_sessions(["s1"]) == 0
    await wait_until_async(lambda: registry.closed == 1)


def test_a_loop_that_has_ended_took_its_sockets_with_it():
    registry, socket = SocketRegistry(), Socket()

    async def serve():
        registry.register(socket, "s1")

    asyncio.run(serve())

    assert registry.end_sessions(["s1"]) == 0
    assert len(registry) == 0
    assert socket.closed == []


# --- sockets that block ----------------------------------------------------------------------------


class BlockingSocket:
    def __init__(self, close=lambda: None):
        self.closed = []
        self.closed_in = None
        self._close = close

    def close(self, code, reason):
        self.closed_in = threading.get_ident()
        result = self._close()
        self.closed.append((code, reason))
        return result


def fail():
    raise ConnectionResetError("gone")


def test_a_blocking_socket_is_closed_in_a_thread_of_its_own():
    registry, theirs, other = SocketRegistry(), BlockingSocket(), BlockingSocket()
    with registry.register(theirs, "s1", "ada"), registry.register(other, "s2", "bob"):
        assert registry.end_sessions([], "ada") == 1
        assert theirs.closed == [(SESSION_ENDED, "session ended")]
        assert theirs.closed_in != threading.get_ident()
        assert other.closed == []
        assert (registry.closed, registry.failed, len(registry)) == (1, 0, 1)


async def test_a_blocking_socket_is_closed_on_behalf_of_a_loop_that_does_not_block():
    registry, release = SocketRegistry(), threading.Event()
    socket = BlockingSocket(lambda: release.wait(10))
    await asyncio.to_thread(registry.register, socket, "s1")
    asking = asyncio.ensure_future(registry.end_sessions_async(["s1"]))
    await wait_until_async(lambda: socket.closed_in is not None)
    assert not asking.done()
    release.set()

    assert await asking == 1


async def test_a_loop_that_may_block_waits_for_a_blocking_socket():
    registry, socket = SocketRegistry(), BlockingSocket()
    await asyncio.to_thread(registry.register, socket, "s1")

    assert registry.end_sessions(["s1"]) == 1


def test_at_shutdown_sockets_of_both_kinds_are_closed_at_random_moments():
    clock, draws = FakeClock(auto=False), iter([0.9, 0.1])
    registry = SocketRegistry(spread=10.0, clock=clock, random=lambda: next(draws))
    blocking, awaited = BlockingSocket(), Socket()
    with loop_in_thread() as loop, ThreadPoolExecutor(1) as pool:
        registry.register(blocking, "s1")
        register_in(loop, registry, awaited, "s2")
        leaving = pool.submit(registry.shut_down)
        clock.wait_for_sleepers(2)
        clock.advance(10.0)

        assert leaving.result(5) == 2
    assert sorted(clock.sleeps) == [1.0, 9.0]
    assert blocking.closed == awaited.closed == [(SERVICE_RESTART, "service restart")]


def test_a_blocking_socket_whose_handler_ends_before_its_turn_is_left_alone():
    clock = FakeClock(auto=False)
    registry, socket = SocketRegistry(spread=10.0, clock=clock, random=lambda: 0.5), BlockingSocket()
    with ThreadPoolExecutor(1) as pool:
        with registry.register(socket, "s1"):
            leaving = pool.submit(registry.shut_down)
            clock.wait_for_sleepers(1)
        clock.advance(5.0)

        assert leaving.result(5) == 0
    assert socket.closed == []


def test_a_blocking_close_that_fails_is_tried_again(caplog):
    registry, socket = SocketRegistry(), BlockingSocket(fail)
    registry.register(socket, "s1")
    assert registry.end_sessions(["s1"]) == 0
    assert "session s1 with 1008: ConnectionResetError('gone')" in caplog.text
    assert registry.failed == 1
    socket._close = lambda: None

    assert registry.end_sessions(["s1"]) == 1


def test_a_blocking_close_that_hangs_holds_nobody_up_and_is_not_tried_again_before_it_ends(caplog):
    registry, release = SocketRegistry(close_timeout=0.05), threading.Event()
    hung, other = BlockingSocket(lambda: release.wait(10)), BlockingSocket()
    registration = registry.register(hung, "s1")
    registry.register(other, "s1")
    assert registry.end_sessions(["s1"]) == 1
    wait_until(lambda: registry.failed == 1 and not registration.closing)
    assert "TimeoutError()" in caplog.text
    assert other.closed

    assert registry.end_sessions(["s1"]) == 0
    assert registry.failed == 1
    release.set()
    wait_until(lambda: not registration.is_stuck())
    assert registry.end_sessions(["s1"]) == 1


def test_a_close_that_would_have_to_be_awaited_is_not_taken_for_done(caplog):
    class Promise:
        def __await__(self): ...

    registry, socket = SocketRegistry(), BlockingSocket(Promise)
    registry.register(socket, "s1")

    assert registry.end_sessions(["s1"]) == 0
    assert "register the socket on its event loop" in caplog.text


def test_a_process_without_threads_to_spare_says_so_and_tries_again(caplog, monkeypatch):
    registry, socket = SocketRegistry(), BlockingSocket()
    registry.register(socket, "s1")
    with monkeypatch.context() as patch:
        patch.setattr("resilience.janitor.sockets.Thread.start", lambda _: fail_to_start())
        assert registry.end_sessions(["s1"]) == 0
    assert "can't start new thread" in caplog.text

    assert registry.end_sessions(["s1"]) == 1


def fail_to_start():
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_it_is_not_copied(duplicate):
    with pytest.raises(TypeError, match="make a new one"):
        duplicate(SocketRegistry())
