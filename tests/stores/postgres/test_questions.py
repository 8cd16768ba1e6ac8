from __future__ import annotations

from contextlib import closing

import psycopg
import pytest

from resilience._core.counting import Charge
from resilience.stores.postgres import questions
from resilience.stores.postgres.lines import Line
from resilience.stores.postgres.questions import Question, Questions
from tests.stores.conformance import ALGORITHMS, counter

COUNTERS = [*[counter("6/hour", algorithm=algorithm) for algorithm in ALGORITHMS], counter("66/hour")]


@pytest.fixture
def ask(url):
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        line = Line(connection, set())

        def ask(question):
            result = line.ask(question, lambda: 30.0)
            assert not result.error_message
            return question.read(result)

        yield ask


@pytest.fixture
def made():
    return Questions(1000)


@pytest.mark.parametrize("each", COUNTERS, ids=lambda each: each.scope)
def test_what_is_taken_is_seen_and_given_back(ask, made, each):
    charge = Charge(each, "ada", 2)
    (first,) = ask(made.take([charge], b"first".ljust(16)))
    assert first.remaining == each.quota.limit - 2
    (repeated,) = ask(made.take([charge], b"first".ljust(16)))
    assert repeated.remaining == first.remaining
    assert ask(made.peek([charge, Charge(each, "bob")]))[0].remaining == first.remaining
    ask(made.refund([charge], [first.receipt], b"second".ljust(16)))
    ask(made.refund([charge], [first.receipt], b"second".ljust(16)))
    assert ask(made.peek([charge]))[0].remaining == each.quota.limit


def test_several_are_answered_in_the_order_they_were_asked(ask, made):
    charges = [Charge(each, key) for each in COUNTERS for key in ("z", b"a", "b")]
    decisions = ask(made.take(charges, bytes(16)))
    assert [decision.quota for decision in decisions] == [charge.counter.quota for charge in charges]
    assert [decision.remaining for decision in decisions] == [
        charge.counter.quota.limit - 1 for charge in charges
    ]
    repeated = ask(made.take(charges, bytes(16)))
    assert [each.remaining for each in repeated] == [each.remaining for each in decisions]
    refused = ask(made.take([*charges, Charge(COUNTERS[0], "new", 7)], b"other".ljust(16)))
    assert [bool(decision) for decision in refused] == [True] * len(charges) + [False]
    assert ask(made.peek(charges))[0].remaining == decisions[0].remaining


def test_rows_are_locked_in_one_order_whatever_the_order_asked(made):
    charges = [Charge(each, key) for each in COUNTERS for key in ("z", b"a")]
    counters = [each for each in COUNTERS for _ in range(2)]
    back = charges[::-1]
    assert made.take(charges, bytes(16)).values == made.take(back, bytes(16)).values
    receipts = [number + 1 for number in range(len(charges))]
    there = made.refund(charges, receipts, bytes(16))
    assert there.values == made.refund(back, receipts[::-1], bytes(16)).values
    assert made.reset(counters, "z").values == made.reset(counters[::-1], "z").values


def test_keys_of_both_kinds_are_held_and_forgotten(ask, made):
    each = COUNTERS[0]
    for key in ("ada", b"ada"):
        ask(made.take([Charge(each, key)], key.ljust(16).encode() if isinstance(key, str) else bytes(16)))
    held = ask(made.holding(each, 10))
    assert held.size == 2
    assert {entry.key for entry in held.entries} == {"ada", b"ada"}
    assert ask(made.holding(each, 0)) == (2, ())
    ask(made.reset([each], "ada"))
    assert [entry.key for entry in ask(made.holding(each, 10)).entries] == [b"ada"]
    assert ask(made.holding(counter("7/hour"), 10)) == (0, ())


def test_a_cost_that_no_bigint_holds_never_fits(ask, made):
    for each in COUNTERS:
        (decision,) = ask(made.take([Charge(each, "ada", 10**30)], bytes(16)))
        assert not decision
        assert decision.retry_after is None


def test_the_figures_of_a_counter_are_made_once_and_bounded(monkeypatch):
    kept = {}
    monkeypatch.setattr(questions, "_figures", kept)
    monkeypatch.setattr(questions, "_MOST_FIGURES", 2)
    first = questions._figures_of(COUNTERS[0])
    assert questions._figures_of(COUNTERS[0]) is first
    questions._figures_of(COUNTERS[1])
    questions._figures_of(COUNTERS[2])
    assert set(kept) == {COUNTERS[2].scope}


def test_an_answer_that_no_function_of_ours_gives_is_an_error():
    class Nothing:
        @staticmethod
        def get_value(row, column):
            return None

    question = Questions(50).take([Charge(COUNTERS[0], "ada")], bytes(16))
    assert isinstance(question, Question)
    with pytest.raises(ValueError, match="column 0 of the answer is null"):
        question.read(Nothing())
