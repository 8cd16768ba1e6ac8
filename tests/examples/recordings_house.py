"""What brings recordings, put together over real ports in this process, under either kit.

The fake provider runs in threads of this process; the store is a folder, or the S3 stand-in. The clock by
which jobs are due and leases end is a fake one.
"""

from __future__ import annotations

import asyncio
import functools
import tempfile
import threading
from pathlib import Path

from sqlalchemy import insert, select

from examples.backend.bringing import UNWELL, Bringing
from examples.backend.domain.limits import Limits
from examples.backend.fakes.provider import Provider, written
from examples.backend.fakes.telephony import Server
from examples.backend.kit import AsyncKit, BlockingKit, drive
from examples.backend.ports.database import EVERY, Database, migrate
from examples.backend.ports.tables import calls, jobs, live_events, tenants
from examples.backend.settings import Settings
from resilience import CircuitBreaker, is_transient
from resilience.stores.memory import MemoryStore
from resilience.testing import FakeClock

KITS = {"async": AsyncKit, "blocking": BlockingKit}
TENANTS = ("ours", "theirs")
SECRET = "whsec_" + "c2VjcmV0" * 6
CALL_ENDED = 1_736_937_000.0  # 2025-01-15 16:00 in India, where the fake's clocks are


@functools.cache
def _empty_file():
    """Return a file with the tables; laying them out takes longer than most tests."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "data.db"
        migrate(f"sqlite:///{file}")
        return file.read_bytes()


def _lay_out(url):
    file = Path(url.removeprefix("sqlite:///"))
    if not url.startswith("sqlite"):
        migrate(url)
    elif not file.exists():
        file.write_bytes(_empty_file())


def start_provider():
    """Start a fake provider in this process."""
    server = Server(0, Provider("demo", "demo-key", "demo-token"))
    server.thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    server.thread.start()
    return server


def stop_provider(server):
    server.shutdown()
    server.thread.join()
    server.server_close()


class House:
    """One process's part of the backend that brings recordings.

    Args:
        fake: The provider.
        folder: Where everything is written.
        kit: How it waits: `async` or `blocking`.
        clock: By which jobs are due; a new one unless told.
        url: The database's; a file in the folder unless told.
        retry: How dependencies are retried; quickly and without a budget unless told.
        settings: The backend's.
    """

    def __init__(self, fake, folder, kit="async", clock=None, url=None, retry=None, **settings):
        self.fake = fake
        self.folder = folder
        self.clock = clock or FakeClock(wall=CALL_ENDED + 60)
        self.settings = Settings(
            **{"telephony_url": fake.address, "telephony_recovery": 30.0, "var": folder} | settings
        )
        self.kit = KITS[kit]()
        self.url = url or f"sqlite:///{folder / 'data.db'}"
        _lay_out(self.url)
        self.database = Database(self.url, self.kit.workers("The database", threads=8, queue=1000))
        self.retry = {"initial_delay": 0.001, "budget": None} | (retry or {})
        self.retries = {}
        self.breakers = {}
        self.secret = SECRET
        store = MemoryStore()
        self.bringing = Bringing(
            self.settings,
            self.kit,
            database=self.database,
            tenants=self,
            limits=Limits(
                functools.partial(self.kit.limiter, store=store), self.kit.acquire_all, lambda _: None
            ),
            counts=store,
            board=None,
            signing=self,
            guard=self.guard,
            clock=self.clock,
        )
        self.recordings = self.bringing.recordings
        self.webhooks = self.bringing.webhooks
        self.worker = self.bringing.worker
        self._have_tenants()

    def guard(self, name, *, unwell=None, retry_on=is_transient, **options):
        """Return a dependency's retries and breaker, as the backend does."""
        breaker = self.breakers[name] = CircuitBreaker(name=name, record_on=unwell or UNWELL, **options)
        self.retries[name] = self.kit.retries(
            name=name, circuit_breaker=breaker, retry_on=retry_on, **self.retry
        )
        return self.retries[name], breaker

    def _have_tenants(self):
        with self.database.engine.begin() as db:
            have = set(db.execute(select(tenants.c.id)).scalars())
            for name in set(TENANTS) - have:
                db.execute(insert(tenants).values(id=name, name=name, webhook_hash=name, created_at=0.0))

    # --- what the webhooks ask of tenants ---------------------------------------------------------

    async def by_webhook(self, webhook_hash):
        return TENANTS[0] if webhook_hash else None

    async def signing_secret(self, _tenant):
        return self.secret

    # --- for tests -------------------------------------------------------------------------------

    async def run(self, coroutine):
        """Await a use case's coroutine in the kit's way."""
        if isinstance(self.kit, AsyncKit):
            return await coroutine
        return await asyncio.to_thread(drive, coroutine)

    async def fetch(self, sid, tenant="ours"):
        return await self.run(self.recordings.fetch(sid, tenant))

    async def announce(self, sid, tenant="ours", status="completed", updated="", delivery=None):
        return await self.run(self.webhooks.take(tenant, sid, status, updated, delivery))

    async def work(self, most=100):
        """Do jobs until none is due; return how many there were."""
        for done in range(most):
            if not await self.run(self.worker.work()):
                return done
        raise AssertionError(f"still busy after {most} jobs")

    async def settle(self, steps=200):
        """Do jobs, and let time pass, until there are no more jobs."""
        for _ in range(steps):
            await self.work()
            due = await self.run(self.next_due())
            if due is None:
                return
            self.clock.advance(max(0.0, due - self.clock.wall()) + 0.001)
        raise AssertionError(f"there are still jobs: {self.rows(jobs)}")

    async def next_due(self):
        asked = select(jobs.c.not_before, jobs.c.leased_until)
        found = await self.database.read(lambda db: db.execute(asked).all(), tenant=EVERY)
        return min((max(row) for row in found), default=None)

    def rows(self, table):
        with self.database.engine.connect() as db:
            return [row._asdict() for row in db.execute(select(table)).all()]

    def call(self, sid):
        return next((row for row in self.rows(calls) if row["call_sid"] == sid), None)

    def state(self, sid):
        return (self.call(sid) or {}).get("state")

    def job(self, sid):
        return next((row for row in self.rows(jobs) if row["call_sid"] == sid), None)

    def told(self, sid):
        """Return the states that were told live, in order."""
        events = sorted(self.rows(live_events), key=lambda row: row["id"])
        return [row["body"]["state"] for row in events if row["body"]["callSid"] == sid]

    def objects(self):
        """Return what lies in the folder's store: {key: bytes}."""
        root = self.folder / "objects"
        return {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}

    def downloads(self):
        return list((self.folder / "downloads").iterdir())

    def not_ready(self, sid, **details):
        """Have the provider say that the recording is not there yet."""
        ended = {"RecordingUrl": None, "PreSignedRecordingUrl": None, "EndTime": written(self.clock.wall())}
        self.fake.provider.change_call(sid, ended | details)

    def ready(self, sid):
        url = f"{self.fake.address}/recordings/{sid}.wav"
        self.fake.provider.change_call(
            sid, {"RecordingUrl": url, "PreSignedRecordingUrl": None, "Status": "completed"}
        )

    async def close(self):
        await self.run(self.bringing.close())
        self.database.close()
