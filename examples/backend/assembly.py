"""Puts the backend together: which port answers what the domain asks, and under which policies.

This is the one place that knows everybody. It also begins what runs by itself, and ends all in order.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

from examples.adapters import note
from examples.backend.domain.accounts import Accounts
from examples.backend.domain.codes import OneTimeCodes
from examples.backend.domain.limits import Limits
from examples.backend.domain.recordings import Recordings
from examples.backend.domain.webhooks import Webhooks
from examples.backend.ports.call_events import SQLiteCallEvents
from examples.backend.ports.catalogue import SQLiteCatalogue
from examples.backend.ports.database import Database
from examples.backend.ports.flights import Flights
from examples.backend.ports.mail import Outbox
from examples.backend.ports.objects import FolderObjects
from examples.backend.ports.passwords import Argon2Passwords
from examples.backend.ports.telephony import HTTPTelephony
from examples.backend.ports.users import SQLiteUsers
from examples.backend.ports.workers import Workers
from examples.backend.telemetry import log_event
from resilience import (
    AsyncRetryManager,
    AsyncSessionJanitor,
    CircuitBreaker,
    DeadlineExceeded,
    is_transient,
)
from resilience.events import subscribe
from resilience.janitor.sqlite import AsyncSQLiteSessionStore
from resilience.stores.memory import MemoryStore
from resilience.stores.sqlite import SQLiteStore

if TYPE_CHECKING:
    from examples.backend.settings import Settings

KEY_BYTES: Final = 32
UNWELL: Final = (is_transient, DeadlineExceeded)
"""What tells that a dependency is unwell; a wrong password of ours, say, does not."""


class Backend:
    """The whole backend but for HTTP: use cases, their ports, and what watches over them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.draining = False
        """Whether the process is about to end and wants no new work."""
        var = settings.var
        var.mkdir(parents=True, exist_ok=True, mode=0o700)

        self.database = Database(var / "backend.db")
        self.sessions = AsyncSQLiteSessionStore(
            var / "sessions.db",
            idle_timeout=settings.session_idle,
            absolute_lifetime=settings.session_lifetime,
        )
        self.janitor = AsyncSessionJanitor(self.sessions, interval=settings.sweep_interval)

        self._counts = SQLiteStore(var / "limits.db") if settings.limiter_store == "sqlite" else MemoryStore()
        self.limits = Limits(self._counts, on_decision=note)
        self._hashing = Workers(
            "Password checking", threads=settings.hashing_threads, queue=settings.hashing_queue
        )
        self._writing = Workers("The outbox", threads=1, queue=1000)
        self.accounts = Accounts(
            users=SQLiteUsers(self.database),
            passwords=Argon2Passwords(self._hashing),
            sessions=self.sessions,
            codes=OneTimeCodes(_secret(settings)),
            mail=Outbox(var / "outbox", self._writing),
            limits=self.limits,
        )

        telephony_retries, telephony_breaker = telephony_policies(settings)
        storage_breaker = CircuitBreaker(name="object-store", record_on=UNWELL)
        storage_retries = AsyncRetryManager(name="object-store", circuit_breaker=storage_breaker)
        self.breakers = (telephony_breaker, storage_breaker)
        self.retries = {"telephony": telephony_retries, "object-store": storage_retries}
        self._telephony = HTTPTelephony(settings, telephony_retries, telephony_breaker)
        self.recordings = Recordings(
            telephony=self._telephony,
            objects=FolderObjects(var / "objects", storage_retries),
            catalogue=SQLiteCatalogue(self.database),
            flights=Flights(),
            downloads=var / "downloads",
            within=settings.recording_deadline,
            patience=settings.recording_patience,
        )
        self.webhooks = Webhooks(
            tenants=settings.webhook_tenants, events=SQLiteCallEvents(self.database), limits=self.limits
        )

    async def start(self) -> None:
        """Begin what runs by itself."""
        self._unsubscribe = subscribe(log_event)
        await self.janitor.start()

    async def close(self) -> None:
        """End what runs by itself, then let go of everything; requests have ended before."""
        await self.janitor.stop(timeout=1.0)
        await self._telephony.close()
        self._hashing.close()
        self._writing.close()
        await self.sessions.close()
        self.database.close()
        if isinstance(self._counts, SQLiteStore):
            self._counts.close()
        self._unsubscribe()


def telephony_policies(settings: Settings) -> tuple[AsyncRetryManager, CircuitBreaker]:
    """Return how requests to the provider are retried, and what guards it."""
    breaker = CircuitBreaker(
        name="telephony", recovery_time=settings.telephony_recovery, probes=1, record_on=UNWELL
    )
    return AsyncRetryManager(name="telephony", circuit_breaker=breaker), breaker


def _secret(settings: Settings) -> bytes:
    """Return the key of the one-time codes: the configured one, or one that is made once and kept."""
    if settings.secret:
        return settings.secret.encode()
    file = settings.var / "secret.key"
    if not file.exists():
        unfinished = settings.var / "secret.unfinished"
        unfinished.touch(mode=0o600)
        unfinished.write_bytes(secrets.token_bytes(KEY_BYTES))
        unfinished.rename(file)
    return file.read_bytes()
