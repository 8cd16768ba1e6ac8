from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager

import pytest

from resilience.guarding import async_generator_in, generator_in


@pytest.fixture
def ended():
    """Return how each block ended: None, or the exception's type."""
    return []


@pytest.fixture
def block(ended):
    @contextmanager
    def block():
        try:
            yield
        except BaseException as error:
            ended.append(type(error))
            raise
        ended.append(None)

    return block


@pytest.fixture
def async_block(block):
    @asynccontextmanager
    async def async_block():
        with block():
            yield

    return async_block


def count_up():
    """Yield 1 and 2 more than what is sent; a ValueError thrown in yields 0."""
    number = 0
    for _ in range(3):
        try:
            sent = yield number
        except ValueError:
            number = 0
        else:
            number = (sent or number) + 1
    return number


async def count_up_async():
    number = 0
    for _ in range(3):
        try:
            sent = yield number
        except ValueError:
            number = 0
        else:
            number = (sent or number) + 1


# --- generators ----------------------------------------------------------------------------------


def test_a_generator_runs_inside_its_block(block, ended):
    stream = generator_in(block, count_up)()
    assert ended == []
    assert list(stream) == [0, 1, 2]
    assert ended == [None]


def test_what_is_sent_and_thrown_reaches_it(block):
    stream = generator_in(block, count_up)()
    next(stream)
    assert stream.send(10) == 11
    assert stream.throw(ValueError()) == 0
    with pytest.raises(StopIteration) as end:
        next(stream)
    assert end.value.value == 1


def test_one_that_fails_or_is_left_ends_the_block_so(block, ended):
    stream = generator_in(block, count_up)()
    next(stream)
    stream.close()
    stream = generator_in(block, count_up)()
    next(stream)
    with pytest.raises(OSError, match="down"):
        stream.throw(OSError("down"))
    assert ended == [GeneratorExit, OSError]


# --- async generators ----------------------------------------------------------------------------


async def test_an_async_generator_runs_inside_its_block(async_block, ended):
    stream = async_generator_in(async_block, count_up_async)()
    assert ended == []
    assert [item async for item in stream] == [0, 1, 2]
    assert ended == [None]


async def test_what_is_sent_and_thrown_reaches_an_async_one(async_block):
    stream = async_generator_in(async_block, count_up_async)()
    await anext(stream)
    assert await stream.asend(10) == 11
    assert await stream.athrow(ValueError()) == 0
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_an_async_one_that_fails_or_is_left_ends_the_block_so(async_block, ended):
    closed = []

    async def stream():
        try:
            yield 1
        finally:
            closed.append(1)

    left = async_generator_in(async_block, stream)()
    await anext(left)
    await left.aclose()
    failing = async_generator_in(async_block, count_up_async)()
    await anext(failing)
    with pytest.raises(OSError, match="down"):
        await failing.athrow(OSError("down"))
    assert ended == [GeneratorExit, OSError]
    assert closed == [1]
