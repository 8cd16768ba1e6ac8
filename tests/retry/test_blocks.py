"""Blocks of code: `for attempt in retries: with attempt:`, and its async twin."""

from __future__ import annotations

import asyncio

import pytest

from resilience.deadline import remaining
from resilience.errors import CircuitOpenError, DeadlineExceeded
from resilience.retry.blocks import AsyncBlock, Block
from resilience.retry.policy import Policy
from resilience.retry.stats import RetryStats
from resilience.testing import FakeClock, wait_until_async


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def make(clock):
    def make(**options):
        return Policy(
            **{"initial_delay": 1.0, "jitter": "none", "clock": clock, "retry_on": OSError, **options}
        )

    return make


async def run(kind, policy, body=lambda attempt: None):
    """Run `body` in a loop of either kind."""
    async for attempt in attempts(kind, policy):
        with attempt:
            body(attempt)


def raising(error):
    """Return a body that raises."""

    def body(attempt):
        raise error

    return body


async def attempts(kind, policy):
    """Yield the attempts of a loop of either kind."""
    if kind == "sync":
        for attempt in Block(policy):
            yield attempt
    else:
        async for attempt in AsyncBlock(policy):
            yield attempt


both = pytest.mark.parametrize("kind", ["sync", "async"])


@both
async def test_a_block_that_succeeds_runs_once(kind, make, clock):
    policy, numbers = make(), []
    async for attempt in attempts(kind, policy):
        with attempt as entered:
            numbers.append(entered.number)
    assert numbers == [1]
    assert clock.sleeps == []
    assert policy.stats() == RetryStats()


@both
async def test_a_block_that_fails_runs_again_after_a_delay(kind, make, clock):
    policy, numbers = make(), []
    async for attempt in attempts(kind, policy):
        with attempt:
            numbers.append(attempt.number)
            if attempt.number < 3:
                raise OSError
    assert numbers == [1, 2, 3]
    assert clock.sleeps == [1.0, 2.0]
    assert policy.stats() == RetryStats(total_retries=2, successful_retries=1)


@both
async def test_the_last_failure_leaves_the_loop(kind, make):
    def body(attempt):
        raise OSError(f"attempt {attempt.number}")

    with pytest.raises(OSError, match="attempt 3") as caught:
        await run(kind, make(), body)
    assert caught.value.__context__ is None
    assert caught.value.__notes__ == [
        "resilience: 3 attempts in 3.0 s since the first failure; stopped: no attempts left"
    ]


@both
async def test_what_is_not_retryable_leaves_the_loop(kind, make):
    with pytest.raises(KeyError):
        await run(kind, make(), raising(KeyError()))
    with pytest.raises(KeyboardInterrupt):
        await run(kind, make(), raising(KeyboardInterrupt()))


@both
async def test_leaving_the_block_early_is_a_success(kind, make):
    policy = make()
    policy.budget.try_withdraw()

    async def fetch():
        async for attempt in attempts(kind, policy):
            with attempt:
                return "result"
        return None

    assert await fetch() == "result"
    async for attempt in attempts(kind, policy):
        with attempt:
            continue
    async for attempt in attempts(kind, policy):
        with attempt:
            break
    assert policy.budget.tokens == pytest.approx(4.3)


@both
async def test_the_block_sees_the_calls_own_deadline(kind, make, clock):
    seen = []
    async for attempt in attempts(kind, make(deadline=10.0)):
        with attempt:
            seen.append((attempt.remaining, remaining()))
            clock.advance(0.5)
            if attempt.number == 1:
                raise OSError
    assert seen == [(10.0, 10.0), (8.5, 8.5)]
    assert remaining() is None


@both
async def test_without_a_deadline_nothing_remains_to_be_told(kind, make):
    async for attempt in attempts(kind, make()):
        with attempt:
            assert attempt.remaining is None


@both
async def test_after_the_deadline_nothing_is_begun(kind, make):
    with pytest.raises(DeadlineExceeded):
        await run(kind, make(deadline=0.0), raising(AssertionError("never run")))
    assert next(Block(make(deadline=0.0))).remaining == 0.0
    assert remaining() is None


@both
async def test_a_body_without_its_block_is_told_so(kind, make):
    loop = attempts(kind, make())
    assert (await anext(loop)).number == 1
    with pytest.raises(RuntimeError, match=r"attempt 1 has not ended: .* into `with attempt:`"):
        await anext(loop)


def test_an_attempt_is_entered_once(make):
    for attempt in Block(make()):
        with attempt:
            pass
        with pytest.raises(RuntimeError, match="attempt 1 was begun already"), attempt:
            pass


def test_each_loop_is_a_call_of_its_own(make):
    policy = make()
    for outer in Block(policy):
        with outer:
            for inner in Block(policy):
                with inner:
                    if inner.number < 3:
                        raise OSError
            if outer.number < 2:
                raise OSError
    assert policy.stats() == RetryStats(total_retries=5, successful_retries=3)


async def test_tasks_that_share_a_manager_do_not_share_attempts(make):
    policy = make(budget=None, retry_on=KeyError)

    async def work(failures):
        made = 0
        async for attempt in AsyncBlock(policy):
            with attempt:
                made += 1
                await asyncio.sleep(0)
                if attempt.number <= failures:
                    raise KeyError(failures)
        return made

    assert await asyncio.gather(work(0), work(1), work(2)) == [1, 2, 3]


@both
async def test_the_breaker_admits_the_first_attempt(kind, make):
    class Open:
        is_closed = False

        def acquire(self):
            raise CircuitOpenError("storage", 1.0)

    with pytest.raises(CircuitOpenError):
        await run(kind, make(circuit_breaker=Open()), raising(AssertionError("never run")))


@pytest.mark.parametrize("loop", [Block, AsyncBlock])
def test_a_block_has_no_result_to_refuse(loop, make):
    with pytest.raises(TypeError, match="retry_if_result cannot be used with a block"):
        loop(make(retry_if_result=bool))


async def test_a_cancelled_delay_leaves_at_once(make):
    policy = make(clock=FakeClock(auto=False))

    async def work():
        async for attempt in AsyncBlock(policy):
            with attempt:
                raise OSError

    task = asyncio.create_task(work())
    await wait_until_async(lambda: policy.clock.sleepers)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert policy.budget.tokens == 5.0
