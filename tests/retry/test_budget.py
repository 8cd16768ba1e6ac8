"""Retry budgets as objects: sharing, bounds, threads, copies."""

from __future__ import annotations

import copy
import math
import pickle
import threading
from contextvars import copy_context

import pytest

from resilience.retry import RetryManager
from resilience.retry import budget as budgets
from resilience.retry.budget import BOOKS, RetryBudget, begin_process, budget_of, refill_budgets
from resilience.testing import wait_until


def test_by_default_it_holds_five_retries():
    budget = RetryBudget()
    assert budget.capacity == budget.tokens == 5.0
    assert [budget.try_withdraw() for _ in range(6)] == [True] * 5 + [False]
    assert budget.tokens == 0.0
    assert repr(budget) == "<RetryBudget 0 of 5 tokens>"


def test_what_comes_back():
    budget = RetryBudget(4.0, retry_cost=2.0, refund=1.5, success_credit=0.25)
    assert budget.try_withdraw()
    budget.refund()
    assert budget.tokens == 3.5
    budget.credit()
    assert budget.tokens == 3.75
    assert budget.try_withdraw()
    budget.cancel()
    assert budget.tokens == 3.75
    budget.refill()
    assert budget.tokens == 4.0


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"capacity": 0}, ValueError),
        ({"capacity": math.nan}, ValueError),
        ({"capacity": True}, TypeError),
        ({"retry_cost": 0}, ValueError),
        ({"retry_cost": "1"}, TypeError),
        ({"refund": 1.5}, ValueError),  # above what the retry cost
        ({"refund": -0.1}, ValueError),
        ({"success_credit": -0.1}, ValueError),
        ({"success_credit": math.inf}, ValueError),
    ],
)
def test_figures_out_of_range_are_refused(arguments, error):
    with pytest.raises(error, match=f"^{next(iter(arguments))} must be a"):
        RetryBudget(**arguments)


def test_a_name_has_one_budget():
    assert budget_of("test_a_name") is budget_of("test_a_name")
    assert budget_of("test_a_name") is not budget_of("test_another_name")


def test_all_named_budgets_can_be_filled_up():
    budget = budget_of("test_refill")
    assert budget.try_withdraw()
    refill_budgets()
    assert budget.tokens == 5.0


def test_a_context_that_stands_for_another_process_has_budgets_of_its_own():
    everywhere = budget_of("test_process")
    first, second = copy_context(), copy_context()
    for context in (first, second):
        context.run(begin_process)
    own = first.run(budget_of, "test_process")
    assert first.run(first.copy().run, budget_of, "test_process") is own  # a task's context, say
    assert second.run(budget_of, "test_process") not in {own, everywhere}
    assert budget_of("test_process") is everywhere
    assert first.run(lambda: RetryManager(name="test_process")).budget is own
    own.try_withdraw()
    refill_budgets()  # those of this process
    assert own.tokens == 4.0
    first.run(refill_budgets)
    assert own.tokens == 5.0


def test_the_registry_forgets_only_what_equals_a_new_budget():
    registry = budgets._Registry(most=3)
    used = registry.get("used")
    used.try_withdraw()
    full = registry.get("full")
    registry.get("another")
    registry.get("one more")
    assert registry.get("used") is used
    assert registry.get("full") is not full


def test_names_above_the_bound_share_one_budget_while_all_others_are_in_use():
    registry = budgets._Registry(most=3)
    for name in "abc":
        registry.get(name).try_withdraw()
    shared = registry.get("d")
    assert registry.get("e") is shared
    assert len(registry._by_name) == 3
    registry.get("a").refill()
    assert registry.get("e") is not shared


def test_threads_withdraw_exactly_what_there_is():
    budget = RetryBudget(1000.0)
    paid = []

    def withdraw():
        paid.append(sum(budget.try_withdraw() for _ in range(400)))

    threads = [threading.Thread(target=withdraw) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(paid) == 1000
    assert budget.tokens == 0.0


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, pickle.dumps])
def test_it_is_not_copied(make):
    with pytest.raises(TypeError, match="it is the one count of its process"):
        make(RetryBudget())


def test_a_fork_gets_a_lock_of_its_own():
    held = threading.Event()
    release = threading.Event()

    def hold():
        with BOOKS.lock:
            held.set()
            release.wait(5)

    thread = threading.Thread(target=hold)
    thread.start()
    wait_until(held.is_set)
    parents = BOOKS.lock
    try:
        BOOKS.after_fork()  # what a child runs
        assert RetryBudget().try_withdraw()
    finally:
        BOOKS.lock = parents
        release.set()
        thread.join()
