"""Generator functions that run inside a block: admitted when the first item is asked for, until they end.

Leaving early, by a `break` or because nobody wants the rest, ends the block by `GeneratorExit`; a failure in
mid-stream ends it by that failure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from contextlib import AbstractAsyncContextManager, AbstractContextManager


def generator_in(
    block: Callable[[], AbstractContextManager[Any, Any]], fn: Callable[..., Generator[Any, Any, Any]]
) -> Callable[..., Generator[Any, Any, Any]]:
    """Return a generator function that does what `fn` does, inside a block of its own for each call."""

    def guarded(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        with block():
            return (yield from fn(*args, **kwargs))

    return guarded


def async_generator_in(
    block: Callable[[], AbstractAsyncContextManager[Any, Any]], fn: Callable[..., AsyncGenerator[Any, Any]]
) -> Callable[..., AsyncGenerator[Any, Any]]:
    """Return an async generator function that does what `fn` does, inside a block of its own for each call.

    What is sent and thrown into it goes on to the generator of `fn`, as `yield from` has it for plain ones.
    """

    async def guarded(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        async with block():
            stream = fn(*args, **kwargs)
            try:
                item = await anext(stream)
                while True:
                    try:
                        sent = yield item
                    except GeneratorExit:
                        raise
                    except BaseException as error:  # noqa: BLE001 - thrown by the reader, whose block was cancelled say
                        item = await stream.athrow(error)
                    else:
                        item = await stream.asend(sent)
            except StopAsyncIteration:
                return
            finally:
                await stream.aclose()

    return guarded
