"""httpx2's two clients under one form: one is awaited, the other blocks and never suspends."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Protocol

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

    def stream(self, method: str, url: httpx2.URL | str) -> AbstractAsyncContextManager[Answer]:
        """Make one request; the answer is read inside the block."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


class _AsyncAnswer:
    def __init__(self, response: httpx2.Response) -> None:
        self.response = response

    def pieces(self) -> AsyncIterator[bytes]:
        return self.response.aiter_raw()


class AsyncClient:
    """Answers `Client` by `httpx2.AsyncClient`."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client
        self.base_url = client.base_url

    @contextlib.asynccontextmanager
    async def stream(self, method: str, url: httpx2.URL | str) -> AsyncIterator[Answer]:
        """Make one request; the answer is read inside the block."""
        async with self._client.stream(method, url) as response:
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


class BlockingClient:
    """Answers `Client` by `httpx2.Client`; it never suspends."""

    def __init__(self, client: httpx2.Client) -> None:
        self._client = client
        self.base_url = client.base_url

    @contextlib.asynccontextmanager
    async def stream(self, method: str, url: httpx2.URL | str) -> AsyncIterator[Answer]:
        """Make one request; the answer is read inside the block."""
        with self._client.stream(method, url) as response:
            yield _BlockingAnswer(response)

    async def close(self) -> None:
        """Close the connections."""
        self._client.close()


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
