"""Who does the work that blocks: a bounded amount, begun soon or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import pytest

from examples.backend.ports import workers as port
from examples.backend.ports.workers import InThisThread, OnOtherThreads, OnThreads
from resilience import ServiceError

KINDS = (OnThreads, OnOtherThreads, InThisThread)


@contextlib.contextmanager
def occupied(workers):
    """Have the only one at work be stuck; yield what is called when that is over."""
    begun, over = threading.Event(), threading.Event()

    def stick():
        begun.set()
        over.wait(10.0)

    stuck = threading.Thread(target=lambda: asyncio.run(workers.run(stick)))
    stuck.start()
    begun.wait(10.0)
    try:
        yield over.set
    finally:
        over.set()
        stuck.join()
        workers.close()


def in_threads(workers, count, work):
    """Have so many threads run `work` at the same time; return what each got."""
    got = []

    def ask():
        try:
            got.append(asyncio.run(workers.run(work)))
        except ServiceError as error:
            got.append(error.status)

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10.0)
    return got


@pytest.mark.parametrize("kind", KINDS)
def test_work_that_is_not_begun_soon_is_refused_and_never_begun(kind, monkeypatch):
    monkeypatch.setattr(port, "PATIENCE", 0.05)
    done = []
    workers = kind("The database", threads=1, queue=10)
    with occupied(workers):
        assert in_threads(workers, 3, lambda: done.append(1)) == [503, 503, 503]
    assert not done


@pytest.mark.parametrize("kind", KINDS)
def test_work_that_takes_longer_than_anybody_waits_to_begin_is_finished(kind, monkeypatch):
    monkeypatch.setattr(port, "PATIENCE", 0.01)
    workers = kind("The database", threads=1, queue=10)
    assert in_threads(workers, 1, lambda: threading.Event().wait(0.1)) == [False]
    workers.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_place_that_was_given_up_is_free_again(kind, monkeypatch):
    monkeypatch.setattr(port, "PATIENCE", 0.05)
    workers = kind("The database", threads=1, queue=2)
    with occupied(workers) as set_free:
        assert in_threads(workers, 2, int) == [503, 503]
        monkeypatch.setattr(port, "PATIENCE", 10.0)
        threading.Timer(0.05, set_free).start()
        assert in_threads(workers, 2, int) == [0, 0]


async def test_work_whose_caller_has_left_is_not_begun():
    done = []
    workers = OnThreads("The database", threads=1, queue=10)
    over = threading.Event()
    running = asyncio.create_task(workers.run(over.wait, 10.0))
    waiting = asyncio.create_task(workers.run(lambda: done.append(1)))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    over.set()
    assert await running
    workers.close()
    assert not done
