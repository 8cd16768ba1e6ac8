"""Hedges: when a call is asked again, what that costs, and what they say of themselves."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience import events
from resilience.callables import MisuseError
from resilience.deadline import deadline
from resilience.errors import DeadlineExceeded
from resilience.events import HedgeRefused, HedgeStarted, HedgeWon
from resilience.hedging import Hedge
from resilience.retry.budget import RetryBudget, budget_of, refill_budgets
from resilience.simulation.loop import simulate


@pytest.fixture(autouse=True)
def budgets_are_full():
    """Leave none of a name exhausted, for others share it."""
    refill_budgets()
    yield
    refill_budgets()


class Server:
    """Answers its n-th request after the n-th of these seconds, with its number; or fails instead."""

    def __init__(self, clock, *answers):
        self.clock = clock
        self.answers = list(answers)
        self.requests = 0
        self.cancelled = 0

    async def ask(self):
        self.requests += 1
        number = self.requests
        answer = self.answers.pop(0)
        try:
            await self.clock.sleep_async(answer[0] if isinstance(answer, tuple) else answer)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(answer, tuple):
            raise answer[1]
        return number


def asked(*answers, delay=1.0, **options):
    """Return what becomes of one call to such a server, when, after how many requests; and the hedge."""
    hedge = Hedge(delay, **options)

    async def main(clock):
        server = Server(clock, *answers)
        try:
            result = await hedge(server.ask)()
        except OSError as error:
            result = error
        ended = clock.now()
        await hedge.drain()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return result, ended, server.requests, server.cancelled

    return simulate(main), hedge


# --- when ----------------------------------------------------------------------------------------


def test_a_quick_call_is_asked_once():
    (result, ended, requests, _), hedge = asked(0.5, 0.0)

    assert (result, ended, requests) == (1, 0.5, 1)
    assert hedge.stats().hedges == 0


def test_a_slow_call_is_asked_again_and_the_first_answer_counts():
    (result, ended, requests, cancelled), hedge = asked(9.0, 0.5)

    assert (result, ended, requests, cancelled) == (2, 1.5, 2, 1)
    assert hedge.stats()[2:] == (1, 1, 0, 0, 0)


def test_the_first_attempt_may_still_win():
    (result, ended, requests, cancelled), hedge = asked(1.5, 9.0)

    assert (result, ended, requests, cancelled) == (1, 1.5, 2, 1)
    assert hedge.stats()[2:] == (1, 0, 0, 0, 0)


def test_there_are_no_more_attempts_than_that_each_as_long_after_the_one_before():
    (result, ended, requests, cancelled), hedge = asked(9.0, 9.0, 0.5, 0.0, max_attempts=3)

    assert (result, ended, requests, cancelled) == (3, 2.5, 3, 2)
    assert hedge.stats().hedges == 2


@given(st.lists(st.floats(0.0, 5.0), min_size=4, max_size=4), st.integers(2, 4))
def test_the_call_ends_as_soon_as_any_attempt_does(seconds, most):
    (_, ended, requests, _), _ = asked(*seconds, max_attempts=most)

    begun = range(requests)
    assert ended == pytest.approx(min(number + seconds[number] for number in begun))
    assert requests <= most
    assert all(ended >= number for number in begun)


# --- failures ------------------------------------------------------------------------------------


def test_a_failure_is_no_reason_to_ask_again():
    error = ConnectionError("down")
    (result, ended, requests, _), _ = asked((0.5, error), 0.0)

    assert result is error
    assert (ended, requests) == (0.5, 1)
    assert error.__cause__ is error.__context__ is None
    assert not hasattr(error, "__notes__")


@pytest.mark.parametrize(
    ("answers", "winner", "at"),
    [([(1.5, ConnectionError()), 2.0], 2, 3.0), ([2.5, (0.5, ConnectionError())], 1, 2.5)],
)
def test_the_failure_of_one_attempt_does_not_end_another(answers, winner, at):
    (result, ended, requests, _), _ = asked(*answers)

    assert (result, ended, requests) == (winner, at, 2)


@pytest.mark.parametrize("first", [1.2, 3.0])
def test_where_all_fail_the_exception_of_the_first_attempt_goes_up_and_says_what_the_others_met(first):
    error = ConnectionError("down")
    (result, ended, _, _), hedge = asked((first, error), (1.0, TimeoutError("slow")))

    assert result is error
    assert ended == max(first, 2.0)
    assert error.__notes__ == ["resilience: all of 2 attempts failed; the others: TimeoutError('slow')"]
    assert hedge.stats().wins == 0


# --- the budget ----------------------------------------------------------------------------------


def test_hedges_are_paid_for_and_what_wins_is_not_paid_back():
    budget = RetryBudget(capacity=2.0)
    hedge = Hedge(1.0, budget=budget)

    async def main(clock):
        server = Server(clock, *[9.0, 0.5] * 2, 9.0, 9.0)
        left = []
        for _ in range(3):
            await hedge(server.ask)()
            left.append(budget.tokens)
        return left, server.requests

    left, requests = simulate(main)

    assert left == [1.0, 0.0, 0.1]  # the third had to do without, and earned what a call earns
    assert requests == 5
    assert hedge.stats().refused == 1


def test_calls_that_succeed_at_once_fund_a_hedge_for_one_in_ten():
    hedge = Hedge(1.0, budget=RetryBudget(capacity=1.0))

    async def main(clock):
        requests = 0
        for _ in range(220):  # everything is slow
            server = Server(clock, 2.0, 2.0)
            await hedge(server.ask)()
            requests += server.requests
        return requests

    assert simulate(main) == 220 + 220 // 11


def test_failures_fund_nothing():
    budget = RetryBudget(capacity=1.0)
    assert budget.try_withdraw()

    asked((0.5, ConnectionError()), budget=budget)

    assert budget.tokens == 0.0


def test_the_budget_is_that_of_the_name_or_its_own_or_none():
    shared = Hedge(1.0, name="replicas")
    assert shared.budget is budget_of("replicas")
    assert Hedge(1.0).budget is not Hedge(1.0).budget
    budget = RetryBudget()
    assert Hedge(1.0, budget=budget).budget is budget

    (result, _, requests, _), hedge = asked(*[9.0] * 20, 0.0, max_attempts=21, budget=None)
    assert (result, requests) == (1, 10)
    assert hedge.budget is None


# --- by percentile -------------------------------------------------------------------------------


def test_it_learns_when_a_call_is_slow():
    async def main(clock):
        hedge = Hedge(percentile=0.9, minimum_calls=10, clock=clock)
        server = Server(clock, *[0.1] * 9, 5.0, 5.0, 0.25)
        for _ in range(9):
            await hedge(server.ask)()
            assert hedge.stats().delay is None
        began = clock.now()
        assert await hedge(server.ask)() == 10  # too little is known: it is waited for
        assert clock.now() - began == 5.0
        assert hedge.stats().delay == pytest.approx(0.1)
        began = clock.now()
        assert await hedge(server.ask)() == 12
        assert clock.now() - began == pytest.approx(0.1 + 0.25)
        assert hedge.stats().hedges == 1

    simulate(main)


def test_by_a_fixed_delay_it_learns_nothing():
    hedge = Hedge(1.0)
    hedge.took(9.0)

    assert hedge.stats().delay == 1.0
    assert not hedge.learns


@pytest.mark.parametrize(
    ("answer", "learns"),
    [(0.05, True), ((0.05, ConnectionError()), False), (0.5, True), ((0.5, ConnectionError()), True)],
)
def test_it_learns_from_what_succeeds_and_from_what_takes_longer_than_usual(answer, learns):
    async def main(clock):
        hedge = Hedge(percentile=0.9, minimum_calls=1, clock=clock, budget=None)
        await hedge(Server(clock, 0.1).ask)()
        slow = Server(clock, answer, (9.0, ConnectionError()))
        with suppress(ConnectionError):
            await hedge(slow.ask)()
        return len(hedge._latencies)

    assert simulate(main) == 1 + learns


def test_it_learns_from_an_attempt_that_lost_and_from_a_call_that_was_given_up_late():
    async def main(clock):
        hedge = Hedge(percentile=0.5, minimum_calls=1, clock=clock, budget=None)
        await hedge(Server(clock, 1.0).ask)()
        await hedge(Server(clock, 9.0, 0.5).ask)()
        await hedge.drain()
        assert len(hedge._latencies) == 2
        for patience, known in [(0.5, 2), (3.0, 3)]:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(patience):
                    await hedge(Server(clock, 9.0, 9.0).ask)()
            assert len(hedge._latencies) == known

    simulate(main)


# --- what came too late --------------------------------------------------------------------------


def test_an_answer_that_comes_too_late_is_counted():
    async def main(clock):
        async def stubborn():
            try:
                await clock.sleep_async(9.0)
            except asyncio.CancelledError:
                return "late"

        attempts = iter([stubborn, lambda: asyncio.sleep(0, "in time")])
        hedge = Hedge(1.0)

        def ask():
            return next(attempts)()

        assert await hedge.execute(ask) == "in time"
        assert hedge.stats().unwinding == 1
        await hedge.drain()
        return hedge.stats()

    assert simulate(main)[2:] == (1, 1, 0, 1, 0)


# --- deadlines -----------------------------------------------------------------------------------


def test_at_the_deadline_all_attempts_are_cancelled():
    hedge = Hedge(1.0, name="replicas")

    async def main(clock):
        server = Server(clock, 9.0, 9.0)
        with (
            deadline(3.0, clock=clock),
            pytest.raises(DeadlineExceeded, match="replicas was cancelled at its deadline"),
        ):
            await hedge(server.ask)()
        assert clock.now() == 3.0
        await hedge.drain()
        assert (server.requests, server.cancelled) == (2, 2)
        with deadline(0.0, clock=clock), pytest.raises(DeadlineExceeded, match="replicas was not begun"):
            await hedge(server.ask)()
        with deadline(3.0, clock=clock):
            assert await hedge(Server(clock, 2.0, 2.0).ask)() == 1

    simulate(main)


# --- what it tells -------------------------------------------------------------------------------


def test_it_tells_of_hedges_of_those_that_won_and_of_those_left_out():
    own, all_ = [], []
    unsubscribe = events.subscribe(all_.append)
    try:
        options = {"name": "replicas", "budget": RetryBudget(capacity=1.0), "on_hedge": own.append}
        asked(9.0, 9.0, 9.0, 0.5, max_attempts=3, **options)
        asked(9.0, 0.5, **{**options, "budget": None})
    finally:
        unsubscribe()

    assert (
        own
        == all_
        == [
            HedgeStarted("replicas", 2, 1.0),
            HedgeRefused("replicas", 3, "budget exhausted"),
            HedgeStarted("replicas", 2, 1.0),
            HedgeWon("replicas", 2),
        ]
    )


def test_it_is_called_by_its_name_or_what_it_decorates_or_a_number():
    async def fetch():
        """Fetch."""

    named, decorating, numbered = Hedge(1.0, name="replicas"), Hedge(2.0), Hedge(percentile=0.9)
    assert named(fetch).__doc__ == "Fetch."
    decorating(fetch)
    decorating(simulate_nothing)

    assert named.name == "replicas"
    assert decorating.name.endswith("fetch")
    assert numbered.name.startswith("hedge-")
    assert repr(named) == "<Hedge 'replicas', after 1 s>"
    assert repr(numbered) == f"<Hedge {numbered.name!r}, not yet>"


async def simulate_nothing():
    """Do nothing."""


# --- what it refuses -----------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"delay": 1.0, "percentile": 0.9}])
def test_there_is_exactly_one_rule(options):
    with pytest.raises(TypeError, match="exactly one of delay and percentile"):
        Hedge(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"delay": 0},
        {"delay": float("nan")},
        {"percentile": 0},
        {"percentile": 1},
        {"percentile": 95},
        {"delay": 1.0, "max_attempts": 1},
        {"delay": 1.0, "window": 0},
        {"delay": 1.0, "minimum_calls": 0},
        {"delay": 1.0, "name": 7},
        {"delay": 1.0, "budget": 7},
        {"delay": 1.0, "on_discard": 7},
        {"delay": 1.0, "on_discard": (lambda: (yield))},
    ],
)
def test_arguments_are_checked(options):
    with pytest.raises(
        (TypeError, ValueError), match=f"{list(options)[-1]}.*(must be|cannot be called)|cannot be called"
    ):
        Hedge(**options)


def test_only_coroutine_functions_are_hedged():
    def generator():
        yield

    async def async_generator():
        yield

    with pytest.raises(TypeError, match="could not be ended, since a thread cannot be"):
        Hedge(1.0)(lambda: 7)
    for fn in (generator, async_generator):
        with pytest.raises(TypeError, match="hedge the call that opens the stream"):
            Hedge(1.0)(fn)


async def test_what_returns_an_awaitable_can_be_executed_and_nothing_else():
    assert await Hedge(1.0).execute(lambda value: asyncio.sleep(0, value), 7) == 7
    with pytest.raises(MisuseError, match="returned 7, which cannot be awaited"):
        await Hedge(1.0).execute(lambda: 7)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_it_cannot_be_copied_or_pickled(duplicate):
    with pytest.raises(TypeError, match="Hedge 'replicas' cannot be copied or pickled"):
        duplicate(Hedge(1.0, name="replicas"))


def test_draining_waits_for_nothing_on_other_loops():
    hedge = Hedge(0.001, budget=None)

    async def leave_one_unwinding():
        async def stuck():
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(3600)

        await hedge.execute(lambda: asyncio.sleep(0) if hedge.stats().hedges else stuck())

    async def drain():
        async with asyncio.timeout(5):
            await hedge.drain()

    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(leave_one_unwinding())
        assert hedge.stats().unwinding == 1
        second.run(drain())


# --- threads -------------------------------------------------------------------------------------


def test_loops_in_threads_share_it_and_drain_their_own():
    hedge = Hedge(0.001, budget=None)
    answers = []

    async def fetch():
        first = not answers_of.setdefault(threading.get_ident(), 0) % 2
        answers_of[threading.get_ident()] += 1
        await asyncio.sleep(3600 if first else 0)
        return "answer"

    async def main():
        answers.extend([await hedge(fetch)() for _ in range(5)])
        await hedge.drain()

    answers_of = {}
    threads = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert answers == ["answer"] * 20
    assert hedge.stats()[2:] == (20, 20, 0, 0, 0)
