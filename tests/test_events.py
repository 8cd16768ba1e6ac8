from __future__ import annotations

import asyncio
import logging
import threading
import time

import pytest

from resilience import events
from resilience.events import Hook, RateLimited, hooks, publish, subscribe

EVENT = RateLimited("login", ("ada",), 12.5)


@pytest.fixture
def seen():
    received = []
    unsubscribe = subscribe(received.append)
    yield received
    unsubscribe()


def fail(event):
    raise LookupError("broken listener")


def test_subscribers_get_every_event(seen):
    publish(EVENT)

    assert seen == [EVENT]


def test_a_policys_own_hooks_come_first():
    order = []
    unsubscribe = subscribe(lambda event: order.append("subscriber"))

    publish(EVENT, hooks(lambda event: order.append("own")))
    unsubscribe()

    assert order == ["own", "subscriber"]


def test_unsubscribing_twice_changes_nothing(seen):
    unsubscribe = subscribe(fail)

    unsubscribe()
    unsubscribe()
    publish(EVENT)

    assert seen == [EVENT]


def test_one_listener_subscribed_twice_hears_twice_and_unsubscribes_each():
    received = []
    first, second = subscribe(received.append), subscribe(received.append)

    publish(EVENT)
    first()
    publish(EVENT)
    second()
    publish(EVENT)

    assert received == [EVENT] * 3


def test_a_listener_may_unsubscribe_itself_while_called(seen):
    def once(event):
        unsubscribe()

    unsubscribe = subscribe(once)

    publish(EVENT)
    publish(EVENT)

    assert seen == [EVENT, EVENT]


def test_records_are_frozen():
    with pytest.raises(AttributeError):
        EVENT.limiter = "other"


def test_hooks_leaves_none_out():
    assert len(hooks(None, print, None)) == 1


def test_a_failing_listener_is_logged_once_and_breaks_nothing(seen, caplog):
    hook = Hook(fail)

    for _ in range(3):
        publish(EVENT, [hook])

    (record,) = caplog.records
    assert record.name == "resilience"
    assert record.levelno == logging.ERROR
    assert record.getMessage() == (
        f"the listener {__name__}.fail failed on RateLimited; its further failures are not logged"
    )
    assert record.exc_info[0] is LookupError
    assert seen == [EVENT] * 3


def test_many_threads_log_a_failing_listener_once(caplog):
    together = threading.Barrier(8)

    def meet_and_fail(event):
        together.wait()
        time.sleep(0)
        fail(event)

    hook = Hook(meet_and_fail)
    threads = [threading.Thread(target=hook, args=(EVENT,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(caplog.records) == 1


@pytest.mark.parametrize("leave", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_what_must_end_the_program_or_task_goes_up(leave):
    def listener(event):
        raise leave

    with pytest.raises(leave):
        publish(EVENT, hooks(listener))


async def coroutine_function(event): ...


def generator_function(event):
    yield


@pytest.mark.parametrize("listener", [coroutine_function, generator_function])
def test_what_would_not_run_is_refused(listener):
    with pytest.raises(TypeError, match="listeners are called, not awaited"):
        subscribe(listener)


def test_what_cannot_be_called_is_refused():
    with pytest.raises(TypeError, match="'login' cannot be called"):
        hooks("login")


def test_a_coroutine_that_a_listener_returns_is_closed_and_logged(caplog):
    publish(EVENT, hooks(lambda event: coroutine_function(event.key)))

    assert "returned the coroutine coroutine_function, which nobody awaits" in caplog.text


def test_subscribing_from_many_threads_loses_nobody(seen):
    together = threading.Barrier(8)
    ended = []

    def come_and_go():
        together.wait()
        for _ in range(100):
            unsubscribe = subscribe(fail_never)
            publish(EVENT)
            unsubscribe()
        ended.append(1)

    threads = [threading.Thread(target=come_and_go) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(seen) == 800
    assert fail_never not in [hook._listener for hook in events.SUBSCRIBERS.hooks]


def fail_never(event): ...


def test_an_event_is_heard_by_a_hook_or_a_subscriber(seen):
    assert events.is_heard(())
    assert events.is_heard(hooks(print))


def test_an_event_is_heard_by_nobody():
    assert not events.is_heard(())
    assert events.is_heard(hooks(print))
