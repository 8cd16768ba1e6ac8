"""Counts in an SQLite file: the processes of one machine count together, and a restart forgets nothing.

Rules:
    - One decision is one transaction (`BEGIN IMMEDIATE`) on a connection of the store's own, so it is never
      rolled back with the application's work. The arithmetic is that of the memory store.
    - A connection serves one thread at a time, and none is carried over a fork.
    - The file is in WAL mode with `synchronous=NORMAL`: a crash of a process loses nothing, a crash of the
      machine perhaps the last decisions before it.
    - Time is the machine's wall clock in microseconds, read inside the transaction, and never goes back:
      the latest instant is kept in the file. A clock that was set back by up to a minute stands still until
      it has caught up; beyond that, time goes on from where it was, so that nobody waits for hours.
    - Each new key removes up to four that have lapsed, so the file does not grow for ever.

Not for a file on a network drive: SQLite's locks do not hold there.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from resilience._core.quota import Decision
from resilience.checks import number
from resilience.clock import SYSTEM_CLOCK
from resilience.fork import survive_fork
from resilience.stores import Entry, Holding, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from resilience._core.counting import Charge, Counter, State
    from resilience.clock import Clock

Result = TypeVar("Result")

_SCHEMA: Final = (
    """
    CREATE TABLE IF NOT EXISTS resilience_quota (
        scope TEXT NOT NULL,   -- the limiter's name and the quota
        key NOT NULL,          -- canonical: TEXT, or BLOB
        state NOT NULL,        -- a BLOB, or the digits of a number that may have more than 64 bits
        lapses INTEGER NOT NULL,  -- nanoseconds; from then on nothing counts
        PRIMARY KEY (scope, key)
    )
    """,
    "CREATE INDEX IF NOT EXISTS resilience_quota_lapses ON resilience_quota (lapses)",
    """
    CREATE TABLE IF NOT EXISTS resilience_clock (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        latest INTEGER NOT NULL,  -- the latest instant that something was decided at, in nanoseconds
        ahead INTEGER NOT NULL    -- by how much our time is ahead of a wall clock that was set back
    )
    """,
    "INSERT OR IGNORE INTO resilience_clock VALUES (1, 0, 0)",
)
_STANDSTILL: Final = 60 * 1_000_000_000
"""Nanoseconds by which the wall clock may be behind before time goes on without it."""

_IDLE_CONNECTIONS: Final = 4
_LAPSED_A_NEW_KEY: Final = 4

_inherited: list[sqlite3.Connection] = []
"""Connections of a parent process, kept from being closed: that is the parent's to do."""


class SQLiteStore:
    """Counts in an SQLite file, shared by the processes of this machine.

    Args:
        path: The file, made where there is none. It may be the application's own database: the tables are
            called `resilience_quota` and `resilience_clock`.
        busy_timeout: Seconds to wait at most for other processes that are writing, 0 to 60.
        clock: Whose wall clock is read.

    Raises:
        ValueError: The path stands for a database in memory, which nobody could share.
        StoreUnavailable: The file cannot be opened.

    Threads may share it, and it survives a fork. Its calls block for a file, so `AsyncRateLimiter` makes
    them in a worker thread. Close it, or use it as a context manager, to let go of the file.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from resilience.limiter import RateLimiter
        >>> with TemporaryDirectory() as folder, SQLiteStore(f"{folder}/limits.db") as store:
        ...     login = RateLimiter("6/15 minutes", name="login", store=store, require_shared=True)
        ...     login.try_acquire("ada@example.com").remaining
        5
    """

    shared = True
    blocking = True

    def __init__(
        self, path: str | os.PathLike[str], *, busy_timeout: float = 1.0, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._path = os.fspath(path)
        if self._path in {"", ":memory:"}:
            raise ValueError(
                f"{self._path!r} cannot be shared by connections: name a file, or use MemoryStore"
            )
        self._busy_timeout = number("busy_timeout", busy_timeout, least=0, most=60)
        self.clock: Clock = clock
        self._idle: list[sqlite3.Connection] = []
        self._lent: list[sqlite3.Connection] = []
        weakref.finalize(self, _close_all, self._idle)
        survive_fork(self)
        self._ask("", _nothing)  # a path that cannot be opened is better known now

    def after_fork(self) -> None:
        """Replace the lock, and let the parent keep its connections."""
        _inherited.extend(self._idle)
        _inherited.extend(self._lent)
        self._idle.clear()
        self._lent.clear()
        self._lock = threading.RLock()

    def close(self) -> None:
        """Close the connections that are idle; a later call opens them anew."""
        with self._lock:
            closing = self._idle[:]
            self._idle.clear()
        _close_all(closing)

    def __enter__(self) -> Self:
        """Return the store."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close it."""
        self.close()

    def __reduce__(self) -> Any:
        """Pickle as the arguments: a process that gets it opens connections of its own."""
        return _reopened, (self._path, self._busy_timeout)

    def take(self, charges: Sequence[Charge]) -> list[Decision]:
        """Take all charges if all of them fit, or else none; return the decision about each by itself."""

        def work(connection: sqlite3.Connection) -> list[Decision]:
            now = self._now(connection, writing=True)
            before = [_load(connection, charge.counter, charge.key) for charge in charges]
            after = [
                charge.counter.rules.admit(state, now, charge.cost)
                for charge, state in zip(charges, before, strict=True)
            ]
            taken = None not in after
            if taken:
                connection.execute("UPDATE resilience_clock SET latest = ?", (now,))
                for charge, old, state in zip(charges, before, after, strict=True):
                    _save(connection, charge.counter, charge.key, state, now)
                    if old is None:
                        connection.execute(
                            "DELETE FROM resilience_quota WHERE rowid IN "
                            "(SELECT rowid FROM resilience_quota WHERE lapses <= ? LIMIT ?)",
                            (now, _LAPSED_A_NEW_KEY),
                        )
            return [
                Decision((state is not None, state if taken else old, now, charge.cost, charge.counter))
                for charge, old, state in zip(charges, before, after, strict=True)
            ]

        return self._ask("BEGIN IMMEDIATE", work)

    def peek(self, charges: Sequence[Charge]) -> list[Decision]:
        """Return the decision that `take` would come to about each, and take nothing."""

        def work(connection: sqlite3.Connection) -> list[Decision]:
            now = self._now(connection, writing=False)
            states = [_load(connection, charge.counter, charge.key) for charge in charges]
            return [
                Decision(
                    (
                        charge.counter.rules.admit(state, now, charge.cost) is not None,
                        state,
                        now,
                        charge.cost,
                        charge.counter,
                    )
                )
                for charge, state in zip(charges, states, strict=True)
            ]

        return self._ask("BEGIN", work)

    def refund(self, charges: Sequence[Charge], receipts: Sequence[int]) -> None:
        """Give back charges that were taken; what has lapsed meanwhile is not given back again."""

        def work(connection: sqlite3.Connection) -> None:
            now = self._now(connection, writing=True)
            for charge, receipt in zip(charges, receipts, strict=True):
                state = _load(connection, charge.counter, charge.key)
                without = charge.counter.rules.refund(state, now, charge.cost, receipt)
                _save(connection, charge.counter, charge.key, without, now)

        self._ask("BEGIN IMMEDIATE", work)

    def reset(self, counters: Sequence[Counter], key: str | bytes) -> None:
        """Forget what counts for `key`."""

        def work(connection: sqlite3.Connection) -> None:
            for counter in counters:
                _save(connection, counter, key, None, 0)

        self._ask("BEGIN IMMEDIATE", work)

    def holding(self, counters: Sequence[Counter], limit: int) -> Holding:
        """Return what is held for `counters`, with at most `limit` entries."""

        def work(connection: sqlite3.Connection) -> Holding:
            now = self._now(connection, writing=False)
            size = 0
            entries: list[Entry] = []
            for counter in counters:
                counting = (counter.scope, now)
                size += connection.execute(
                    "SELECT count(*) FROM resilience_quota WHERE scope = ? AND lapses > ?", counting
                ).fetchone()[0]
                rows = connection.execute(
                    "SELECT key, state FROM resilience_quota WHERE scope = ? AND lapses > ? LIMIT ?",
                    (*counting, limit - len(entries)),
                )
                for key, kept in rows:
                    state = _state(kept)
                    left = (counter.rules.whole_at(state, now) - now) / 1e9
                    entries.append(Entry(counter, key, counter.rules.remaining(state, now), left))
            return Holding(size, tuple(entries))

        return self._ask("BEGIN", work)

    # --- time, connections and failures ---

    def _now(self, connection: sqlite3.Connection, *, writing: bool) -> int:
        """Return the instant to decide at, which is never before the latest one.

        It is read while the transaction lasts: so a reading behind the latest instant means that the clock
        was set back, and not merely that some other process was quicker.
        """
        wall = time.time_ns() if self.clock is SYSTEM_CLOCK else _to_the_microsecond(self.clock.wall())
        latest, ahead = connection.execute("SELECT latest, ahead FROM resilience_clock").fetchone()
        behind: int = latest - (wall + ahead)
        if behind > _STANDSTILL and writing:
            connection.execute("UPDATE resilience_clock SET ahead = ahead + ?", (behind,))
        return max(int(latest), wall + int(ahead))

    def _ask(self, begin: str, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Do `work` in a transaction; what fails in any way leaves nothing behind."""
        try:
            connection = self._borrow()
            try:
                if begin:
                    connection.execute(begin)
                result = work(connection)
                if begin:
                    connection.execute("COMMIT")
            except BaseException:
                with self._lock:
                    self._lent.remove(connection)
                connection.close()  # which rolls back; and nobody gets it in whatever state it is
                raise
        except sqlite3.Error as error:
            raise StoreUnavailable(f"the limits in {self._path!r} are unavailable: {error}") from error
        self._give_back(connection)
        return result

    def _borrow(self) -> sqlite3.Connection:
        with self._lock:
            if self._idle:
                connection = self._idle.pop()
                self._lent.append(connection)
                return connection
        connection = sqlite3.connect(
            self._path, timeout=self._busy_timeout, isolation_level=None, check_same_thread=False
        )
        try:
            _lay_out(connection)
        except BaseException:
            connection.close()
            raise
        with self._lock:
            self._lent.append(connection)
        return connection

    def _give_back(self, connection: sqlite3.Connection) -> None:
        with self._lock:
            self._lent.remove(connection)
            keep = len(self._idle) < _IDLE_CONNECTIONS
            if keep:
                self._idle.append(connection)
        if not keep:
            connection.close()


def _lay_out(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    found = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'resilience_clock'")
    if not found.fetchone()[0]:
        connection.execute("BEGIN IMMEDIATE")
        for statement in _SCHEMA:
            connection.execute(statement)
        connection.execute("COMMIT")


def _to_the_microsecond(seconds: float) -> int:
    """Return nanoseconds: today's date, as a float, is good for a quarter of a microsecond."""
    return round(seconds * 1e6) * 1000


def _nothing(_connection: sqlite3.Connection) -> None:
    pass


def _close_all(connections: list[sqlite3.Connection]) -> None:
    for connection in connections:
        connection.close()


def _reopened(path: str, busy_timeout: float) -> SQLiteStore:
    return SQLiteStore(path, busy_timeout=busy_timeout)


def _state(kept: str | bytes) -> State:
    return int(kept) if isinstance(kept, str) else kept


def _load(connection: sqlite3.Connection, counter: Counter, key: str | bytes) -> State | None:
    row = connection.execute(
        "SELECT state FROM resilience_quota WHERE scope = ? AND key = ?", (counter.scope, key)
    ).fetchone()
    return None if row is None else _state(row[0])


def _save(
    connection: sqlite3.Connection, counter: Counter, key: str | bytes, state: State | None, now: int
) -> None:
    if state is None:
        connection.execute("DELETE FROM resilience_quota WHERE scope = ? AND key = ?", (counter.scope, key))
    else:
        connection.execute(
            "INSERT INTO resilience_quota VALUES (?, ?, ?, ?) ON CONFLICT (scope, key) "
            "DO UPDATE SET state = excluded.state, lapses = excluded.lapses",
            (
                counter.scope,
                key,
                state if isinstance(state, bytes) else str(state),
                counter.rules.whole_at(state, now),
            ),
        )
