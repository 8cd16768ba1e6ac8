"""Races: cancellation at every tick, what came too late, and what is left behind."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from contextvars import ContextVar

import pytest

from resilience.callables import MisuseError
from resilience.deadline import deadline, remaining
from resilience.errors import DeadlineExceeded
from resilience.hedging import Hedge
from resilience.racing import Race, raced, refuse_unawaitable
from resilience.retry.budget import RetryBudget, refill_budgets
from resilience.simulation.loop import simulate
from resilience.testing import cancel_at_every_tick

mark = ContextVar("mark", default="nobody's")


class Answer:
    """Something that has to be closed."""

    open = 0

    def __init__(self):
        type(self).open += 1
        self.closed = 0

    def close(self):
        type(self).open -= not self.closed
        self.closed += 1


class AsyncAnswer(Answer):
    """Likewise, awaited."""

    async def aclose(self):
        await asyncio.sleep(0)
        super().close()

    def close(self):
        raise AssertionError("it has to be awaited")


@pytest.fixture(autouse=True)
def nothing_is_left_open():
    Answer.open = AsyncAnswer.open = 0
    refill_budgets()
    yield
    refill_budgets()  # others share those of these names
    assert Answer.open == AsyncAnswer.open == 0


def attempts(*functions):
    """Return a function whose n-th call goes to the n-th of these."""
    upcoming = iter(functions)

    async def fn():
        return await next(upcoming)()

    return fn


def race(hedge, *functions):
    return raced(hedge, attempts(*functions), (), {})


def after(clock, seconds, make, *, stubborn=False):
    """Return an attempt that takes so long; a stubborn one answers when it is cancelled."""

    async def attempt():
        try:
            await clock.sleep_async(seconds)
        except asyncio.CancelledError:
            if not stubborn:
                raise
        return make()

    return attempt


def stuck(clock, seconds):
    """Return an attempt that takes so long to unwind."""

    async def attempt():
        try:
            await asyncio.Event().wait()
        finally:
            await clock.sleep_async(seconds)

    return attempt


# --- cancellation --------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 2, 3])
def test_cancelled_at_any_tick_no_attempt_and_no_answer_is_left_behind(times):
    running = 0

    async def work():
        nonlocal running
        running += 1
        try:
            for _ in range(4):
                await asyncio.sleep(0)
            return Answer()
        finally:
            running -= 1

    async def main():
        nonlocal hedge
        hedge = Hedge(1e-9, budget=None)  # after a tick
        caller = asyncio.current_task()
        try:
            answer = await raced(hedge, work, (), {})
        except asyncio.CancelledError:
            # A caller who is cancelled gets control back when everything has ended that he had begun.
            if caller.cancelling():
                assert not running
                assert Answer.open == 0
            raise
        answer.close()
        await hedge.drain()
        assert not running

    async def nothing_is_left():
        await hedge.drain()
        assert hedge.stats().unwinding == 0
        assert running == 0
        assert Answer.open == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}

    hedge = None
    assert cancel_at_every_tick(main, nothing_is_left, times=times) > 6


def test_a_cancelled_call_waits_until_its_attempts_have_unwound_and_goes_up_untouched():
    async def main(clock):
        hedge = Hedge(1.0)
        call = asyncio.create_task(race(hedge, stuck(clock, 3.0), stuck(clock, 5.0)))
        await clock.sleep_async(2.0)
        call.cancel("enough")
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await call
        assert clock.now() == 7.0
        assert hedge.stats().unwinding == 0

    simulate(main)


def test_cancelled_again_it_passes_that_on_to_what_is_still_unwinding_and_goes_on_waiting():
    async def main(clock):
        async def stuck_twice():
            try:
                await stuck(clock, 3600.0)()
            finally:
                await clock.sleep_async(5.0)

        call = asyncio.create_task(race(Hedge(1.0), stuck(clock, 3.0), stuck_twice))
        await clock.sleep_async(2.0)
        call.cancel("first")
        await clock.sleep_async(1.0)
        call.cancel("second")
        with pytest.raises(asyncio.CancelledError):
            await call
        assert clock.now() == 8.0
        assert asyncio.all_tasks() == {asyncio.current_task()}

    simulate(main)


def test_a_caller_who_is_cancelled_as_the_answer_comes_has_it_disposed_of():
    answers = []

    def make():
        answers.append(Answer())
        return answers[-1]

    async def main(clock):
        hedge = Hedge(5.0)
        this = Race(hedge, attempts(after(clock, 1.0, make)), (), {})

        async def call():
            this.begin(None)
            try:
                await this.over
            except asyncio.CancelledError:
                await this.unwind()
                raise

        this.over.add_done_callback(lambda _: task.cancel())  # after it was set, before the caller runs
        task = asyncio.create_task(call())
        with pytest.raises(asyncio.CancelledError):
            await task
        assert hedge.stats().discarded == 1

    simulate(main)
    assert [answer.closed for answer in answers] == [1]


def test_an_attempt_that_is_cancelled_by_itself_cancels_the_call_as_a_plain_one_would():
    async def cancelled():
        raise asyncio.CancelledError("its own")

    async def fail():
        raise ConnectionError

    async def main(clock):
        with pytest.raises(asyncio.CancelledError, match="its own"):
            await race(Hedge(1.0), cancelled)
        slow_to_cancel = attempts(lambda: wait_then(clock, 2.0, cancelled), fail)
        with pytest.raises(asyncio.CancelledError, match="its own"):
            await raced(Hedge(1.0), slow_to_cancel, (), {})
        with pytest.raises(ConnectionError) as caught:
            await race(Hedge(1.0), lambda: wait_then(clock, 1.5, fail), cancelled)
        assert caught.value.__notes__ == ["resilience: all of 2 attempts failed; the others: a cancellation"]

    async def wait_then(clock, seconds, fn):
        await clock.sleep_async(seconds)
        return await fn()

    simulate(main)


# --- its course ----------------------------------------------------------------------------------


def test_nothing_is_asked_again_once_the_answer_has_come_in_this_tick():
    async def main(clock):
        hedge = Hedge(5.0)
        this = Race(hedge, lambda: asyncio.sleep(0, "answer"), (), {})
        this.begin(None)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not this.over.done()
        this._hedge_it(5.0)  # as its timer would, between the attempt's end and its callback
        await this.over
        this._hedge_it(5.0)
        this._expire()
        this.stop()
        assert this.answer() == "answer"
        assert hedge.stats().hedges == 0

    simulate(main)


def test_a_hedge_begins_with_the_callers_context_and_changes_nobody_elses():
    seen = []

    async def first():
        mark.set("the first attempt's")
        await asyncio.Event().wait()

    async def second():
        seen.append((mark.get(), remaining()))
        mark.set("the second attempt's")

    async def main(clock):
        mark.set("the caller's")
        with deadline(3.0, clock=clock):
            await race(Hedge(1.0), first, second)
        assert mark.get() == "the caller's"

    simulate(main)
    assert seen == [("the caller's", 2.0)]


def test_the_answer_does_not_wait_for_what_has_lost():
    async def main(clock):
        hedge = Hedge(1.0)
        assert await race(hedge, stuck(clock, 60.0), after(clock, 0.5, str)) == ""
        assert clock.now() == 1.5
        assert hedge.stats().unwinding == 1
        gc.collect()  # somebody holds on to it
        await hedge.drain()
        assert clock.now() == 61.5
        assert hedge.stats().unwinding == 0

    simulate(main)


def test_at_the_deadline_nothing_is_waited_for_either():
    async def main(clock):
        hedge = Hedge(1.0, name="replicas")
        with deadline(2.0, clock=clock):
            with pytest.raises(DeadlineExceeded, match="replicas was cancelled at its deadline"):
                await race(hedge, stuck(clock, 60.0), stuck(clock, 30.0))
            assert clock.now() == 2.0
            with pytest.raises(DeadlineExceeded, match="replicas was not begun"):
                await race(hedge)
        await hedge.drain()

    simulate(main)


# --- what came too late --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Answer, AsyncAnswer])
def test_an_answer_that_comes_too_late_is_closed(kind):
    late = []

    def make():
        late.append(kind())
        return late[-1]

    async def main(clock):
        hedge = Hedge(1.0)
        await race(hedge, after(clock, 9.0, make, stubborn=True), after(clock, 0.5, str))
        await hedge.drain()
        assert hedge.stats().discarded == 1

    simulate(main)
    assert [answer.closed for answer in late] == [1]


@pytest.mark.parametrize("is_async", [False, True])
def test_an_answer_that_comes_too_late_goes_to_on_discard(is_async):
    discarded = []

    async def discard_async(answer):
        await asyncio.sleep(0)
        discarded.append(answer)

    async def main(clock):
        hedge = Hedge(1.0, on_discard=discard_async if is_async else discarded.append)
        lost = after(clock, 9.0, lambda: "late", stubborn=True)
        assert await race(hedge, lost, after(clock, 0.5, lambda: "in time")) == "in time"
        await hedge.drain()

    simulate(main)
    assert discarded == ["late"]


def test_an_answer_that_both_attempts_have_got_is_not_disposed_of():
    answer = Answer()

    async def main(clock):
        hedge = Hedge(1.0)
        lost = after(clock, 9.0, lambda: answer, stubborn=True)
        assert await race(hedge, lost, after(clock, 0.5, lambda: answer)) is answer
        await hedge.drain()
        assert hedge.stats().discarded == 0

    simulate(main)
    assert not answer.closed
    answer.close()


@pytest.mark.parametrize("is_async", [False, True])
def test_what_fails_while_disposing_is_logged(caplog, is_async):
    def refuse(answer):
        raise OSError("no")

    async def refuse_async(answer):
        refuse(answer)

    async def main(clock):
        hedge = Hedge(1.0, name="replicas", on_discard=refuse_async if is_async else refuse)
        await race(hedge, after(clock, 9.0, lambda: "late", stubborn=True), after(clock, 0.5, str))
        await hedge.drain()
        assert hedge.stats().unwinding == 0

    with caplog.at_level(logging.ERROR, "resilience"):
        simulate(main)

    assert [record.message for record in caplog.records] == [
        "hedge replicas: an answer that came too late could not be disposed of"
    ]
    assert "OSError: no" in caplog.text


def test_a_call_that_is_cancelled_waits_for_what_it_disposes_of():
    async def main(clock):
        hedge = Hedge(5.0, on_discard=lambda _: clock.sleep_async(3.0))
        call = asyncio.create_task(race(hedge, after(clock, 9.0, str, stubborn=True)))
        await clock.sleep_async(1.0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert clock.now() == 4.0

    simulate(main)


def test_a_disposal_that_is_cancelled_is_at_an_end(caplog):
    async def main(clock):
        hedge = Hedge(1.0, on_discard=lambda _: asyncio.Event().wait())
        await race(hedge, after(clock, 9.0, lambda: "late", stubborn=True), after(clock, 0.5, str))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await hedge.drain()
        assert hedge.stats().unwinding == 0

    simulate(main)
    assert not caplog.records


def test_the_failure_of_an_attempt_that_has_lost_is_nobodys():
    async def main(clock):
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

        async def fail_when_cancelled():
            try:
                await asyncio.Event().wait()
            finally:
                raise ConnectionError("while closing")

        hedge = Hedge(1.0)
        await race(hedge, fail_when_cancelled, after(clock, 0.5, str))
        await hedge.drain()
        gc.collect()

    reported = []
    simulate(main)
    assert not reported


# --- what it keeps alive -------------------------------------------------------------------------


def test_an_exception_keeps_no_cycle_alive():
    class OwnError(Exception):
        pass

    async def fail():
        raise OwnError

    async def caught():
        try:
            await race(Hedge(1.0), fail)
        except OwnError as error:
            return weakref.ref(error)

    async def main(clock):
        gc.collect()
        gc.disable()
        try:
            gone = await caught()
            await asyncio.sleep(0)
            assert gone() is None
        finally:
            gc.enable()

    simulate(main)


def test_what_cannot_be_awaited_is_refused():
    with pytest.raises(MisuseError, match="returned 7, which cannot be awaited: hedge an async function"):
        refuse_unawaitable(len, 7)


# --- what it goes by -----------------------------------------------------------------------------


def test_it_asks_the_hedge_whether_when_and_how_often():
    async def main(clock):
        hedge = Hedge(1.0, max_attempts=9, budget=RetryBudget(capacity=2.0))
        assert await race(hedge, *[after(clock, 9.0, str)] * 3) == ""
        assert clock.now() == 9.0
        await hedge.drain()
        assert hedge.stats()[2:5] == (2, 0, 1)

    simulate(main)


def test_it_tells_the_hedge_how_long_first_attempts_take():
    async def fail():
        raise ConnectionError

    async def main(clock):
        hedge = Hedge(percentile=0.5, minimum_calls=1, clock=clock)
        with pytest.raises(ConnectionError):
            await race(hedge, fail)
        assert hedge.stats().delay is None  # a quick failure says nothing about how long an answer takes
        await race(hedge, after(clock, 1.0, str))
        assert hedge.stats().delay == 1.0
        await race(hedge, stuck(clock, 0.0), after(clock, 0.5, str))
        await hedge.drain()
        assert hedge.stats().delay == 1.0
        await race(hedge, stuck(clock, 0.0), after(clock, 1.0, str))
        await hedge.drain()
        assert hedge.stats().delay == 1.5

    simulate(main)
