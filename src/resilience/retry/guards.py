"""The loops that make the attempts, and the wrappers that decorators return.

Each sync function has its async twin beside it; they differ in `async`, `await` and the sleep, and in that
an async attempt can be ended at the deadline.

Rules:
    - The plain wrapper makes the first attempt itself, and only a failure enters the loop: a call that
      succeeds at once reads no clock and takes no lock.
    - An attempt runs outside any `except` block, so it does not get the last failure as its context. What
      the last attempt raises leaves by a bare `raise`, as it was raised.
    - A generator is retried until it has produced its first item; from then on it belongs to its consumer,
      and a breaker learns how it ends (`resilience.retry.streams`).
"""

from __future__ import annotations

from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, Final, NoReturn

from resilience.callables import Kind, MisuseError, kind_of, name_of
from resilience.deadline import CURRENT, deadline
from resilience.errors import DeadlineExceeded
from resilience.retry.attempts import Call
from resilience.retry.budget import BOOKS, RetryBudget
from resilience.retry.streams import Stream, for_streams

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping

    from resilience.deadline import Instant
    from resilience.retry.policy import Policy

    Args = tuple[Any, ...]
    Kwargs = Mapping[str, Any]


# --- a whole call --------------------------------------------------------------------------------


def run(policy: Policy, fn: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """Call `fn` by `policy`, whatever that asks for."""
    if policy.seconds is None:
        return go_on(policy, _admitted(policy), fn, args, kwargs)
    with deadline(policy.seconds, clock=policy.clock):
        return go_on(policy, _admitted(policy), fn, args, kwargs)


async def run_async(policy: Policy, fn: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """Await `fn` by `policy`, whatever that asks for."""
    if policy.seconds is None:
        return await go_on_async(policy, _admitted(policy), fn, args, kwargs)
    with deadline(policy.seconds, clock=policy.clock):
        return await go_on_async(policy, _admitted(policy), fn, args, kwargs)


def _admitted(policy: Policy) -> Call:
    call = Call(policy, CURRENT.get())
    call.admit()
    return call


# --- the loop ------------------------------------------------------------------------------------


def go_on(policy: Policy, call: Call, fn: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """Make attempts until `call` has ended."""
    while True:
        began = BOOKS.given_up
        try:
            result = fn(*args, **kwargs)
            if type(result) in SUSPECT:
                refuse_unguarded(fn, result)
        except Exception as failure:
            delay = call.failed(failure, began)
            if delay is None:
                raise
        except BaseException:
            call.abandoned()
            raise
        else:
            delay = call.returned(result)
            if delay is None:
                return result
            del result  # not kept alive during the delay
        if delay or call.ends is not None:
            pause(policy, call, delay)


async def go_on_async(policy: Policy, call: Call, fn: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """Make attempts until `call` has ended."""
    while True:
        began = BOOKS.given_up
        try:
            awaitable = fn(*args, **kwargs)
            if not hasattr(awaitable, "__await__"):
                refuse_unawaitable(fn, awaitable)
            result = await (awaitable if call.ends is None else _until(call.ends, policy.name, awaitable))
        except Exception as failure:
            delay = call.failed(failure, began)
            if delay is None:
                raise
        except BaseException:
            call.abandoned()
            raise
        else:
            delay = call.returned(result)
            if delay is None:
                return result
            del result  # see go_on
        if delay or call.ends is not None:
            await pause_async(policy, call, delay)


def pause(policy: Policy, call: Call, delay: float) -> None:
    """Wait for the next attempt of `call`, which may begin then."""
    if delay:
        try:
            policy.clock.sleep(delay)
        except BaseException:
            call.delay_abandoned()
            raise
    if call.ends is not None:
        call.admit_retry()


async def pause_async(policy: Policy, call: Call, delay: float) -> None:
    """Wait for the next attempt of `call`, which may begin then."""
    if delay:
        try:
            await policy.clock.sleep_async(delay)
        except BaseException:
            call.delay_abandoned()
            raise
    if call.ends is not None:
        call.admit_retry()


async def _until(ends: Instant, name: str, awaitable: Awaitable[Any]) -> Any:
    """Await `awaitable`, and cancel it at `ends`.

    The timer is the event loop's own: real seconds, whatever clock the deadline is read on.
    """
    import asyncio  # noqa: PLC0415 - a service without an event loop does not pay for one

    timeout = asyncio.timeout(ends.left())
    try:
        async with timeout:
            return await awaitable
    except TimeoutError as error:
        if timeout.expired() and isinstance(error.__cause__, asyncio.CancelledError):
            raise DeadlineExceeded(f"{name} was cancelled at its deadline") from error
        raise  # a timeout of the function itself


# --- functions -----------------------------------------------------------------------------------


def guard(policy: Policy, fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that calls `fn` by `policy`, of the same kind as `fn`."""
    return _GUARDS[kind_of(fn)](policy, fn)


def _is_plain(policy: Policy) -> bool:
    return policy.seconds is None and policy.breaker is None and policy.retry_if_result is None


def _guard_sync(policy: Policy, fn: Callable[..., Any]) -> Callable[..., Any]:
    if not _is_plain(policy):
        return lambda *args, **kwargs: run(policy, fn, args, kwargs)
    current_deadline = CURRENT.get
    tokens = (policy.budget or RetryBudget()).state  # one that nobody draws on is always full
    checked = False

    def guarded(*args: Any, **kwargs: Any) -> Any:
        nonlocal checked
        if current_deadline() is not None:
            return run(policy, fn, args, kwargs)
        began = BOOKS.given_up
        try:
            result = fn(*args, **kwargs) if kwargs else fn(*args)  # none are spared being copied
        except Exception as failure:
            call = Call(policy, None)
            delay = call.failed(failure, began)
            if delay is None:
                raise
        else:
            if not checked:
                refuse_unguarded(fn, result)
                checked = True
            # Read without the lock: a reading that is out of date loses or repeats no token. It can only
            # leave one credit out, or take the lock for nothing.
            if tokens.spent:
                policy.ledger.succeeded(1)
            return result
        if delay:
            pause(policy, call, delay)
        return go_on(policy, call, fn, args, kwargs)

    return guarded


def _guard_async(policy: Policy, fn: Callable[..., Any]) -> Callable[..., Any]:
    if not _is_plain(policy):

        async def guarded_by_all(*args: Any, **kwargs: Any) -> Any:
            return await run_async(policy, fn, args, kwargs)

        return guarded_by_all
    current_deadline = CURRENT.get
    tokens = (policy.budget or RetryBudget()).state  # see _guard_sync

    async def guarded(*args: Any, **kwargs: Any) -> Any:
        if current_deadline() is not None:
            return await run_async(policy, fn, args, kwargs)
        began = BOOKS.given_up
        try:
            result = await (fn(*args, **kwargs) if kwargs else fn(*args))
        except Exception as failure:
            call = Call(policy, None)
            delay = call.failed(failure, began)
            if delay is None:
                raise
        else:
            if tokens.spent:  # see _guard_sync
                policy.ledger.succeeded(1)
            return result
        if delay:
            await pause_async(policy, call, delay)
        return await go_on_async(policy, call, fn, args, kwargs)

    return guarded


# --- generators ----------------------------------------------------------------------------------


def _guard_generator(policy: Policy, fn: Callable[..., Generator[Any, Any, Any]]) -> Callable[..., Any]:
    _refuse_result_predicate(policy, fn)

    def first_item(*args: Any, **kwargs: Any) -> Stream[Generator[Any, Any, Any]]:
        generator = fn(*args, **kwargs)
        try:
            return Stream(generator, next(generator))
        except StopIteration as end:
            return Stream(None, end.value)

    begin = _guard_sync(for_streams(policy), first_item)

    def guarded(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        stream: Stream[Generator[Any, Any, Any]] = begin(*args, **kwargs)
        generator, item = stream.generator, stream.first.pop()
        if generator is None:
            return item
        with stream:
            try:
                while True:
                    try:
                        sent = yield item
                    except GeneratorExit:
                        generator.close()
                        raise
                    except BaseException as thrown:  # noqa: BLE001 - handed on to the generator, which decides
                        item = generator.throw(thrown)
                    else:
                        item = generator.send(sent)
            except StopIteration as end:
                return end.value

    return guarded


def _guard_async_generator(policy: Policy, fn: Callable[..., AsyncGenerator[Any, Any]]) -> Callable[..., Any]:
    _refuse_result_predicate(policy, fn)

    async def first_item(*args: Any, **kwargs: Any) -> Stream[AsyncGenerator[Any, Any]]:
        generator = fn(*args, **kwargs)
        try:
            return Stream(generator, await anext(generator))
        except StopAsyncIteration:
            return Stream(None, None)

    begin = _guard_async(for_streams(policy), first_item)

    async def guarded(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        stream: Stream[AsyncGenerator[Any, Any]] = await begin(*args, **kwargs)
        generator, item = stream.generator, stream.first.pop()
        if generator is None:
            return
        with stream:
            try:
                while True:
                    try:
                        sent = yield item
                    except GeneratorExit:
                        await generator.aclose()
                        raise
                    except BaseException as thrown:  # noqa: BLE001 - handed on to the generator, which decides
                        item = await generator.athrow(thrown)
                    else:
                        item = await generator.asend(sent)
            except StopAsyncIteration:
                return

    return guarded


_GUARDS: Final[dict[Kind, Callable[[Policy, Any], Callable[..., Any]]]] = {
    Kind.SYNC: _guard_sync,
    Kind.ASYNC: _guard_async,
    Kind.GENERATOR: _guard_generator,
    Kind.ASYNC_GENERATOR: _guard_async_generator,
}


# --- what cannot be guarded ----------------------------------------------------------------------


SUSPECT: Final = frozenset({CoroutineType, GeneratorType, AsyncGeneratorType})
"""The types of results to ask `refuse_unguarded` about."""


def refuse_unguarded(fn: Callable[..., Any], result: object) -> None:
    """Raise if `result` shows that calling `fn` has not done its work yet, but was guarded as if it had.

    Raises:
        MisuseError: It is a coroutine, or the generator of a generator function.
    """
    if isinstance(result, CoroutineType):
        result.close()  # nobody will await it
        raise MisuseError(
            f"{name_of(fn)} returned a coroutine, which a sync retry would not guard: decorate the async "
            "function itself, or pass it to AsyncRetryManager.execute"
        )
    if isinstance(result, GeneratorType | AsyncGeneratorType):
        _refuse_generator_function(fn)


def _refuse_generator_function(fn: Callable[..., Any]) -> None:
    if kind_of(fn) in {Kind.GENERATOR, Kind.ASYNC_GENERATOR}:
        raise MisuseError(
            f"{name_of(fn)} makes a generator, which runs only once its items are asked for: decorate it "
            "with with_retry, and call it directly"
        )


def refuse_unawaitable(fn: Callable[..., Any], result: object) -> NoReturn:
    """Raise, since `fn` has done its work already and returned what cannot be awaited.

    Raises:
        MisuseError: Always.
    """
    _refuse_generator_function(fn)
    raise MisuseError(
        f"{name_of(fn)} returned {result!r}, which cannot be awaited: use RetryManager.execute for a plain "
        "function"
    )


def _refuse_result_predicate(policy: Policy, fn: Callable[..., Any]) -> None:
    if policy.retry_if_result is not None:
        raise TypeError(
            f"retry_if_result cannot be used with {name_of(fn)}, a {kind_of(fn).value}: it has no result to "
            "look at before its first item"
        )
