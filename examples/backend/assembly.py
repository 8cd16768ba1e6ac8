"""Puts the backend together: which port answers what the domain asks, and under which policies.

This is the one place that knows everybody. It also begins what runs by itself, and ends all in order.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from examples.adapters import note
from examples.backend.bringing import UNWELL, Bringing
from examples.backend.domain.accounts import Accounts
from examples.backend.domain.codes import OneTimeCodes
from examples.backend.domain.limits import Limits
from examples.backend.domain.live import Live
from examples.backend.domain.pace import Pace
from examples.backend.domain.passwords import PasswordChanges, PasswordRules
from examples.backend.domain.tenants import Administration, SigningSecrets
from examples.backend.domain.tickets import Tickets
from examples.backend.domain.tokens import hash_of
from examples.backend.kit import settled
from examples.backend.monitoring import Monitoring
from examples.backend.ports import known_passwords
from examples.backend.ports.database import Database, migrate
from examples.backend.ports.known_passwords import BreachedPasswords, CommonPasswords
from examples.backend.ports.live import DatabaseLiveEvents
from examples.backend.ports.mail import Outbox, SMTPServer, is_unwell
from examples.backend.ports.mail_queue import MailQueue
from examples.backend.ports.passwords import Argon2Passwords
from examples.backend.ports.sessions import ClosingSessions
from examples.backend.ports.tenants import DatabaseTenants
from examples.backend.ports.tickets import DatabaseUsedTickets, JoseSeal
from examples.backend.ports.users import DatabaseUsers
from examples.backend.telemetry import log_event
from resilience import CircuitBreaker, DeadlineExceeded, is_transient
from resilience.clock import SYSTEM_CLOCK
from resilience.events import subscribe
from resilience.janitor.sockets import SocketRegistry
from resilience.stores import StoreUnavailable
from resilience.stores.memory import MemoryStore
from resilience.stores.sqlite import SQLiteStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from examples.backend.domain.accounts import Mail
    from examples.backend.kit import Kit, Retries
    from examples.backend.settings import Settings

KEY_BYTES: Final = 32
LOOK_EVERY: Final = 0.5
"""Seconds between two looks for live updates."""
DELIVER_EVERY: Final = 0.5
"""Seconds between two looks for mail that is to be handed over."""
FORGET_EVERY: Final = 600.0
"""Seconds between two deletions of what nobody will ask for any more."""
COUNT_WITHIN: Final = 0.5
"""Seconds for Redis to count. Of a thousand requests at once, the last wait for this very process, and that
must not be taken for a Redis that is away: it would keep out whoever logs in."""


class Backend:
    """The whole backend but for HTTP: use cases, their ports, and what watches over them.

    Made in the process that serves, after any fork. Made, `start`ed, `drain`ed when the process is told to
    end, and `close`d when its last request has ended.
    """

    def __init__(self, settings: Settings, kit: Kit) -> None:
        self.settings = settings
        self.kit = kit
        self.started = False
        """Whether it has begun to serve."""
        self.draining = False
        """Whether the process is about to end and wants no new work."""
        var = settings.var
        var.mkdir(parents=True, exist_ok=True, mode=0o700)
        secret = _secret(settings)

        url = settings.database_url or f"sqlite:///{var.absolute() / 'data.db'}"
        migrate(settings.database_owner_url or url)
        waiting = settings.database_connections
        self.database = Database(
            url, kit.workers("The database", threads=waiting, queue=1000), connections=waiting
        )
        self.sockets = SocketRegistry()
        self.sessions = _sessions(settings, kit)
        self.janitor = kit.janitor(
            self.sessions,
            interval=settings.sweep_interval,
            sockets=self.sockets,
            sockets_interval=settings.sockets_interval,
        )

        self._board = _board(settings)
        self._counts = _counts(settings, kit)
        self.limits = Limits(partial(kit.limiter, store=self._counts), kit.acquire_all, note)
        self._hashing = kit.workers(
            "Password checking",
            threads=settings.hashing_threads,
            queue=settings.hashing_queue,
            apart=True,  # a hash takes 19 MiB, which the allocator would keep for each thread of a server
        )
        self._files = kit.workers("The disk", threads=4, queue=1000)
        self._mailing = kit.workers("The mail server", threads=1, queue=10)
        self._breakers: tuple[CircuitBreaker, ...] = ()
        self.retries: dict[str, Retries] = {}
        self._running: list[Any] = [self.janitor]
        """What runs by itself."""
        mail = self._post(derived(secret, "mail"))
        sessions = ClosingSessions(self.sessions, self.janitor)
        self._breached = self._breached_passwords()
        what_accounts_need: dict[str, Any] = {
            "users": DatabaseUsers(self.database),
            "passwords": Argon2Passwords(self._hashing),
            "rules": PasswordRules(CommonPasswords(), self._breached),
            "sessions": sessions,
            "codes": OneTimeCodes(derived(secret, "one-time codes")),
            "mail": mail,
            "limits": self.limits,
            "pace": Pace(kit.sleep),
        }
        self.accounts = Accounts(**what_accounts_need)
        self.passwords = PasswordChanges(**what_accounts_need)
        self.tenants = DatabaseTenants(self.database)
        self.administration = Administration(
            tenants=self.tenants,
            sessions=sessions,
            signing=SigningSecrets(derived(secret, "webhook signatures")),
            mail=mail,
            limits=self.limits,
        )

        self._used_tickets = DatabaseUsedTickets(self.database)
        self.tickets = Tickets(
            seal=JoseSeal(derived(secret, "tickets")), used=self._used_tickets, sessions=self.sessions
        )
        self.live = Live(
            events=DatabaseLiveEvents(self.database),
            sessions=self.sessions,
            sockets=self.sockets,
            most=kit.most_listeners(settings.live_connections, settings.request_threads),
            most_of_user=settings.live_connections_per_user,
        )
        self._running.append(kit.periodic(self.live.look, LOOK_EVERY, name="live updates"))
        self._running.append(kit.periodic(self._forget, FORGET_EVERY, name="forgetting what was told"))

        self.bringing = Bringing(
            settings,
            kit,
            database=self.database,
            tenants=self.tenants,
            limits=self.limits,
            counts=self._counts,
            board=self._board,
            signing=self.administration,
            guard=self._guard,
        )
        self.recordings = self.bringing.recordings
        self.webhooks = self.bringing.webhooks
        self.monitoring = Monitoring(self, derived(secret, "monitoring"))

    @property
    def breakers(self) -> tuple[CircuitBreaker, ...]:
        """Every breaker there is at the moment: hosts of recordings get theirs when they are first asked."""
        return (*self._breakers, *self.bringing.breakers)

    async def start(self) -> None:
        """Begin what runs by itself."""
        self._unsubscribe = subscribe(log_event)
        if hasattr(self._counts, "check"):  # else the first crowd would wait for the connection
            with contextlib.suppress(StoreUnavailable):  # the log was told; it may come later
                await settled(self._counts.check())
        for secret in self.settings.webhook_tenants:
            kept = hash_of(secret)
            await self.tenants.ensure(kept[:32], "demo", kept, SYSTEM_CLOCK.wall())
            if self.settings.demo_password:
                await self.accounts.ensure_demo(kept[:32], self.settings.demo_password)
        await self.live.start()
        for running in self._running:
            await settled(running.start())
        await self.bringing.start()
        await self.monitoring.start()
        self.started = True

    def drain(self) -> None:
        """Want no new work: readiness says no from now on. May be called by a signal handler."""
        self.draining = True

    async def hang_up(self) -> None:
        """Close the connections that stay open by themselves; nothing new is accepted any more."""
        await self.kit.close_sockets(self.sockets)

    async def close(self) -> None:
        """End what runs by itself, then let go of everything; requests have ended before."""
        async with contextlib.AsyncExitStack() as ending:  # backwards, and to its end whatever fails
            ending.callback(self._unsubscribe)
            if hasattr(self._counts, "close"):
                ending.push_async_callback(settled_by, self._counts.close)
            if self._board is not None:
                ending.callback(self._board.close)
            ending.callback(self.database.close)
            ending.push_async_callback(self.sessions.close)
            for workers in (self._hashing, self._files, self._mailing):
                ending.callback(workers.close)
            if self._breached is not None:
                ending.push_async_callback(self._breached.close)
            ending.push_async_callback(self.bringing.close)
            for running in self._running:
                ending.push_async_callback(settled_by, running.stop, timeout=1.0)
            ending.push_async_callback(self.bringing.stop)
            ending.push_async_callback(self.monitoring.close)

    async def _forget(self) -> None:
        async with contextlib.AsyncExitStack() as each:  # whatever becomes of the others
            each.push_async_callback(self.accounts.forget)
            each.push_async_callback(self.live.forget)
            each.push_async_callback(self.bringing.forget)
            each.push_async_callback(self._used_tickets.forget, SYSTEM_CLOCK.wall())

    def _post(self, key: bytes) -> Mail:
        """Return who takes messages: a folder, or a queue before the mail server."""
        settings = self.settings
        if not settings.smtp_host:
            return Outbox(settings.var / "outbox", self._files, settings.mail_from)
        retries, _ = self._guard("mail", unwell=(is_unwell, DeadlineExceeded), retry_on=is_unwell)
        queue = MailQueue(self.database, key, SMTPServer(settings, self._mailing, retries))
        self._running.append(self.kit.periodic(queue.deliver, DELIVER_EVERY, name="handing over mail"))
        return queue

    def _breached_passwords(self) -> BreachedPasswords | None:
        url = self.settings.breached_passwords_url
        if not url:
            return None
        retries, _ = self._guard("breached-passwords")
        return BreachedPasswords(self.kit.http_client(**known_passwords.client_options(url)), retries)

    def _guard(
        self, name: str, *, unwell: Any = UNWELL, retry_on: Any = is_transient, **breaker_options: Any
    ) -> tuple[Retries, CircuitBreaker]:
        """Return how calls of a dependency are retried, and what guards it; both are watched from now on."""
        breaker = CircuitBreaker(name=name, record_on=unwell, shared=self._board, **breaker_options)
        retries = self.kit.retries(name=name, circuit_breaker=breaker, retry_on=retry_on)
        self._breakers = (*self._breakers, breaker)
        self.retries[name] = retries
        return retries, breaker


async def settled_by(end: Callable[..., object], **options: Any) -> None:
    """Call a method of whichever twin, and await it if need be."""
    await settled(end(**options))


def derived(secret: bytes, purpose: str) -> bytes:
    """Return a key for one purpose only: whoever learns it learns no other."""
    return hmac.digest(secret, purpose.encode(), "sha256")


def _sessions(settings: Settings, kit: Kit) -> Any:
    lifetimes = {"idle_timeout": settings.session_idle, "absolute_lifetime": settings.session_lifetime}
    if settings.database_url:
        return kit.postgres_sessions(settings.database_url, **lifetimes)
    return kit.sqlite_sessions(settings.var / "sessions.db", **lifetimes)


def _board(settings: Settings) -> Any:
    """Return what lets the processes' breakers open and close together, where there is Redis for it."""
    if not settings.redis_url:
        return None
    from resilience.boards.redis import RedisBoard  # noqa: PLC0415 - only those who use it need redis-py

    return RedisBoard(settings.redis_url)


def _counts(settings: Settings, kit: Kit) -> Any:
    """Return where limits are counted."""
    match settings.limiter_store:
        case "redis":
            return kit.redis_store(settings.redis_url, timeout=COUNT_WITHIN)
        case "sqlite":
            return SQLiteStore(settings.var / "limits.db")
        case "memory":
            return MemoryStore()


def _secret(settings: Settings) -> bytes:
    """Return the secret that all keys are derived from: the configured one, or one made once and kept."""
    if settings.secret:
        return settings.secret.encode()
    file = settings.var / "secret.key"
    if not file.exists():
        unfinished = settings.var / f"secret.{os.getpid()}"
        unfinished.touch(mode=0o600)
        unfinished.write_bytes(secrets.token_bytes(KEY_BYTES))
        with contextlib.suppress(FileExistsError):  # of several processes, the first one's counts
            file.hardlink_to(unfinished)
        unfinished.unlink()
    return file.read_bytes()
