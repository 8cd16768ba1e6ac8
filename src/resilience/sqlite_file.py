"""The connections to one SQLite file, lent to one call at a time.

Rules:
    - A connection is used by one thread at a time, and never by a process that did not open it.
    - The file is in WAL mode: whoever reads waits for nobody, and whoever writes waits for the other
      writers, `busy_timeout` seconds at most.
    - A block that fails leaves nothing behind: its connection is closed, which undoes what it had begun.

SQLite remembers its file locks in the memory of the process, while the system does not hand them on to a
forked child. A child that opens the file beside an inherited connection takes itself to hold a lock that it
does not, and the parent, when it closes, deletes the log that the child is writing to. So a child closes
what it inherited, whichever object it was opened by, before it opens anything: that undoes the memory, and
touches nothing of the parent's. What another thread was using at the moment of the fork can be neither used
nor closed, so there the child is told that it cannot have the file. What the application has opened by
itself, it has to close in the child by itself.

Only the stores in SQLite import this module, and with it `sqlite3`.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Literal

from resilience.fork import survive_fork

if TYPE_CHECKING:
    from collections.abc import Generator

_KEPT: Final = 8
"""Idle connections that are kept open; each has three descriptors."""

_MODE_ATTEMPTS: Final = 50
"""As many processes may make the file in the same instant."""


class Connection(sqlite3.Connection):
    """One that can be referred to weakly: so nobody keeps it open who does not use it."""


class SQLiteFile:
    """Lends connections to one file.

    Args:
        path: The file, made where there is none.
        schema: Statements that make what is not there yet; they must do nothing where it is.
        synchronous: With `"FULL"` a power cut loses nothing, with `"NORMAL"` perhaps what was written last.
        busy_timeout: Seconds to wait at most for others that write.

    Raises:
        ValueError: The path stands for a database in memory, which nobody could share.
        TypeError: It is no path.
        sqlite3.Error: The file cannot be opened.

    Threads may share it, and it survives a fork.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> schema = "CREATE TABLE IF NOT EXISTS names (name)"
        >>> with TemporaryDirectory() as folder:
        ...     file = SQLiteFile(f"{folder}/names.db", schema, synchronous="FULL", busy_timeout=1.0)
        ...     with file.borrowed() as connection:
        ...         connection.execute("INSERT INTO names VALUES ('ada')").rowcount
        ...     file.close()
        1
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        schema: str,
        *,
        synchronous: Literal["NORMAL", "FULL"],
        busy_timeout: float,
    ) -> None:
        given = os.fsdecode(path)
        if given in {"", ":memory:"} or given.startswith("file:"):
            raise ValueError(
                f"the path must name a file, not {given!r}: each connection would have a database "
                "of its own; for a test, use a file in a temporary folder"
            )
        self.path: Final = os.path.realpath(given)
        """Where it is, whatever becomes of the working folder."""
        self._schema = schema
        self._synchronous = synchronous
        self._busy_timeout = busy_timeout
        self._closed = False
        self._idle: deque[Connection] = deque()
        self._open: weakref.WeakSet[Connection] = weakref.WeakSet()
        """All of them, idle or in use."""
        weakref.finalize(self, _close_all, self._idle)
        survive_fork(self)
        with self.borrowed():
            pass  # a file that cannot be opened is better known now

    def after_fork(self) -> None:
        """Leave what the parent opened to be closed before anything is opened here."""
        idle = set(self._idle)
        _inherited.idle.extend(idle)
        _inherited.in_use.extend((self.path, used) for used in self._open if used not in idle)
        self._idle.clear()
        self._open.clear()

    @contextmanager
    def borrowed(self) -> Generator[Connection]:
        """Lend a connection to the block; close it if the block fails, and with it what it had begun.

        Raises:
            sqlite3.Error: The file is closed, or cannot be opened.
        """
        connection = self._take()
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        self._put_back(connection)

    def close(self) -> None:
        """Close what is idle now, and what is in use once it comes back. Nothing is lent any more."""
        self._closed = True
        _close_all(self._idle)

    # `deque.pop` and `append` are atomic, also without the GIL: no lock is needed for what is idle.

    def _take(self) -> Connection:
        if self._closed:
            raise sqlite3.ProgrammingError(f"the store for {self.path} is closed")
        _inherited.settle(self.path)
        try:
            return self._idle.pop()
        except IndexError:
            return self._opened()

    def _put_back(self, connection: Connection) -> None:
        if len(self._idle) < _KEPT:  # threads that look at the same time keep a few more, which is no harm
            self._idle.append(connection)
        else:
            connection.close()
        if self._closed:  # after the append: either this thread or the one in `close` finds it
            _close_all(self._idle)

    def _opened(self) -> Connection:
        connection = sqlite3.connect(
            self.path,
            timeout=self._busy_timeout,
            isolation_level=None,  # each statement is its own transaction, unless one is begun
            check_same_thread=False,  # one at a time, though not always the same
            factory=Connection,
        )
        try:
            self._open.add(connection)  # before the first statement, which locks
            _use_write_ahead_log(connection)
            connection.execute(f"PRAGMA synchronous = {self._synchronous}")
            connection.executescript(self._schema)
        except BaseException:
            connection.close()
            raise
        return connection


class _Inherited:
    """What the parent process had opened, by whichever object; empty in a process that was not forked."""

    def __init__(self) -> None:
        self.idle: list[Connection] = []
        self.in_use: list[tuple[str, Connection]] = []
        """With their paths; kept, so that nobody closes them."""
        survive_fork(self)

    def after_fork(self) -> None:
        """Make the lock anew."""
        self._lock = threading.RLock()

    def settle(self, path: str) -> None:
        """Close what was idle, and return when that is done.

        Raises:
            sqlite3.OperationalError: A thread of the parent was using `path`.
        """
        if self.idle:
            # Held while files are closed, for once: another thread must not open one in between. Each goes
            # from the list only when it is closed, so whoever finds the list empty need not wait.
            with self._lock:
                while self.idle:
                    self.idle[-1].close()
                    self.idle.pop()
        if any(path == used for used, _ in self.in_use):
            raise sqlite3.OperationalError(
                f"{path} was in use by a thread of the parent process when this one was forked, so it cannot "
                "be used here: fork before threads use the store, or start the process by 'spawn'"
            )


_inherited: Final = _Inherited()


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Let readers and the writer not wait for each other; the file remembers it.

    SQLite does not wait for its turn to change the mode, though it does to write. So where other processes
    are making the same file, writing nothing is how to wait.
    """
    for _ in range(_MODE_ATTEMPTS):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:  # the lowest byte: the rest is detail
                raise
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("COMMIT")
        else:
            return
    raise sqlite3.OperationalError("database is locked: others keep its mode from being changed")


def _close_all(connections: deque[Connection]) -> None:
    while True:
        try:
            connection = connections.pop()
        except IndexError:
            return
        connection.close()
