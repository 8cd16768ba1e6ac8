"""Counts in an SQLite file: the processes of one machine count together, and a restart forgets nothing.

Rules:
    - One decision is one transaction (`BEGIN IMMEDIATE`) on a connection of the store's own, so it is never
      rolled back with the application's work. The arithmetic is that of the memory store.
    - The file is in WAL mode with `synchronous=NORMAL`: a crash of a process loses nothing, a crash of the
      machine perhaps the last decisions before it. What fails in any way has taken nothing.
    - Time is the machine's wall clock, read inside the transaction, and never goes back: the latest instant
      is kept in the file. A clock that was set back by up to a minute stands still until it has caught up;
      beyond that, a process goes on from where time was, so that nobody waits for hours.
    - The file is bounded as memory is: each new key removes up to four that have lapsed, and beyond
      `max_keys` newcomers share spare places. A key that counts is never removed to make room.

Not for a file on a network drive: SQLite's locks do not hold there.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Self

from resilience._core.quota import Decision, foreseen
from resilience._core.table import SPARE
from resilience.checks import count, number
from resilience.clock import SYSTEM_CLOCK
from resilience.sqlite_file import SQLiteFile
from resilience.stores import Entry, Holding, StoreUnavailable

if TYPE_CHECKING:
    import os
    from collections.abc import Generator, Sequence

    from resilience._core.counting import Charge, Counter, Packed, State
    from resilience.clock import Clock

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS resilience_quota (
    scope TEXT NOT NULL,      -- the limiter's name and the quota
    key NOT NULL,             -- canonical: TEXT, or BLOB
    state NOT NULL,           -- a BLOB, or the digits of a number that may have more than 64 bits
    lapses INTEGER NOT NULL,  -- nanoseconds; from then on nothing counts
    PRIMARY KEY (scope, key)
);
CREATE INDEX IF NOT EXISTS resilience_quota_lapses ON resilience_quota (lapses);
CREATE TABLE IF NOT EXISTS resilience_quota_book (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    latest INTEGER NOT NULL,   -- the latest instant that something was taken at, in nanoseconds
    held INTEGER NOT NULL,     -- how many rows resilience_quota has
    crowded INTEGER NOT NULL,  -- until then something may count in a spare place
    salt BLOB NOT NULL         -- what nobody outside can know, for choosing spare places
);
"""
_STANDSTILL: Final = 60 * 1_000_000_000
"""Nanoseconds by which the wall clock may be behind before time goes on without it."""

_LAPSED_A_NEW_KEY: Final = 4
_SPARE_PART: Final = 16
"""One spare place for so many keys, as in memory."""

_HELP: Final = {
    sqlite3.SQLITE_BUSY: "others kept it locked for all of the busy_timeout",
    sqlite3.SQLITE_CANTOPEN: "its folder must exist, and this process must be allowed to make files there",
    sqlite3.SQLITE_CORRUPT: "restore it, or remove it and forget what it counted",
    sqlite3.SQLITE_ERROR: "if a table in it is not this store's, name another file",
    sqlite3.SQLITE_FULL: "make room on its disk",
    sqlite3.SQLITE_IOERR: "look at its disk: there may be no room, or it may be failing",
    sqlite3.SQLITE_NOTADB: "name another file",
    sqlite3.SQLITE_READONLY: "this process must be allowed to write the file, and to make others beside it",
}
"""What to do about SQLite's result codes."""


class SQLiteStore:
    """Counts in an SQLite file, shared by the processes of this machine.

    Args:
        path: The file, made where there is none. It may be the application's own database: the tables are
            called `resilience_quota` and `resilience_quota_book`.
        busy_timeout: Seconds to wait at most for others that are writing, 0 to 60. `peek` and `stats` read,
            and wait for nobody.
        max_keys: How many keys the file may hold for all its limiters together, at least 1. A key that
            counts is never dropped to make room: beyond this, newcomers share spare places, and err towards
            refusal. All who share the file should say the same.
        clock: Whose wall clock is read.

    Raises:
        ValueError: The path stands for a database in memory, which nobody could share.
        StoreUnavailable: The file cannot be opened.

    Threads may share it, and it survives a fork that happens while no other thread is using it; where one
    is, the child is told by a `StoreUnavailable`. Its calls block for a file, so `AsyncRateLimiter` makes
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
        self,
        path: str | os.PathLike[str],
        *,
        busy_timeout: float = 1.0,
        max_keys: int = 1_000_000,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._busy_timeout = number("busy_timeout", busy_timeout, least=0, most=60)
        self._max_keys = count("max_keys", max_keys, least=1)
        self.clock: Clock = clock
        self._ahead = 0
        """By how many nanoseconds this process's time is ahead of a wall clock that was set back."""
        with _failures_of(path):
            self._file = SQLiteFile(path, _SCHEMA, synchronous="NORMAL", busy_timeout=self._busy_timeout)

    def close(self) -> None:
        """Let go of the file. The store cannot be used afterwards; closing it again does nothing."""
        self._file.close()

    def __enter__(self) -> Self:
        """Return the store."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close it."""
        self.close()

    def __reduce__(self) -> Any:
        """Pickle as the arguments: a process that gets it opens connections of its own."""
        clock = None if self.clock is SYSTEM_CLOCK else self.clock
        return _reopened, (self._file.path, self._busy_timeout, self._max_keys, clock)

    def take(self, charges: Sequence[Charge]) -> list[Decision]:
        """Take all charges if all of them fit, or else none; return the decision about each by itself."""
        with self._writing() as book:
            now = book.now
            found = [book.find(charge) for charge in charges]
            after = [
                charge.counter.rules.admit(state, now, charge.cost)
                for charge, (_, state) in zip(charges, found, strict=True)
            ]
            taken = None not in after
            if taken:
                for charge, (place, _), state in zip(charges, found, after, strict=True):
                    book.put(charge.counter, place, state)
        return [
            Decision((state is not None, state if taken else before, now, charge.cost, charge.counter))
            for charge, (_, before), state in zip(charges, found, after, strict=True)
        ]

    def peek(self, charges: Sequence[Charge]) -> list[Decision]:
        """Return the decision that `take` would come to about each, and take nothing."""
        with self._reading() as book:
            now = book.now
            states = [book.find(charge)[1] for charge in charges]
        return foreseen(charges, states, now)

    def refund(self, charges: Sequence[Charge], receipts: Sequence[int]) -> None:
        """Give back charges that were taken; what has lapsed meanwhile is not given back again."""
        with self._writing() as book:
            for charge, receipt in zip(charges, receipts, strict=True):
                place, state = book.find(charge)
                without = charge.counter.rules.refund(state, book.now, charge.cost, receipt)
                book.put(charge.counter, place, without)

    def reset(self, counters: Sequence[Counter], key: str | bytes) -> None:
        """Forget what counts for `key`, but for a spare place, which others share."""
        with self._writing() as book:
            for counter in counters:
                book.put(counter, key, None)

    def holding(self, counters: Sequence[Counter], limit: int) -> Holding:
        """Return what is held for `counters`, with at most `limit` entries."""
        size = 0
        entries: list[Entry] = []
        with self._reading() as book:
            for counter in counters:
                size += book.size(counter)
                for key, state in book.rows(counter, limit - len(entries)):
                    left = (counter.rules.whole_at(state, book.now) - book.now) / 1e9
                    entries.append(Entry(counter, key, counter.rules.remaining(state, book.now), left))
        return Holding(size, tuple(entries))

    @contextmanager
    def _writing(self) -> Generator[_Book]:
        """Lend the counts to the block, for it alone; keep what it changes if it ends well."""
        with _failures_of(self._file.path), self._file.borrowed() as connection:
            connection.execute("BEGIN IMMEDIATE")
            book = _Book(connection, self._max_keys, writing=True)
            # Nobody else writes from here on. So a reading behind the latest instant means that the clock
            # was set back, and not merely that some other process was quicker.
            wall = self._wall()
            if book.latest - (wall + self._ahead) > _STANDSTILL:
                self._ahead = book.latest - wall
            book.now = max(book.latest, wall + self._ahead)
            yield book
            book.close()
            connection.execute("COMMIT")

    @contextmanager
    def _reading(self) -> Generator[_Book]:
        """Lend the counts to the block as they are at one instant."""
        with _failures_of(self._file.path), self._file.borrowed() as connection:
            connection.execute("BEGIN")
            book = _Book(connection, self._max_keys, writing=False)
            book.now = max(book.latest, self._wall() + self._ahead)
            yield book
            connection.execute("COMMIT")

    def _wall(self) -> int:
        """Return nanoseconds; of an injected clock microseconds, for which a float of today is good."""
        return time.time_ns() if self.clock is SYSTEM_CLOCK else round(self.clock.wall() * 1e6) * 1000


class _Book:
    """The counts, for the length of one transaction."""

    def __init__(self, connection: sqlite3.Connection, most: int, *, writing: bool) -> None:
        self._connection = connection
        self._most = most
        self._writing = writing
        self.now = 0
        """The instant to decide at, never before the latest one."""
        row = connection.execute("SELECT latest, held, crowded, salt FROM resilience_quota_book").fetchone()
        if row is None:
            row = connection.execute("SELECT 0, count(*), 0, randomblob(16) FROM resilience_quota").fetchone()
        if list(map(type, row)) != [int, int, int, bytes]:
            raise sqlite3.DataError(
                f"resilience_quota_book holds {row!r}, which no limiter wrote: name another file"
            )
        self.latest: int
        self.latest, self._held, self._crowded, self._salt = self._before = row

    def find(self, charge: Charge) -> tuple[str | bytes, State | None]:
        """Return the place where a charge counts, and the state there; see `resilience._core.table`."""
        counter, key, _ = charge
        state = self._state(counter, key)
        if state is None:
            if self._writing:
                self._remove_lapsed()
            if self._held >= self._most or self.now < self._crowded:
                spare = self._spare_place(key)
                there = self._state(counter, spare)
                counts = there is not None and counter.rules.whole_at(there, self.now) > self.now
                if counts or self._held >= self._most:
                    return spare, there
        return key, state

    def put(self, counter: Counter, place: str | bytes, state: State | None) -> None:
        """Keep what `place` has come to; None forgets it."""
        where = (counter.scope, place)
        if state is None:
            self._held -= self._connection.execute(
                "DELETE FROM resilience_quota WHERE scope = ? AND key = ?", where
            ).rowcount
            return
        self.latest = self.now
        lapses = counter.rules.whole_at(state, self.now)
        packed = counter.rules.pack(state)
        kept = (packed if isinstance(packed, bytes) else str(packed), lapses, *where)
        if not self._connection.execute(
            "UPDATE resilience_quota SET state = ?, lapses = ? WHERE scope = ? AND key = ?", kept
        ).rowcount:
            self._connection.execute(
                "INSERT INTO resilience_quota (state, lapses, scope, key) VALUES (?, ?, ?, ?)", kept
            )
            self._held += 1
        if place[:1] == SPARE:
            self._crowded = max(self._crowded, lapses)

    def size(self, counter: Counter) -> int:
        """Return how many places count for `counter`."""
        counted: int = self._connection.execute(
            "SELECT count(*) FROM resilience_quota WHERE scope = ? AND lapses > ?", (counter.scope, self.now)
        ).fetchone()[0]
        return counted

    def rows(self, counter: Counter, limit: int) -> list[tuple[str | bytes, State]]:
        """Return at most `limit` keys that count for `counter`, with their states."""
        found = self._connection.execute(
            "SELECT key, state FROM resilience_quota WHERE scope = ? AND lapses > ? "
            "AND NOT (typeof(key) = 'blob' AND substr(key, 1, 1) IS ?) LIMIT ?",
            (counter.scope, self.now, SPARE, limit),
        )
        return [(key, counter.rules.unpack(_packed(kept))) for key, kept in found]

    def close(self) -> None:
        """Write down what has changed of the whole."""
        row = (self.latest, self._held, self._crowded, self._salt)
        if row != self._before:
            self._connection.execute(
                "INSERT INTO resilience_quota_book VALUES (1, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
                "latest = excluded.latest, held = excluded.held, crowded = excluded.crowded",
                row,
            )

    def _state(self, counter: Counter, place: str | bytes) -> State | None:
        row = self._connection.execute(
            "SELECT state FROM resilience_quota WHERE scope = ? AND key = ?", (counter.scope, place)
        ).fetchone()
        return None if row is None else counter.rules.unpack(_packed(row[0]))

    def _remove_lapsed(self) -> None:
        self._held -= self._connection.execute(
            "DELETE FROM resilience_quota WHERE rowid IN "
            "(SELECT rowid FROM resilience_quota WHERE lapses <= ? LIMIT ?)",
            (self.now, _LAPSED_A_NEW_KEY),
        ).rowcount

    def _spare_place(self, key: str | bytes) -> bytes:
        from hashlib import blake2b  # noqa: PLC0415 - OpenSSL comes with it, and only a flood needs it

        plain = key if isinstance(key, bytes) else key.encode()
        drawn = int.from_bytes(blake2b(plain, digest_size=8, key=self._salt).digest(), "big")
        return b"%b%d" % (SPARE, drawn % -(-self._most // _SPARE_PART))


@contextmanager
def _failures_of(path: object) -> Generator[None]:
    """Say of SQLite's errors what they mean for a limiter, and what to do.

    Raises:
        StoreUnavailable: The block raised an `sqlite3.Error`.
    """
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)  # the module's own errors have none
        help_ = "" if code is None else _HELP.get(code & 0xFF, "")  # the lowest byte: the rest is detail
        raise StoreUnavailable(
            f"the limits in {str(path)!r} are unavailable: {error}{help_ and '; '}{help_}"
        ) from error


def _packed(kept: object) -> Packed:
    if isinstance(kept, bytes):
        return kept
    try:
        if isinstance(kept, str):
            return int(kept)
    except ValueError:  # text, but not ours: as below
        pass
    raise sqlite3.DataError(f"resilience_quota holds {kept!r}, which no limiter wrote: name another file")


def _reopened(path: str, busy_timeout: float, max_keys: int, clock: Clock | None) -> SQLiteStore:
    return SQLiteStore(path, busy_timeout=busy_timeout, max_keys=max_keys, clock=clock or SYSTEM_CLOCK)
