from __future__ import annotations

import asyncio
import threading

import pytest

from resilience.janitor.runs import TaskRun, ThreadRun


def test_a_thread_is_alive_until_its_work_is_done():
    run = ThreadRun(lambda stopping: stopping.wait(5), "cleaner")
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "cleaner"]

    assert thread.daemon
    assert run.is_alive()
    assert not run.is_current()
    run.stopping.set()
    run.join()
    assert run.finished.is_set()
    assert not run.is_alive()


def test_a_thread_knows_itself():
    found = []
    ready = threading.Event()

    def work(_):
        ready.wait(5)
        found.append(run.is_current())

    run = ThreadRun(work, "cleaner")
    ready.set()
    run.join()

    assert found == [True]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_leaves_by_an_exit_is_over():
    def work(_):
        raise SystemExit

    run = ThreadRun(work, "cleaner")
    run.join()

    assert not run.is_alive()


async def test_a_task_is_alive_until_its_work_is_done():
    found = []

    async def work(stopping):
        found.append(run.is_current())
        await stopping.wait()

    run = TaskRun(work, "cleaner")
    (task,) = [task for task in asyncio.all_tasks() if task.get_name() == "cleaner"]
    await asyncio.sleep(0)

    assert run.is_alive()
    assert run.is_here()
    assert not run.is_current()
    run.stopping.set()
    await run.finished.wait()
    assert not run.is_alive()
    assert found == [True]
    assert task.done()


async def test_a_cancelled_task_is_over_even_if_it_never_began():
    async def work(stopping):
        await stopping.wait()

    run = TaskRun(work, "cleaner")
    run.cancel()
    await run.finished.wait()

    assert not run.is_alive()


def test_a_task_ends_with_its_loop():
    loop = asyncio.new_event_loop()

    async def work(stopping):
        await stopping.wait()

    async def begin():
        return TaskRun(work, "cleaner")

    run = loop.run_until_complete(begin())
    assert run.is_alive()

    async def elsewhere():
        return run.is_here()

    assert not asyncio.run(elsewhere())
    run.cancel()
    loop.run_until_complete(run.finished.wait())
    loop.close()
    assert not run.is_alive()
