"""The task that runs at this moment, on whichever loop and thread."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref

import pytest

from resilience.pipeline.tasks import present_task, remembering
from tests.children import forking, in_child


class Running:
    """The tasks that run, by their loops; what 3.11 has in a dict."""

    def get(self, loop):
        return None if loop is None else asyncio.current_task(loop)


each_way = pytest.mark.parametrize("ask", [present_task, remembering(Running())])


@each_way
async def test_tasks_of_one_loop(ask):
    async def look():
        first = ask()
        await asyncio.sleep(0)
        return first is ask() is asyncio.current_task()

    assert ask() is asyncio.current_task()
    assert all(await asyncio.gather(*(look() for _ in range(5))))


@each_way
def test_one_loop_after_another(ask):
    async def look():
        return ask() is asyncio.current_task()

    assert all(asyncio.run(look()) for _ in range(3))


@each_way
def test_loops_of_several_threads_at_once(ask):
    barrier = threading.Barrier(4)
    found = []

    async def look():
        for _ in range(200):
            found.append(ask() is asyncio.current_task())
            await asyncio.sleep(0)

    def run():
        barrier.wait(5)
        asyncio.run(look())

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 800


@each_way
def test_where_there_is_none(ask):
    with pytest.raises(RuntimeError, match="no running event loop"):
        ask()
    loop = asyncio.new_event_loop()
    found = []
    loop.call_soon(lambda: found.append(ask()))
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    assert found == [None]


@each_way
def test_a_loop_that_another_thread_goes_on_with(ask):
    """What it runs there is not the task of the thread that ran it before."""
    loop = asyncio.new_event_loop()
    begun, done = threading.Event(), threading.Event()

    async def look():
        return ask() is asyncio.current_task()

    async def stay():
        begun.set()
        done.wait(5)
        return ask() is asyncio.current_task()

    assert loop.run_until_complete(look())
    found = []
    thread = threading.Thread(target=lambda: found.append(loop.run_until_complete(stay())))
    thread.start()
    try:
        assert begun.wait(5)
        assert asyncio.run(look())
    finally:
        done.set()
        thread.join()
        loop.close()
    assert found == [True]


@each_way
@forking
async def test_a_child_that_is_forked_by_a_task(ask):
    """It begins a loop of its own, on what is the same thread by its number."""

    async def look():
        return ask() is asyncio.current_task()

    assert await look()

    def work():
        assert asyncio.run(look())

    assert in_child(work) == 0


@each_way
def test_a_loop_that_does_not_say_which_thread_runs_it(ask):
    asyncio._set_running_loop(asyncio.AbstractEventLoop())
    try:
        assert [ask(), ask()] == [None, None]
    finally:
        asyncio._set_running_loop(None)


def test_no_loop_is_kept_alive():
    ask = remembering(Running())

    async def look():
        ask()
        return weakref.ref(asyncio.get_running_loop())

    loop_of = asyncio.run(look())
    gc.collect()
    assert loop_of() is None
    with pytest.raises(RuntimeError, match="no running event loop"):
        ask()


async def test_it_remembers():
    asked = []

    class Told(Running):
        def get(self, loop):
            asked.append(loop)
            return super().get(loop)

    ask = remembering(Told())
    assert ask() is ask() is asyncio.current_task()
    assert asked == [asyncio.get_running_loop()]
