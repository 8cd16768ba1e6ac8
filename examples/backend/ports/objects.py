"""The object store, through obstore: a local folder, or S3 and what is compatible with it (Wasabi, say).

obstore retries S3 requests by itself, up to ten times, unseen by our budget, breaker and statistics: one put
that was answered `503 SlowDown` became eleven requests. Here that is switched off: one attempt is one
request. After it, one more asks whether all arrived.

What an S3 store answers is told apart by its code, which obstore has in its messages only:

- It is unwell (`SlowDown`, `InternalError`, no answer …): tried again, within the budget.
- `AuthenticationLockout`: it locks out whoever goes on asking, for some five minutes. A breaker of its own
  opens at the first one, for as long.
- `RequestTimeTooSkewed`: this machine's clock is wrong. No retry mends that; the log says what does.
"""

from __future__ import annotations

import logging
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, S3Store

from examples.backend.domain.bringing import UNUSABLE
from resilience import CircuitBreaker, ErrorCode, ServiceError, not_found_error, service_unavailable_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from examples.backend.domain.recordings import Sound
    from examples.backend.kit import Retries
    from examples.backend.ports.workers import Workers
    from examples.backend.settings import Settings

T = TypeVar("T")

logger: Final = logging.getLogger("backend.objects")

PIECE: Final = 8 * 1024 * 1024
"""Bytes. What is longer is put in several pieces: one that fails costs less, and memory stays small."""
STRETCH: Final = 512 * 1024
"""Bytes that are read at a time. The store knows only this much of a slow listener, whom it would cut off."""
SLICE: Final = 64 * 1024
"""Bytes that are handed on at a time, so that a slow listener takes each in good time."""
SHORTEST_WAIT: Final = 1.0
"""Seconds after which it is worth asking a store again that is unwell."""
CODE: Final = re.compile(r"<Code>(\w+)</Code>")
STATUS: Final = re.compile(r"status code: (\d{3})")
TRANSIENT_CODES: Final = {"RequestRateLimitExceeded", "SlowDown", "RequestTimeout"}
SKEWED: Final = "RequestTimeTooSkewed"
LOCKED_OUT: Final = "AuthenticationLockout"
MD5: Final = re.compile('"?([0-9a-f]{32})"?')


class StoreUnwellError(Exception):
    """The store failed in a way that passes."""


class LockedOutError(ServiceError):
    """The store locks us out for a while."""

    def __init__(self) -> None:
        super().__init__(code=ErrorCode.SERVICE_UNAVAILABLE)


def is_unwell(error: BaseException) -> bool:
    """Return whether an error says that the store is unwell, so that it is worth trying again."""
    return isinstance(error, StoreUnwellError)


def lockout_breaker(seconds: float, **options: Any) -> CircuitBreaker:
    """Return what keeps everybody from a store that has locked us out, and lets one ask when that is over."""
    return CircuitBreaker(
        1, seconds, name="object-store-lockout", probes=1, record_on=LockedOutError, **options
    )


class Objects:
    """Answers what the domain asks of an object store.

    Args:
        store: Of obstore's.
        workers: Who waits for it.
        retries: How requests are retried, and which breaker guards them.
        lockout: What keeps everybody from it once it has locked us out.
    """

    def __init__(
        self, store: LocalStore | S3Store, workers: Workers, retries: Retries, lockout: CircuitBreaker
    ) -> None:
        self._store = store
        self._workers = workers
        self._retries = retries
        self._lockout = lockout
        self._is_s3 = isinstance(store, S3Store)

    async def put(self, key: str, file: Path, sound: Sound, name: str) -> None:
        """Store `file` under `key`, whole or not at all, and make sure that it arrived.

        Args:
            key: Where.
            file: What.
            sound: What is known of it.
            name: By which a browser saves it.

        Raises:
            ServiceError: The store failed, or has something else than what was put (503).
        """
        attributes: Any = None
        if self._is_s3:  # a folder has no place for them
            attributes = {
                "Content-Type": sound.content_type,
                "Content-Disposition": f'attachment; filename="{name}"',
                "sha256": sound.sha256,
            }

        def put() -> None:
            obstore.put(
                self._store, key, file,
                attributes=attributes, use_multipart=sound.size > PIECE, chunk_size=PIECE,
            )  # fmt: skip

        def arrived() -> bool:
            try:
                meta = obstore.head(self._store, key)
            except FileNotFoundError:
                return False
            tag = MD5.fullmatch(meta["e_tag"] or "")
            return meta["size"] == sound.size and (not self._is_s3 or tag is None or tag[1] == sound.md5)

        await self._ask(put)
        if not await self._ask(arrived):
            raise service_unavailable_error("The object store", SHORTEST_WAIT)

    async def get(self, key: str, part: range) -> AsyncIterator[bytes]:
        """Open a part of what is stored under `key`; return its pieces.

        It is read stretch by stretch, each by a request of its own that is retried like any other. So neither
        a slow listener nor a request that breaks off ends it, and memory and threads are held by nobody who
        merely listens.

        Raises:
            ServiceError: The store failed (503), or has lost it (404).
        """
        first = await self._stretch(key, part[:STRETCH])
        return self._pieces(key, first, part[STRETCH:])

    async def url(self, key: str, seconds: float) -> str | None:
        """Return an address that opens it for so long; None if this store has none."""
        store = self._store
        if not isinstance(store, S3Store):
            return None
        return obstore.sign(store, "GET", key, timedelta(seconds=seconds))  # no request: it is arithmetic

    async def remove(self, folder: str) -> None:
        """Remove whatever lies in a folder; nothing may."""

        def remove() -> None:
            for page in obstore.list(self._store, folder):
                for found in page:
                    try:
                        obstore.delete(self._store, found["path"])
                    except FileNotFoundError:  # somebody else was quicker
                        continue

        await self._ask(remove)

    async def _pieces(self, key: str, stretch: memoryview, rest: range) -> AsyncIterator[bytes]:
        while stretch:
            for at in range(0, len(stretch), SLICE):
                yield bytes(stretch[at : at + SLICE])
            stretch, rest = await self._stretch(key, rest[:STRETCH]), rest[STRETCH:]

    async def _stretch(self, key: str, part: range) -> memoryview:
        if not part:
            return memoryview(b"")
        try:
            return memoryview(
                await self._ask(lambda: obstore.get_range(self._store, key, start=part.start, end=part.stop))
            )
        except FileNotFoundError:
            logger.exception("the object store has lost %s", key)
            raise not_found_error("Recording") from None

    async def _ask(self, work: Callable[[], T]) -> T:
        """Return what `work` returns, attempted again as long as that is worth it."""
        try:
            return await self._retries.execute(self._attempt, work)
        except StoreUnwellError as error:
            raise service_unavailable_error("The object store", SHORTEST_WAIT) from error

    async def _attempt(self, work: Callable[[], T]) -> T:
        with self._lockout.guard():
            try:
                return await self._workers.run(work)
            except (BaseError, TimeoutError) as error:
                raise _told(error) from error


def store_of(settings: Settings, timeout: float) -> LocalStore | S3Store:
    """Return the store that the settings name.

    Args:
        settings: Where it is, and how to log in.
        timeout: Seconds for one request to it.
    """
    if not settings.storage_url:
        return LocalStore(settings.var / "objects", mkdir=True)
    return S3Store(
        settings.storage_bucket,
        endpoint=settings.storage_url,
        region=settings.storage_region,
        access_key_id=settings.storage_key,
        secret_access_key=settings.storage_secret,
        virtual_hosted_style_request=False,
        client_options={
            "allow_http": settings.storage_url.startswith("http://"),
            "timeout": timedelta(seconds=timeout),
        },
        retry_config={"max_retries": 0},
    )


def _told(error: Exception) -> Exception:
    """Return what an error of obstore's means to us."""
    text = str(error)
    code, status = CODE.search(text), STATUS.search(text)
    name = code[1] if code else ""
    if name == LOCKED_OUT:
        return LockedOutError()
    if name == SKEWED:
        logger.error("the object store refuses us because this machine's clock is wrong: mend the clock")
    elif name in TRANSIENT_CODES or status is None or status[1] == "429" or status[1].startswith("5"):
        return StoreUnwellError(text.partition("\n")[0])
    return ServiceError(code=UNUSABLE, details={"object store": name or text.partition("\n")[0]})
