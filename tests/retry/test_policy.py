"""The arguments of a manager: checked, settled, replaced, and what becomes of copies."""

from __future__ import annotations

import asyncio
import concurrent.futures
import copy
import math
import pickle
import threading
import time

import pytest

from resilience.retry.budget import RetryBudget, budget_of
from resilience.retry.policy import Policy
from resilience.testing import FakeClock
from resilience.transient import is_transient


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"max_attempts": 0}, ValueError, "max_attempts must be at least 1"),
        ({"max_attempts": 2.5}, TypeError, "max_attempts must be a whole number"),
        ({"max_attempts": True}, TypeError, "max_attempts must be a whole number"),
        ({"initial_delay": -0.1}, ValueError, "initial_delay must be a finite number of at least 0"),
        ({"initial_delay": math.nan}, ValueError, "initial_delay must be a finite number"),
        ({"max_delay": math.inf}, ValueError, "max_delay must be a finite number"),
        ({"max_delay": "10"}, TypeError, "max_delay must be a number"),
        ({"multiplier": 0.5}, ValueError, "multiplier must be a finite number of at least 1"),
        ({"jitter": "ful"}, ValueError, "jitter must be one of none, full, equal, decorrelated"),
        ({"jitter": 0}, ValueError, "jitter must be a finite number above 0 and of at most 1"),
        ({"jitter": 1.1}, ValueError, "jitter must be a finite number"),
        ({"jitter": None}, TypeError, "jitter must be a number"),
        ({"deadline": -1}, ValueError, "deadline must be a finite number of at least 0"),
        ({"deadline": "2 s"}, TypeError, "deadline must be a number"),
        ({"max_retry_after": -1}, ValueError, "max_retry_after must be a finite number"),
        ({"retry_on": "timeout"}, TypeError, "retry_on='timeout' must be an exception type"),
        ({"retry_on": int}, TypeError, "is no exception type"),
        ({"retry_if_result": 5}, TypeError, "retry_if_result=5 must be a plain function"),
        ({"circuit_breaker": "storage"}, TypeError, "circuit_breaker='storage' must be a CircuitBreaker"),
        ({"circuit_breaker": threading.RLock()}, TypeError, "must be a CircuitBreaker"),
        ({"clock": None}, TypeError, "clock=None must be a Clock"),
        ({"clock": time}, TypeError, "must be a Clock"),
        ({"random": 0.5}, TypeError, "random=0.5 must be a function"),
        ({"idempotent": "no"}, TypeError, "idempotent='no' must be True or False"),
        ({"on_retry": 5}, TypeError, "cannot be called"),
        ({"name": 5}, TypeError, "name=5 must be a string"),
        ({"budget": 5.0}, TypeError, "budget=5.0 must be a RetryBudget, or None"),
        ({"max_retries": 5}, TypeError, "unexpected keyword argument 'max_retries'"),
    ],
)
def test_a_wrong_argument_is_refused_at_once(arguments, error, message):
    with pytest.raises(error, match=message):
        Policy(**arguments)


@pytest.mark.parametrize("jitter", ["none", "full", "equal", "decorrelated", 0.1, 1])
def test_every_jitter_is_accepted(jitter):
    assert Policy(jitter=jitter).limits.backoff.jitter == jitter


async def acceptable(_):
    return True


@pytest.mark.parametrize("argument", ["retry_on", "retry_if_result", "on_retry", "on_success", "on_stop"])
def test_a_coroutine_function_would_always_be_true_and_is_refused(argument):
    with pytest.raises(TypeError):
        Policy(**{argument: acceptable})


def test_the_defaults_are_those_of_the_design():
    policy = Policy()
    backoff = policy.limits.backoff
    assert (policy.limits.max_attempts, policy.limits.max_retry_after) == (3, 60.0)
    assert (backoff.initial_delay, backoff.max_delay, backoff.multiplier) == (0.1, 10.0, 2.0)
    assert backoff.jitter == "full"
    assert policy.retry_on is is_transient
    assert policy.budget.capacity == 5.0


def test_the_arguments_have_the_documented_order():
    clock, budget = FakeClock(), RetryBudget()
    policy = Policy(5, 1.0, 8.0, 3.0, "none", 9.0, OSError, bool, None, print, "storage", clock, budget)
    assert (policy.limits.max_attempts, policy.seconds, policy.name) == (5, 9.0, "storage")
    assert (policy.clock, policy.budget) == (clock, budget)


def test_a_predicate_or_types_decide_what_is_retried():
    assert Policy(retry_on=OSError).retry_on(TimeoutError())
    assert Policy(retry_on=(OSError, KeyError)).retry_on(KeyError())
    assert not Policy(retry_on=()).retry_on(OSError())
    assert Policy(retry_on=lambda error: "busy" in str(error)).retry_on(ValueError("busy"))


def test_an_exception_class_with_a_metaclass_is_a_type_and_no_predicate():
    class Yes(type):
        def __call__(cls, *args):
            return True if cls.__mro__[1] is not Exception else super().__call__(*args)

    class PickyError(Exception, metaclass=Yes):
        pass

    assert Policy(retry_on=PickyError).retry_on(PickyError())
    assert not Policy(retry_on=PickyError).retry_on(ValueError())


@pytest.mark.parametrize(
    "retry_on", [Exception, lambda error: not isinstance(error, ValueError), is_transient]
)
def test_a_cancellation_by_futures_is_never_retried(retry_on):
    assert not Policy(retry_on=retry_on).retry_on(concurrent.futures.CancelledError())


def test_managers_of_one_name_share_one_budget_and_those_without_have_their_own():
    assert (
        Policy(name="test-storage").budget is Policy(name="test-storage").budget is budget_of("test-storage")
    )
    assert Policy().budget is not Policy().budget
    assert Policy(budget=None).budget is None
    budget = RetryBudget()
    assert Policy(name="test-storage", budget=budget).budget is budget


def test_without_a_name_it_goes_by_that_of_its_class():
    assert Policy().name == "Policy"


def test_replace_changes_what_it_is_told_and_shares_the_rest():
    first = Policy(max_attempts=3, multiplier=3.0, retry_on=OSError)
    second = first.replace(max_attempts=5, name="other")
    assert (first.limits.max_attempts, second.limits.max_attempts) == (3, 5)
    assert second.limits.backoff.multiplier == 3.0
    assert second.name == "other"
    assert second.budget is first.budget
    second.ledger.succeeded(2)
    assert first.stats() == second.stats()
    assert first.stats().successful_retries == 1


def test_replace_can_change_the_budget_too():
    first = Policy()
    assert first.replace(budget=None).budget is None
    assert first.replace(budget=None).replace(max_attempts=2).budget is None
    other = RetryBudget()
    assert first.replace(budget=other).budget is other


def test_replace_refuses_what_the_constructor_refuses():
    with pytest.raises(ValueError, match="max_attempts must be at least 1"):
        Policy().replace(max_attempts=0)
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        Policy().replace(tries=3)


@pytest.mark.parametrize("attribute", ["max_attempts", "name", "ledger"])
def test_it_cannot_be_changed(attribute):
    with pytest.raises(AttributeError, match=rf"a Policy never changes: use replace\({attribute}=\.\.\.\)"):
        setattr(Policy(), attribute, 5)


@pytest.mark.parametrize("never", [BaseException, KeyboardInterrupt, asyncio.CancelledError])
def test_what_is_no_exception_cannot_be_retried(never):
    for retry_on in (never, (OSError, (never,))):
        with pytest.raises(TypeError, match="a cancellation or an interrupt is never retried"):
            Policy(retry_on=retry_on)


def test_a_copy_is_the_same_and_a_pickle_is_refused():
    policy = Policy()
    assert copy.copy(policy) is policy
    assert copy.deepcopy({"storage": policy})["storage"] is policy
    with pytest.raises(TypeError, match="its budget and statistics belong to this process"):
        pickle.dumps(policy)


def test_it_shows_its_arguments():
    shown = repr(Policy(max_attempts=7, name="storage"))
    assert shown.startswith("Policy(max_attempts=7, initial_delay=0.1,")
    assert "name='storage'" in shown
    assert repr(type(Policy.__init__.__defaults__[-1]).BUDGET) == "<one for each name>"


def test_a_name_is_given_where_there_is_none():
    named = Policy(name="storage")
    assert named.named("other") is named
    nameless = Policy()
    assert nameless.named("storage").name == "storage"
    assert nameless.named("storage").budget is nameless.budget
