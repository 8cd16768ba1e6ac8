"""The object store: a local folder through obstore, which speaks S3 as well.

obstore retries S3 requests by itself, up to ten times, unseen by our budget, breaker and statistics: one
put that was answered `503 SlowDown` became eleven requests. A local folder has no such retries. Whoever
puts an `S3Store` here passes `retry_config={"max_retries": 0}`, so that one attempt is one request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import obstore
from obstore.store import LocalStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from examples.backend.kit import Retries
    from examples.backend.ports.workers import Workers


class FolderObjects:
    """Answers `examples.backend.domain.recordings.Objects`.

    Args:
        folder: Where the objects lie.
        workers: Who waits for the disk.
        retries: How storing is retried, and which breaker guards it.
    """

    def __init__(self, folder: Path, workers: Workers, retries: Retries) -> None:
        self._store = LocalStore(folder, mkdir=True)
        self._workers = workers
        self._retries = retries

    async def put(self, key: str, file: Path, content_type: str) -> None:  # noqa: ARG002 - a folder keeps none
        """Store `file` under `key`, whole or not at all."""
        await self._retries.execute(self._workers.run, obstore.put, self._store, key, file)

    async def get(self, key: str) -> AsyncIterator[bytes]:
        """Open what is stored under `key`; return its pieces."""
        found = await self._retries.execute(self._workers.run, obstore.get, self._store, key)
        return self._pieces(iter(found.stream()))

    async def _pieces(self, stream: Iterator[Any]) -> AsyncIterator[bytes]:
        while (piece := await self._workers.run(next, stream, None)) is not None:
            yield bytes(piece)
