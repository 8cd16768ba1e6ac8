from __future__ import annotations

import asyncio
import concurrent.futures
import copy
import gc
import pickle

import pytest

from resilience import BulkheadFullError, CircuitOpenError, OverloadedError
from resilience.admission import Admission, Permit
from resilience.events import CallRefused, hooks
from tests.threads import together


class Policy(Admission[int]):
    """A policy that admits as many as it may, and writes down what it is told; of a ValueError it raises."""

    def __init__(self, places=10, name="storage", on_refused=None):
        super().__init__("double", name, hooks(on_refused))
        self.places = places
        self.told = []

    def acquire(self):
        return Permit(self, self._admit())

    def admission_of(self, fn):
        return self._admit

    def _admit(self):
        if not self.places:
            raise self._refusal("no places", 2.0)
        self.places -= 1
        return self.places

    def take(self, ticket, error):
        if isinstance(error, ValueError):
            raise LookupError("a predicate that raises")
        self.told.append("success" if error is None else type(error))

    def give_back(self, ticket):
        self.told.append("neutral")


@pytest.fixture
def policy():
    return Policy()


def work(value="done"):
    return value


async def work_async(value="done"):
    await asyncio.sleep(0)
    return value


def fail(error=OSError):
    raise error


async def fail_async(error=OSError):
    raise error


# --- permits -------------------------------------------------------------------------------------


def test_a_permit_is_settled_once(policy):
    permit = policy.acquire()
    permit.success()
    permit.failure(OSError())
    permit.neutral()
    permit.success()
    del permit
    assert policy.told == ["success"]


def test_threads_that_settle_at_once_settle_once(policy):
    for _ in range(50):
        permit = policy.acquire()
        policy.places += 1
        together(2, lambda number, permit=permit: permit.success() if number else permit.neutral())
    assert len(policy.told) == 50


def test_a_failure_is_told_and_neutral_ones_are_neutral(policy):
    policy.acquire().failure(OSError())
    for error in (
        asyncio.CancelledError(),
        concurrent.futures.CancelledError(),
        GeneratorExit(),
        KeyboardInterrupt(),
        CircuitOpenError("inner", 1.0),
        BulkheadFullError("inner", "full", None),
        OverloadedError("inner", "full", None),
        ExceptionGroup("tasks", [CircuitOpenError("inner", 1.0), OverloadedError("inner", "full", None)]),
    ):
        policy.acquire().failure(error)
    assert policy.told == [OSError] + ["neutral"] * 8


def test_what_is_no_exception_is_no_failure(policy):
    permit = policy.acquire()
    with pytest.raises(TypeError, match="pass the exception that the call raised"):
        permit.failure("down")
    assert policy.told == []


def test_one_that_is_dropped_is_neutral(policy):
    permit = policy.acquire()
    del permit
    gc.collect()
    assert policy.told == ["neutral"]


def test_what_a_predicate_raises_goes_up_and_the_permit_is_neutral(policy):
    with pytest.raises(LookupError, match="a predicate") as raised:
        policy.execute(fail, ValueError("bad"))
    assert isinstance(raised.value.__context__, ValueError)
    assert policy.told == ["neutral"]


async def test_a_block_settles_it(policy):
    with policy.acquire():
        pass
    with pytest.raises(OSError, match="down"), policy.acquire():
        raise OSError("down")
    async with policy.acquire():
        pass
    with pytest.raises(OSError, match="down"):
        async with policy.acquire():
            raise OSError("down")
    assert policy.told == ["success", OSError] * 2


async def test_a_settled_one_begins_no_block(policy):
    permit = policy.acquire()
    permit.neutral()
    with pytest.raises(TypeError, match="has been settled"):
        permit.__enter__()
    with pytest.raises(TypeError, match="has been settled"):
        await permit.__aenter__()


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, pickle.dumps])
def test_neither_permits_nor_policies_are_copied(make, policy):
    with pytest.raises(TypeError, match="a permit cannot be copied"):
        make(policy.acquire())
    with pytest.raises(TypeError, match="Policy 'storage' cannot be copied"):
        make(policy)


def test_each_policy_has_to_say_what_it_does():
    nothing = Admission("double", "nothing", ())
    with pytest.raises(NotImplementedError):
        nothing.execute(work)
    with pytest.raises(NotImplementedError):
        nothing.take(0, None)
    with pytest.raises(NotImplementedError):
        nothing.give_back(0)


# --- policies ------------------------------------------------------------------------------------


def test_names(policy):
    assert policy.name == "storage"
    assert Policy(name=None).name.startswith("double-")
    with pytest.raises(TypeError, match="must be a string"):
        Policy(name=7)


def test_a_refusal_is_told_and_raised():
    told = []
    policy = Policy(places=0, on_refused=told.append)
    with pytest.raises(OverloadedError, match="'storage' is overloaded: no places") as refusal:
        policy.execute(work)
    assert refusal.value.retry_after == 2.0
    assert told == [CallRefused("double", "storage", "no places")]
    with pytest.raises(OverloadedError):
        Policy(places=0).execute(work)


def test_a_call(policy):
    assert policy.execute(work, value=1) == 1
    with pytest.raises(OSError):
        policy.execute(fail)
    with pytest.raises(KeyboardInterrupt):
        policy.execute(fail, KeyboardInterrupt)
    assert policy.told == ["success", OSError, "neutral"]


async def test_an_awaited_call(policy):
    assert await policy.execute_async(work_async, value=1) == 1
    with pytest.raises(OSError):
        await policy.execute_async(fail_async)
    task = asyncio.ensure_future(policy.execute_async(asyncio.sleep, 60))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert policy.told == ["success", OSError, "neutral"]


async def test_what_would_run_unguarded_is_refused_and_neutral(policy):
    def stream():
        yield 1

    with pytest.raises(TypeError, match="returned a coroutine"):
        policy.execute(work_async)
    with pytest.raises(TypeError, match="is a generator function"):
        policy.execute(stream)
    with pytest.raises(TypeError, match="cannot be awaited: use execute"):
        await policy.execute_async(work)
    assert policy.told == ["neutral"] * 3
    assert list(policy.execute(lambda: stream())) == [1]  # noqa: PLW0108 - a function that returns a generator


async def test_it_decorates_every_kind_of_function(policy):
    @policy
    def function(number):
        """Say the number."""
        return number

    @policy
    async def coroutine_function(number):
        return number

    @policy
    def generator_function(number):
        yield number

    @policy
    async def async_generator_function(number):
        yield number

    assert function(1) == await coroutine_function(1) == 1
    assert list(generator_function(1)) == [item async for item in async_generator_function(1)] == [1]
    assert function.__doc__ == "Say the number."
    assert policy.told == ["success"] * 4
