"""What is counted, when, and how it reads."""

from __future__ import annotations

import pytest

from resilience.retry.budget import BOOKS, RetryBudget
from resilience.retry.stats import Counts, Ledger, RetryStats


def ledger(budget=None):
    return Ledger(budget, Counts())


def test_a_rate_for_programs_and_one_for_people():
    stats = RetryStats(total_retries=20, successful_retries=13, failed_retries=2)
    assert stats.retry_success_rate == 13 / 15
    assert stats.retry_success_percent == "86.67%"


def test_while_nothing_was_retried_nothing_has_failed():
    assert RetryStats().retry_success_rate == 1.0
    assert RetryStats().retry_success_percent == "100.00%"


def test_as_a_dictionary_it_has_every_count():
    assert RetryStats(3, 1, 1, 4, 5).as_dict() == {
        "total_retries": 3,
        "successful_retries": 1,
        "failed_retries": 1,
        "circuit_breaker_rejections": 4,
        "budget_rejections": 5,
        "retry_success_rate": 0.5,
        "retry_success_percent": "50.00%",
    }


def test_a_call_that_succeeds_with_its_second_retry():
    budget = RetryBudget()
    books = ledger(budget)
    assert books.pay(1)
    assert books.read() == RetryStats()  # the retry has not ended
    assert books.pay(2)
    assert books.read() == RetryStats(total_retries=1)
    books.succeeded(3)
    assert books.read() == RetryStats(total_retries=2, successful_retries=1)
    assert budget.tokens == 4.0  # the one that succeeded was given back


def test_a_call_that_succeeds_at_once_earns_a_tenth_where_something_is_missing():
    budget = RetryBudget()
    books = ledger(budget)
    books.succeeded(1)
    assert budget.tokens == 5.0
    budget.try_withdraw()
    books.succeeded(1)
    assert budget.tokens == 4.1
    assert books.read() == RetryStats()


def test_a_call_that_fails_for_good():
    books = ledger()
    books.pay(1)
    before = BOOKS.given_up
    assert books.given_up(2) == before + 1
    assert books.read() == RetryStats(total_retries=1, failed_retries=1)
    assert books.given_up(1) == before + 2  # given up without a retry: no retry has failed
    assert books.read() == RetryStats(total_retries=1, failed_retries=1)


def test_a_retry_that_the_budget_does_not_pay_for():
    books = ledger(RetryBudget(1.0))
    assert books.pay(1)
    assert not books.pay(2)
    assert books.read() == RetryStats(budget_rejections=1)  # the end of the call counts the retry before


def test_a_retry_that_is_not_begun_is_given_back():
    budget = RetryBudget()
    books = ledger(budget)
    books.pay(1)
    books.unpay()
    assert budget.tokens == 5.0
    assert books.read() == RetryStats()


def test_a_cancelled_call_counts_the_retry_it_was_in():
    books = ledger()
    books.abandoned(1)
    assert books.read() == RetryStats()
    books.abandoned(2)
    assert books.read() == RetryStats(total_retries=1)


def test_without_a_budget_every_retry_is_paid_for():
    books = ledger(None)
    assert all(books.pay(1) for _ in range(100))
    books.unpay()
    books.succeeded(1)
    books.succeeded(2)
    assert books.read() == RetryStats(total_retries=1, successful_retries=1)


def test_rejections_by_the_breaker():
    books = ledger()
    books.rejected_by_breaker()
    assert books.read() == RetryStats(circuit_breaker_rejections=1)


def test_ledgers_may_share_counts_and_not_the_budget():
    first, second = ledger(RetryBudget()), ledger(RetryBudget())
    both = second.sharing_counts(first)
    assert both.budget is second.budget
    both.succeeded(2)
    assert first.read() == RetryStats(total_retries=1, successful_retries=1)


@pytest.mark.parametrize("field", RetryStats._fields)
def test_every_count_is_explained(field):
    assert RetryStats._field_defaults[field] == 0
