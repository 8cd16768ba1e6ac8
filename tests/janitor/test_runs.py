from __future__ import annotations

import asyncio
import threading

import pytest

from resilience.janitor.runs import TaskRun, ThreadRun, strays_are_errors


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


# --- cancellations that are not meant for the task ---------------------------------------------------


async def cancelled_elsewhere():
    waited_for = asyncio.get_running_loop().create_future()
    waited_for.cancel()
    await waited_for


async def test_a_cancellation_of_something_else_is_an_error():
    with pytest.raises(RuntimeError, match="not the task itself") as raised, strays_are_errors():
        await cancelled_elsewhere()

    assert isinstance(raised.value.__cause__, asyncio.CancelledError)


async def test_a_cancellation_of_the_task_goes_up_untouched():
    async def wait():
        with strays_are_errors():
            await asyncio.Event().wait()

    waiting = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    waiting.cancel("enough")
    with pytest.raises(asyncio.CancelledError, match="enough"):
        await waiting


async def test_where_there_is_no_task_a_cancellation_goes_up_untouched():
    seen = []

    def in_no_task():
        try:
            with strays_are_errors():
                raise asyncio.CancelledError
        except asyncio.CancelledError as error:
            seen.append(error)

    asyncio.get_running_loop().call_soon(in_no_task)
    await asyncio.sleep(0)

    assert len(seen) == 1
