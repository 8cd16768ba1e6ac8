"""Puts together what brings recordings: webhooks, the workers, and what guards the provider and the store."""

from __future__ import annotations

import logging
import secrets
from typing import TYPE_CHECKING, Any, Final

from examples.backend.domain.bringing import Bringer
from examples.backend.domain.jobs import Worker
from examples.backend.domain.reconciliation import Reconciliation
from examples.backend.domain.recordings import LISTENERS, Recordings
from examples.backend.domain.webhooks import Webhooks
from examples.backend.kit import settled
from examples.backend.ports import http_client
from examples.backend.ports.call_events import DatabaseCallEvents
from examples.backend.ports.catalogue import DatabaseCatalogue
from examples.backend.ports.jobs import DatabaseJobs
from examples.backend.ports.objects import Objects, is_unwell, lockout_breaker, store_of
from examples.backend.ports.signatures import StandardSignatures
from examples.backend.ports.telephony import Guarded, HTTPTelephony
from resilience import BreakerRegistry, DeadlineExceeded, ServiceError, is_transient
from resilience.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import Callable

    from examples.backend.domain.limits import Limits
    from examples.backend.domain.webhooks import Secrets, Tenants
    from examples.backend.kit import Kit, Retries
    from examples.backend.ports.database import Database
    from examples.backend.settings import Settings
    from resilience import CircuitBreaker
    from resilience.clock import Clock

    Guard = Callable[..., tuple[Retries, CircuitBreaker]]

logger: Final = logging.getLogger("backend.jobs")

UNWELL: Final = (is_transient, DeadlineExceeded)
"""What tells that a dependency is unwell; a wrong password of ours, say, does not."""
MOST_HOSTS: Final = 100
"""Hosts of recordings that have a breaker of their own."""
FINISHING: Final = 5.0
"""Seconds that a lease outlasts two deadlines: of the work, and of a last request that was begun in time."""
LAST_MOMENTS: Final = 1.0
"""Seconds that workers get to finish at the end; what takes longer is handed back."""


class Bringing:
    """All about recordings, put together for one process.

    Args:
        settings: How this process runs.
        kit: How it waits.
        database: Where calls and jobs are kept.
        tenants: Whose webhooks come where.
        limits: How many deliveries are taken.
        counts: Where limits are counted.
        board: What lets the processes' breakers open and close together; None for each by itself.
        signing: What tenants sign deliveries with.
        guard: Makes a dependency's retries and breaker, and has them watched.
        clock: Tells the wall time, by which jobs are due and leases end.
    """

    def __init__(
        self,
        settings: Settings,
        kit: Kit,
        *,
        database: Database,
        tenants: Tenants,
        limits: Limits,
        counts: Any,
        board: Any,
        signing: Secrets,
        guard: Guard,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        within = settings.recording_deadline
        recovery = settings.telephony_recovery
        self._retries, self._provider = guard("telephony", recovery_time=recovery, probes=1)
        self._hosts = BreakerRegistry(
            name="telephony",
            record_on=UNWELL,
            recovery_time=recovery,
            probes=1,
            max_keys=MOST_HOSTS,
            shared=board,
        )
        client = kit.http_client(**http_client.options(settings))
        self._home = client.base_url.netloc.decode()
        rate = f"{settings.telephony_rate}/minute"
        turns = kit.limiter(rate, name="telephony", store=counts, on_outage="open")
        self._telephony = HTTPTelephony(settings, client, self._guarded, turns)

        self._waiting = kit.workers("The object store", threads=settings.recording_workers + 4, queue=1000)
        storage_retries, _ = guard("object-store", unwell=(is_unwell, DeadlineExceeded), retry_on=is_unwell)
        self._lockout = lockout_breaker(settings.storage_lockout, shared=board)
        objects = Objects(store_of(settings, within), self._waiting, storage_retries, self._lockout)

        bringer = Bringer(
            telephony=self._telephony,
            objects=objects,
            downloads=settings.var / "downloads",
            within=within,
            patience=settings.recording_patience,
            clock=clock,
        )
        events = DatabaseCallEvents(database)
        flights = kit.flights()
        self.worker = Worker(
            queue=DatabaseJobs(database, clock),
            bringer=bringer,
            flights=flights,
            process=secrets.token_hex(8),
            lease=2 * within + FINISHING,
            clock=clock,
        )
        self._crew = kit.crew(
            self.worker.work,
            size=settings.recording_workers,
            pause=settings.recording_poll,
            name="recording worker",
        )
        wake = self._crew.wake
        self.recordings = Recordings(
            bringer=bringer,
            objects=objects,
            catalogue=DatabaseCatalogue(database, clock),
            flights=flights,
            listeners=kit.most_listeners(
                LISTENERS, settings.request_threads // 2
            ),  # live updates have a half
            wake=wake,
            clock=clock,
        )
        self.webhooks = Webhooks(
            tenants=tenants,
            events=events,
            secrets=signing,
            signatures=StandardSignatures(),
            limits=limits,
            wake=wake,
            clock=clock,
        )
        interval = settings.reconciliation_interval
        self.reconciliation = Reconciliation(
            provider=self._telephony, announcements=events, interval=interval, wake=wake, clock=clock
        )
        self._reading = kit.periodic(self.reconciliation.look, interval, name="reconciliation")

    @property
    def breakers(self) -> tuple[CircuitBreaker, ...]:
        """The breakers beside those that `guard` made: those of recordings' hosts come as they are needed."""
        return (self._lockout, *map(self._hosts.get, self._hosts.snapshots()))

    async def start(self) -> None:
        """Begin to work."""
        await settled(self._crew.start())
        await settled(self._reading.start())

    async def forget(self) -> None:
        """Forget what nobody will ask for any more."""
        await self.webhooks.forget()

    async def stop(self) -> None:
        """End to work: finish what can be finished soon, hand back the rest."""
        await settled(self._reading.stop(timeout=LAST_MOMENTS))
        await settled(self._crew.stop(timeout=LAST_MOMENTS))
        try:
            await self.worker.hand_back()
        except ServiceError as error:
            reason = error.__cause__ or error
            logger.warning("jobs could not be handed back; their leases run out in a moment: %s", reason)

    async def close(self) -> None:
        """Let go of connections and threads; nothing runs any more."""
        await self._telephony.close()
        self._waiting.close()

    def _guarded(self, host: str) -> Guarded:
        """Return how requests to a host are made: each has its breaker, and all share budget and figures."""
        if host == self._home:
            return Guarded(self._retries, self._provider)
        breaker = self._hosts.get(host)
        return Guarded(self._retries.replace(circuit_breaker=breaker), breaker)
