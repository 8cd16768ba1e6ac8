from __future__ import annotations

import asyncio
import threading

import pytest

from resilience.testing import wait_until, wait_until_async
from resilience.testing.waiting import call_in


def test_it_returns_once_the_condition_holds():
    answers = iter([False, False, True])

    wait_until(lambda: next(answers))

    assert list(answers) == []


def test_it_waits_for_another_thread():
    event = threading.Event()
    threading.Timer(0.01, event.set).start()

    wait_until(event.is_set)


def test_it_gives_up():
    with pytest.raises(TimeoutError, match=r"waited 0\.01 s for the condition to hold"):
        wait_until(lambda: False, 0.01)


def test_it_says_what_it_waited_for():
    with pytest.raises(TimeoutError, match="for the cows"):
        wait_until(lambda: False, 0.0, lambda: "the cows")


async def test_other_tasks_run_meanwhile():
    done = []
    other = asyncio.create_task(asyncio.sleep(0))
    other.add_done_callback(done.append)

    await wait_until_async(lambda: bool(done))

    assert done == [other]


async def test_the_twin_gives_up():
    with pytest.raises(TimeoutError, match=r"waited 0\.01 s for the cows"):
        await wait_until_async(lambda: False, 0.01, lambda: "the cows")


async def test_the_twin_has_a_text_of_its_own():
    with pytest.raises(TimeoutError, match="the condition to hold"):
        await wait_until_async(lambda: False, 0.0)


async def test_a_loop_is_called_from_any_thread():
    called = asyncio.Event()
    threading.Thread(target=call_in, args=(asyncio.get_running_loop(), called.set)).start()

    await called.wait()


def test_a_closed_loop_is_not_called():
    loop = asyncio.new_event_loop()
    loop.close()
    called = []

    call_in(loop, lambda: called.append(1))

    assert called == []
