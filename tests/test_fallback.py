"""Fallbacks: what they answer, with what, and what they leave alone."""

from __future__ import annotations

import asyncio
import concurrent.futures
import copy
import pickle

import pytest

from resilience import events
from resilience.callables import MisuseError
from resilience.errors import (
    BulkheadFullError,
    CircuitOpenError,
    DeadlineExceeded,
    OverloadedError,
    TimeoutExceeded,
    not_found_error,
    service_unavailable_error,
)
from resilience.events import FallbackFailed, FallbackUsed
from resilience.fallback import Fallback
from resilience.testing import cancel_at_every_tick

DOWN = ConnectionError("down")


def fail(*args, **kwargs):
    raise DOWN


async def fail_async(*args, **kwargs):
    raise DOWN


def run(fallback, *args, **kwargs):
    """Return what becomes of a failing call, having made sure that all four forms make the same of it."""
    answers = [
        fallback(fail)(*args, **kwargs),
        fallback.execute(fail, *args, **kwargs),
        asyncio.run(fallback(fail_async)(*args, **kwargs)),
        asyncio.run(fallback.execute_async(fail_async, *args, **kwargs)),
    ]
    assert all(answer == answers[0] for answer in answers)
    assert fallback.stats().used == 4
    return answers[0]


# --- with what -----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [7, "none", None, (), ConnectionError])
def test_a_value_is_returned(value):
    assert run(Fallback(value=value)) is value


@pytest.mark.parametrize("value", [[1], {1: 2}, {3}, bytearray(b"4")])
def test_what_a_caller_may_change_is_copied(value):
    fallback = Fallback(value=value)
    before = copy.copy(value)

    first, second = fallback.execute(fail), fallback.execute(fail)
    first.clear()

    assert second == value == before


def test_a_function_makes_something_of_the_exception():
    assert run(Fallback(handle=lambda error: f"sorry: {error}"), 1, two=2) == "sorry: down"


def test_a_function_is_called_with_the_same_arguments():
    assert run(Fallback(call=lambda *args, **kwargs: (args, kwargs)), 1, two=2) == ((1,), {"two": 2})


def test_async_calls_may_be_answered_by_coroutine_functions():
    async def by_error(error):
        await asyncio.sleep(0)
        return str(error)

    async def by_call(*args, **kwargs):
        await asyncio.sleep(0)
        return args, kwargs

    assert asyncio.run(Fallback(handle=by_error)(fail_async)()) == "down"
    assert asyncio.run(Fallback(call=by_call).execute_async(fail_async, 1, two=2)) == ((1,), {"two": 2})
    assert asyncio.run(Fallback(call=lambda: by_call(1))(fail_async)()) == ((1,), {})


# --- what ----------------------------------------------------------------------------------------


def test_a_result_is_left_alone():
    fallback = Fallback(value="no")

    assert fallback(lambda: "yes")() == "yes"

    async def work():
        return "yes"

    assert asyncio.run(fallback(work)()) == "yes"
    assert fallback.stats().used == 0


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(),
        TimeoutError(),
        service_unavailable_error(),
        BulkheadFullError("storage", "full", None),
        CircuitOpenError("storage", 1.0),
        DeadlineExceeded("the time is up"),
        TimeoutExceeded("the time is up"),
        OverloadedError("storage", "too much", None),
    ],
)
def test_by_default_it_answers_what_may_happen_in_production(error):
    def work():
        raise error

    assert Fallback(value="no").execute(work) == "no"


@pytest.mark.parametrize(
    "error",
    [
        TypeError("a bug"),
        KeyError("a bug"),
        AssertionError("a bug"),
        not_found_error("User"),
        FileNotFoundError(),
    ],
)
def test_by_default_it_leaves_bugs_and_final_answers_alone(error):
    fallback = Fallback(value="no")

    def work():
        raise error

    async def work_async():
        raise error

    with pytest.raises(type(error)) as caught:
        fallback.execute(work)
    assert caught.value is error
    with pytest.raises(type(error)) as caught:
        asyncio.run(fallback.execute_async(work_async))
    assert caught.value is error
    assert error.__context__ is None
    assert not hasattr(error, "__notes__")
    assert fallback.stats() == (fallback.name, 0, 0)


def test_it_may_be_told_what_to_answer():
    fallback = Fallback(value="no", on=(KeyError, lambda error: "down" in str(error)))

    assert fallback.execute(fail) == "no"
    assert fallback.execute(lambda: {}[1]) == "no"
    with pytest.raises(ZeroDivisionError):
        fallback.execute(lambda: 1 / 0)


def raise_cancelled():
    raise concurrent.futures.CancelledError


def test_a_cancellation_and_a_misuse_are_never_answered():
    fallback = Fallback(value="no", on=Exception)

    with pytest.raises(concurrent.futures.CancelledError):
        fallback.execute(raise_cancelled)
    with pytest.raises(MisuseError, match="returned a coroutine, whose failures would go unanswered"):
        fallback.execute(fail_async)
    with pytest.raises(MisuseError, match="returned 7, which cannot be awaited: use execute"):
        asyncio.run(fallback.execute_async(lambda: 7))
    with pytest.raises(MisuseError, match="or what answers for it, returned a coroutine"):
        Fallback(handle=lambda _: fail_async()).execute(fail)
    assert fallback.stats().used == 0


def test_what_is_no_exception_goes_up():
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Fallback(value="no", on=BaseException).execute(interrupt)


def test_cancelled_at_any_tick_it_leaves_at_once():
    async def answer(error):
        await asyncio.sleep(0)

    async def work():
        await asyncio.sleep(0)
        raise DOWN

    assert cancel_at_every_tick(Fallback(handle=answer, on=Exception)(work)) > 2


# --- when it fails, too --------------------------------------------------------------------------


def execute(fallback, work):
    return fallback.execute(work)


def execute_async(fallback, work):
    async def work_async():
        return work()

    return asyncio.run(fallback.execute_async(work_async))


each_form = pytest.mark.parametrize("form", [execute, execute_async])


@each_form
def test_when_the_fallback_fails_too_its_exception_goes_up_with_the_first_as_its_context(form):
    seen = []
    failure = LookupError("nothing in the cache")

    def look_up(error):
        raise failure

    fallback = Fallback(handle=look_up, name="cache", on_fallback=seen.append)

    with pytest.raises(LookupError) as caught:
        form(fallback, fail)

    assert caught.value is failure
    assert failure.__context__ is DOWN
    assert failure.__notes__ == [
        "resilience: the fallback 'cache' failed like this after ConnectionError('down')"
    ]
    assert seen == [FallbackFailed("cache", DOWN, failure)]
    assert fallback.stats() == ("cache", 0, 1)


@each_form
def test_a_function_of_the_exception_may_leave_it_at_that(form):
    error = ConnectionError("down")

    def decline(error):
        raise error

    def work():
        raise error

    fallback = Fallback(handle=decline)

    with pytest.raises(ConnectionError) as caught:
        form(fallback, work)

    assert caught.value is error
    assert error.__context__ is None
    assert not hasattr(error, "__notes__")
    assert fallback.stats() == (fallback.name, 0, 0)


# --- what it refuses, and what it is called ------------------------------------------------------


@pytest.mark.parametrize("answers", [{}, {"value": 1, "call": fail}, {"handle": fail, "call": fail}])
def test_there_is_exactly_one_answer(answers):
    with pytest.raises(TypeError, match="exactly one of value, handle and call"):
        Fallback(**answers)


def test_generators_are_refused():
    def generator():
        yield

    async def async_generator():
        yield

    for fn in (generator, async_generator):
        with pytest.raises(TypeError, match="some of its items may have been read already"):
            Fallback(value=1)(fn)
        with pytest.raises(TypeError, match="pass a function or a coroutine function"):
            Fallback(call=fn)


def test_a_sync_call_cannot_be_answered_by_a_coroutine_function():
    with pytest.raises(
        TypeError, match="is no coroutine function, so nobody would await what answers for it"
    ):
        Fallback(call=fail_async)(fail)


def test_names_are_strings_and_conditions_are_conditions():
    with pytest.raises(TypeError, match="name=7 must be a string"):
        Fallback(value=1, name=7)
    with pytest.raises(TypeError, match="on=7 must be an exception type"):
        Fallback(value=1, on=7)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_it_cannot_be_copied_or_pickled(duplicate):
    with pytest.raises(TypeError, match="Fallback 'cache' cannot be copied or pickled"):
        duplicate(Fallback(value=1, name="cache"))


def test_it_is_called_by_its_name_or_what_it_decorates_or_a_number():
    named, decorating, numbered = Fallback(value=1, name="cache"), Fallback(value=1), Fallback(value=1)
    assert named(fail).__name__ == "fail"
    decorating(fail)
    decorating(fail_async)

    assert named.name == "cache"
    assert decorating.name.endswith("test_fallback.fail")
    assert numbered.name.startswith("fallback-")
    assert repr(named) == "<Fallback 'cache'>"


def test_everybody_is_told():
    seen, own = [], []
    unsubscribe = events.subscribe(seen.append)
    try:
        Fallback(value=1, name="cache", on_fallback=own.append).execute(fail)
    finally:
        unsubscribe()

    assert seen == own == [FallbackUsed("cache", DOWN)]
