from __future__ import annotations

import pytest

from resilience.limiter.decorator import limiting, limiting_async


@pytest.fixture
def asked():
    return []


def test_each_call_asks_first(asked):
    def require(*key, cost):
        asked.append((key, cost))

    @limiting(require, lambda user, text="": user, 2)
    def search(user, text=""):
        """Search."""
        return [user, text, len(asked)]

    assert search("ada", text="engines") == ["ada", "engines", 1]
    assert (search.__name__, search.__doc__) == ("search", "Search.")
    assert limiting(require, lambda: ("a", 1), 1)(lambda: 7)() == 7
    assert limiting(require, None, 1)(lambda: 7)() == 7
    assert asked == [(("ada",), 2), (("a", 1), 1), ((), 1)]


async def test_each_awaited_call_asks_first(asked):
    async def require(*key, cost):
        asked.append((key, cost))

    @limiting_async(require, lambda user: user, 2)
    async def search(user):
        return [user, len(asked)]

    assert await search("ada") == ["ada", 1]
    assert search.__name__ == "search"
    assert asked == [(("ada",), 2)]


def test_what_raises_is_not_called(asked):
    def refuse(*key, cost):
        raise LookupError

    with pytest.raises(LookupError):
        limiting(refuse, None, 1)(lambda: asked.append(1))()
    assert not asked


def test_functions_that_cannot_be_guarded():
    async def awaited():
        """Await nothing."""

    def generated():
        yield

    for fn in (awaited, generated):
        with pytest.raises(TypeError, match="use AsyncRateLimiter for a coroutine function"):
            limiting(print, None, 1)(fn)
    with pytest.raises(TypeError, match="use RateLimiter for a plain function"):
        limiting_async(awaited, None, 1)(print)
