"""What is accepted as a policy, and what is refused with advice."""

from __future__ import annotations

import sys
from functools import partial

import pytest

from resilience.breaker import CircuitBreaker
from resilience.retry import AsyncRetryManager, RetryManager
from resilience.simulation.policies import (
    checked_factory,
    factory_named,
    guarded,
    made,
)
from resilience.testing import FakeClock


def by_keyword(clock, random, name):
    return clock, random, name


class Module:
    """Something to name."""

    factory = staticmethod(by_keyword)


@pytest.fixture
def mymodule(tmp_path, monkeypatch):
    (tmp_path / "mymodule.py").write_text(
        "from resilience.retry import AsyncRetryManager\n"
        "def policy(clock, random, name):\n"
        "    return AsyncRetryManager(max_attempts=5, clock=clock, random=random, name=name)\n"
        "class Settings:\n    factory = policy\n"
        "ready = AsyncRetryManager()\n"
    )
    (tmp_path / "lacking.py").write_text("import nowhere_to_be_found\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("mymodule", None)


# --- naming --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("mymodule")
def test_a_factory_is_found_by_its_name():
    assert made(factory_named("mymodule:policy"), FakeClock(), lambda: 0.5, "client-0").name == "client-0"
    assert factory_named("mymodule:Settings.factory") is factory_named("mymodule:policy")


@pytest.mark.usefixtures("mymodule")
@pytest.mark.parametrize(
    ("where", "error", "message"),
    [
        ("mymodule", ValueError, "'mymodule' must be module:attribute"),
        (":policy", ValueError, "must be module:attribute"),
        ("mymodul:policy", ValueError, "there is no module 'mymodul' on the path"),
        ("mymodule.inner:policy", ValueError, "there is no module 'mymodule.inner'"),
        ("lacking:policy", ModuleNotFoundError, "nowhere_to_be_found"),
        ("mymodule:polcy", ValueError, "has no attribute 'polcy'"),
        ("mymodule:ready", TypeError, "a policy that is made already"),
    ],
)
def test_what_cannot_be_found(where, error, message):
    with pytest.raises(error, match=message):
        factory_named(where)


# --- factories -----------------------------------------------------------------------------------


async def awaited(clock):
    return clock


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (5, "is 5, which is no factory"),
        (AsyncRetryManager(), "would go by the machine's clock"),
        (CircuitBreaker(), "all client processes would share it"),
        (awaited, "is a coroutine function, and a factory is a plain function"),
        (dict, "does not say what it takes"),
        (lambda: None, r"takes \(\) and no clock"),
        (lambda clock, /: None, r"takes \(clock\) and no clock"),
        (lambda clock, url: None, "needs url, which a simulation does not know"),
    ],
)
def test_what_is_no_factory_is_refused_with_advice(factory, message):
    with pytest.raises(TypeError, match=message) as refusal:
        checked_factory(factory, "mymodule:policy")
    assert str(refusal.value).startswith("mymodule:policy ")
    assert "def policy(clock, random, name):" in str(refusal.value)


@pytest.mark.parametrize(
    ("factory", "makes"),
    [
        (by_keyword, ("clock", "random", "name")),
        (Module.factory, ("clock", "random", "name")),
        (lambda clock: clock, "clock"),
        (lambda *args, clock, retries=3: (args, clock, retries), ((), "clock", 3)),
        (lambda **given: given, {"clock": "clock", "random": "random", "name": "name"}),
        (partial(lambda url, clock: (url, clock), "here"), ("here", "clock")),
    ],
)
def test_a_factory_gets_what_it_takes(factory, makes):
    assert made(checked_factory(factory, "it"), "clock", "random", "name") == makes


def test_a_class_is_a_factory_and_so_is_a_partial_of_it():
    clock = FakeClock()
    factory = checked_factory(partial(AsyncRetryManager, max_attempts=7), "it")
    policy = made(factory, clock, lambda: 0.5, "client-3")
    assert (policy.clock, policy.name, policy.limits.max_attempts) == (clock, "client-3", 7)
    assert isinstance(made(CircuitBreaker, clock, lambda: 0.5, "client-3"), CircuitBreaker)


# --- policies ------------------------------------------------------------------------------------


async def answer(request):
    return f"answer to {request}"


class ByGuard:
    def guard_async(self, fn):
        return fn


class ByExecution:
    async def execute(self, fn, *args):
        return await fn(*args)


class ByTwin:
    async def execute_async(self, fn, *args):
        return await fn(*args)


@pytest.mark.parametrize(
    "policy",
    [
        RetryManager(),
        AsyncRetryManager(),
        CircuitBreaker(),
        lambda fn: fn,
        ByGuard(),
        ByExecution(),
        ByTwin(),
    ],
)
async def test_policies_of_every_form_guard(policy):
    assert await guarded(policy, answer)("a") == "answer to a"


class Sync:
    def execute(self, fn):
        return fn


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (Sync(), "is no policy for async functions: it must be a decorator"),
        (None, "is no policy for async functions"),
        (lambda fn: len, "made .*len of an async function"),
    ],
)
def test_what_is_no_policy_is_refused(policy, message):
    with pytest.raises(TypeError, match=message):
        guarded(policy, answer)
