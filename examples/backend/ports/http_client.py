"""httpx2's two clients under one form: one is awaited, the other blocks and never suspends.

Both keep to the deadline of the context: no request waits longer than is left, and a body that goes on past
it is given up between two pieces.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Protocol

from resilience import DeadlineExceeded, remaining

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    import httpx2


class Answer(Protocol):
    """A response whose body is still to be read."""

    @property
    def response(self) -> httpx2.Response:
        """The response: its status and headers."""
        ...

    def pieces(self) -> AsyncIterator[bytes]:
        """Return the pieces of its body, as they were sent."""
        ...


class Client(Protocol):
    """Makes requests."""

    @property
    def base_url(self) -> httpx2.URL:
        """Where paths begin."""
        ...

    def stream(self, url: httpx2.URL | str, *, as_us: bool = True) -> AbstractAsyncContextManager[Answer]:
        """Make one GET request; the answer is read inside the block.

        Args:
            url: Where to; a path alone is the provider's.
            as_us: Whether to send our key and token along.

        Raises:
            DeadlineExceeded: The deadline of the context has passed.
            httpx2.HTTPError: There was no answer.
        """
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


class _AsyncAnswer:
    def __init__(self, response: httpx2.Response) -> None:
        self.response = response

    async def pieces(self) -> AsyncIterator[bytes]:
        async for piece in self.response.aiter_raw():
            yield piece
            _time_left(self.response)


class AsyncClient:
    """Answers `Client` by `httpx2.AsyncClient`."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client
        self.base_url = client.base_url

    @contextlib.asynccontextmanager
    async def stream(self, url: httpx2.URL | str, *, as_us: bool = True) -> AsyncIterator[Answer]:
        """Make one GET request; the answer is read inside the block."""
        async with self._client.stream("GET", url, **_terms(self._client, as_us=as_us)) as response:
            yield _AsyncAnswer(response)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


class _BlockingAnswer:
    def __init__(self, response: httpx2.Response) -> None:
        self.response = response

    async def pieces(self) -> AsyncIterator[bytes]:
        for piece in self.response.iter_raw():
            yield piece
            _time_left(self.response)


class BlockingClient:
    """Answers `Client` by `httpx2.Client`; it never suspends."""

    def __init__(self, client: httpx2.Client) -> None:
        self._client = client
        self.base_url = client.base_url

    @contextlib.asynccontextmanager
    async def stream(self, url: httpx2.URL | str, *, as_us: bool = True) -> AsyncIterator[Answer]:
        """Make one GET request; the answer is read inside the block."""
        with self._client.stream("GET", url, **_terms(self._client, as_us=as_us)) as response:
            yield _BlockingAnswer(response)

    async def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _terms(client: httpx2.Client | httpx2.AsyncClient, *, as_us: bool) -> dict[str, Any]:
    """Return how long a request may wait for anything, and as whom it is made.

    Raises:
        DeadlineExceeded: The deadline of the context has passed.
    """
    left = remaining()
    terms: dict[str, Any] = {} if as_us else {"auth": None}
    if left is None:
        return terms
    if left <= 0:
        raise DeadlineExceeded("the time was up before the request was made")
    usual = client.timeout.read
    return {**terms, "timeout": left if usual is None else min(left, usual)}


def _time_left(response: httpx2.Response) -> None:
    if remaining() == 0:
        raise DeadlineExceeded(f"the time was up while {response.request.url.host} was still sending")


def options(settings: Any) -> dict[str, Any]:
    """Return what both clients of the telephony provider are made with."""
    return {
        "base_url": settings.telephony_url,
        "auth": (settings.telephony_key, settings.telephony_token),
        "headers": {"Accept-Encoding": "identity"},  # a few compressed bytes can be gigabytes of sound
        "timeout": settings.telephony_timeout,
        "follow_redirects": False,
        "trust_env": False,
    }
