from __future__ import annotations

import pytest

from resilience.bulkhead import AsyncBulkhead, Bulkhead


def test_a_block_has_a_place_until_it_ends():
    bulkhead = Bulkhead(1)
    with bulkhead.guard():
        assert bulkhead.stats().running == 1
    with pytest.raises(OSError, match="down"), bulkhead.guard():
        raise OSError("down")
    assert bulkhead.stats().running == 0


def test_a_block_may_be_begun_again_but_not_twice():
    bulkhead = Bulkhead(5)
    block = bulkhead.guard()
    for _ in range(2):
        with block:
            assert bulkhead.stats().running == 1
            with pytest.raises(TypeError, match="begun already"):
                block.__enter__()
    assert bulkhead.stats().running == 0


def test_the_end_of_a_block_that_was_not_begun_gives_nothing_back():
    bulkhead = Bulkhead(1)
    with bulkhead.guard():
        bulkhead.guard().__exit__(None, None, None)
        assert bulkhead.stats().running == 1


async def test_an_async_block_has_a_place_until_it_ends():
    bulkhead = AsyncBulkhead(1)
    async with bulkhead.guard():
        assert bulkhead.stats().running == 1
    with pytest.raises(OSError, match="down"):
        async with bulkhead.guard():
            raise OSError("down")
    assert bulkhead.stats().running == 0


async def test_an_async_block_may_be_begun_again_but_not_twice():
    bulkhead = AsyncBulkhead(5)
    block = bulkhead.guard()
    for _ in range(2):
        async with block:
            assert bulkhead.stats().running == 1
            with pytest.raises(TypeError, match="begun already"):
                await block.__aenter__()
    await block.__aexit__(None, None, None)
    assert bulkhead.stats().running == 0
