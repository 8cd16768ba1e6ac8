"""The janitors: what sweeps expired sessions out, by a schedule, in a thread or in a task.

The rules:

- A sweep deletes in batches, each of them one short transaction, with a pause after each; so nobody who
  wants to write waits for long. It is bounded in rows and in seconds; what is left is for the next one.
- Then it closes the sockets of this process whose sessions have ended, wherever they were ended: by this
  sweep, by another process, or by a logout on another machine. Once a minute it looks for those in between.
- Where the store says that another node is cleaning, a sweep ends: that is no error, and not repeated.
- Sweeps are counted from the end of the last one, jittered: `_core/schedule.py` has the arithmetic.
- A sweep that fails is told and logged, and ends nothing: the next one comes when it would have come. So
  does one whose store was itself cancelled. But a store that hangs holds its janitor up, readings of memory
  included: bound its calls.
- Stopping ends a sweep between two batches.
- A forked child has no janitor running, since it has no threads and no event loop of its parent; start it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

from resilience._core.schedule import Tally
from resilience.callables import Kind
from resilience.janitor.base import Janitor
from resilience.janitor.runs import TaskRun, ThreadRun, strays_are_errors
from resilience.janitor.sessions import AsyncSessionStore, SessionStore

if TYPE_CHECKING:
    import asyncio

    from resilience.events import SweepFinished


class SessionJanitor(Janitor[SessionStore, ThreadRun]):
    """Deletes expired sessions by itself, in a daemon thread, and closes the sockets that belonged to them.

    Threads may share it. Several janitors may clean the same store at the same time, in one process or in
    many: each expired session is deleted once. With a `FakeClock`, use one with `auto=False`: in auto mode
    the thread's waits take no time, and it would sweep without end.

    Args:
        store: Keeps the sessions.
        interval: Seconds from the end of a sweep to the next. The first comes after a random part of it.
        batch: Sessions that one transaction deletes at most. The default holds SQLite's write lock for about
            10 ms (see `docs/janitor.md`).
        max_rows: Sessions that one sweep deletes at most.
        max_seconds: Seconds after which a sweep begins no further batch.
        pause: Seconds between two batches, in which others write.
        jitter: The share of the interval by which a sweep may come early or late, 0 to 1.
        dry_run: Whether to count only, and delete and close nothing: a sweep reports what it would delete.
        sockets: The registry of the sockets to close.
        sockets_interval: Seconds from one check to the next whether the sessions of open sockets have ended,
            in another process or by expiry; None leaves that to the sweeps.
        memory: The watch on memory; one with the defaults where left out.
        name: Tells it apart in events and logs.
        clock: Tells the time and waits.
        random: Returns a random number in [0, 1).
        on_sweep: Called with a `SweepFinished` after each sweep.
        on_sweep_failed: Called with a `SweepFailed` when the store raised.
        on_memory_alert: Called with a `MemoryAlert` when memory passes the threshold.

    Raises:
        TypeError: A number is none, a hook cannot be called, or the store has to be awaited.
        ValueError: A number is out of range.

    Example:
        >>> import tempfile
        >>> from resilience.janitor.sqlite import SQLiteSessionStore
        >>> folder = tempfile.TemporaryDirectory()
        >>> store = SQLiteSessionStore(f"{folder.name}/sessions.db")
        >>> with SessionJanitor(store, interval=600.0) as janitor:
        ...     janitor.sweep().complete, janitor.stats().is_running
        (True, True)
        >>> janitor.stats().is_running
        False
        >>> store.close(); folder.cleanup()
    """

    _store_kind = Kind.SYNC
    _twin = "AsyncSessionJanitor"

    def start(self) -> None:
        """Begin to sweep by itself. Does nothing if it has begun already; after `stop` it begins anew."""
        with self._lock:
            run = self._run
            if run is None or run.stopping.is_set() or not run.is_alive():
                self._run = ThreadRun(self._work, f"resilience janitor {self._name}")

    def stop(self, timeout: float = 5.0) -> bool:
        """End sweeping by itself; a sweep in progress ends after its batch.

        Args:
            timeout: Seconds to wait for that batch, or for the sockets that it is closing.

        Returns:
            Whether it has ended, or was not running. If not, it will end after that batch; a warning is
            logged. Called from one of its own hooks it cannot wait, and returns False.
        """
        with self._lock:  # the first sweep may be quicker than the `start` that has begun it
            run = self._run
        if run is None:
            return True
        run.stopping.set()
        if run.is_current():
            return False
        if not self._clock.wait(run.finished, timeout):
            self._warn_still_busy(timeout)
            return False
        run.join()
        return True

    def __enter__(self) -> Self:
        """Start, and stop at the end of the block."""
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stop."""
        self.stop()

    def sweep(self) -> SweepFinished:
        """Sweep now, in this thread, whether or not it is running by itself.

        Returns:
            What was deleted; in a dry run, what would have been.

        Raises:
            Exception: What the store raised. The batches before it stay deleted.
        """
        return self._sweep(threading.Event())

    def cleanup_session(self, session_id: str) -> bool:
        """End one session: delete it, and close its sockets with 1008.

        Args:
            session_id: The id, not the token: `session.session_id`, or `session_id_of(token)`.

        Returns:
            Whether the session was there.
        """
        found = self._store.delete(session_id)
        if self._sockets is not None:
            self._sockets.end_sessions([session_id])
        return found

    def cleanup_user_sessions(self, user_id: str) -> int:
        """End all sessions of a user: delete them, and close their sockets with 1008; return how many."""
        ended = self._store.delete_user(user_id)
        if self._sockets is not None:
            self._sockets.end_sessions(ended, user_id)
        return len(ended)

    def _work(self, stopping: threading.Event) -> None:
        schedule = self._first_schedule()
        while not self._clock.wait(stopping, schedule.wait(self._clock.now())):
            now = self._clock.now()
            if now >= schedule.read_at:
                schedule = self._read_memory(schedule)
            if now >= schedule.sweep_at:
                try:
                    self._sweep(stopping)
                except Exception as error:  # noqa: BLE001 - whatever a store does; it is logged
                    self._log_failed_sweep(error)
                schedule = self._after_sweep(schedule)
            if now >= schedule.check_at:
                try:
                    self._close_ended(stopping)
                except Exception as error:  # noqa: BLE001 - see above
                    self._log_failed_check(error)
                schedule = self._after_check(schedule)

    def _sweep(self, stopping: threading.Event) -> SweepFinished:
        started = self._clock.now()
        try:
            if self._dry_run:
                tally = Tally().after(self._bounds.max_rows, self._store.count_expired(self._bounds.max_rows))
            else:
                tally = self._delete_expired(stopping, started)
                self._close_ended(stopping)
        except Exception as error:
            self._failed(error)
            raise
        return self._finished(tally, started)

    def _delete_expired(self, stopping: threading.Event, started: float) -> Tally:
        tally = Tally()
        while limit := self._bounds.next_batch(tally, self._clock.now() - started):
            deleted = self._store.delete_expired(limit)
            self._cleaned(deleted)
            tally = tally.after(limit, deleted)
            if not tally.over and self._clock.wait(stopping, self._pause):
                break
        return tally

    def _close_ended(self, stopping: threading.Event) -> None:
        ended: list[str] = []
        for session_ids in self._open_sessions():
            if stopping.is_set():
                return  # the shutdown closes them, and says why
            ended += self._store.ended(session_ids)
        if self._sockets is not None:
            self._sockets.end_sessions(ended)


class AsyncSessionJanitor(Janitor[AsyncSessionStore, TaskRun]):
    """Deletes expired sessions by itself, in a task, and closes the sockets that belonged to them.

    It runs on the event loop on which it was started; after that loop has ended it can be started on
    another. A cancellation leaves at once, also in the middle of a sweep. The batch in progress goes on by
    itself, in a task of its own: it is counted when it has happened, and logged if it fails. The next sweep
    goes on from there. The arguments: see `SessionJanitor`. The store's methods are awaited.

    Example:
        >>> import asyncio, tempfile
        >>> from resilience.janitor.sqlite import AsyncSQLiteSessionStore
        >>> async def main(path):
        ...     async with AsyncSQLiteSessionStore(path) as store, AsyncSessionJanitor(store) as janitor:
        ...         return (await janitor.sweep()).complete
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     asyncio.run(main(f"{folder}/sessions.db"))
        True
    """

    _store_kind = Kind.ASYNC
    _twin = "SessionJanitor"

    def after_fork(self) -> None:
        """Make the lock anew, and leave the parent its task and its batches."""
        super().after_fork()
        self._batches: set[asyncio.Future[int | None]] = set()

    async def start(self) -> None:
        """Begin to sweep by itself. Does nothing if it has begun already; after `stop` it begins anew."""
        with self._lock:
            run = self._run
            if run is None or run.stopping.is_set() or not run.is_alive():
                self._run = TaskRun(self._work, f"resilience janitor {self._name}")

    async def stop(self, timeout: float = 5.0) -> bool:  # noqa: ASYNC109 - as its twin
        """End sweeping by itself; a sweep in progress ends after its batch.

        Args:
            timeout: Seconds to wait for that batch, or for the sockets that it is closing; then it is
                cancelled.

        Returns:
            Whether it has ended by itself, or was not running. If not, a warning is logged. Called from one
            of its own hooks or batches it cannot wait, and returns False.

        Raises:
            RuntimeError: It runs on another event loop.
        """
        run = self._run
        if run is None or not run.is_alive():
            return True
        if not run.is_here():
            raise RuntimeError(f"the janitor {self._name} runs on another event loop: stop it there")
        run.stopping.set()
        if run.is_current() or self._is_batch():
            return False
        if not await self._clock.wait_async(run.finished, timeout):
            self._warn_still_busy(timeout)
            run.cancel()
            return False
        return True

    async def __aenter__(self) -> Self:
        """Start, and stop at the end of the block."""
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Stop."""
        await self.stop()

    async def sweep(self) -> SweepFinished:
        """Sweep now, in this task, whether or not it is running by itself.

        Returns:
            What was deleted; in a dry run, what would have been.

        Raises:
            Exception: What the store raised. The batches before it stay deleted.
        """
        import asyncio  # noqa: PLC0415 - loaded by whoever awaits this

        return await self._sweep(asyncio.Event())

    async def cleanup_session(self, session_id: str) -> bool:
        """End one session: delete it, and close its sockets with 1008.

        Args:
            session_id: The id, not the token: `session.session_id`, or `session_id_of(token)`.

        Returns:
            Whether the session was there.
        """
        found = await self._store.delete(session_id)
        if self._sockets is not None:
            await self._sockets.end_sessions_async([session_id])
        return found

    async def cleanup_user_sessions(self, user_id: str) -> int:
        """End all sessions of a user: delete them, and close their sockets with 1008; return how many."""
        ended = await self._store.delete_user(user_id)
        if self._sockets is not None:
            await self._sockets.end_sessions_async(ended, user_id)
        return len(ended)

    async def _work(self, stopping: asyncio.Event) -> None:
        schedule = self._first_schedule()
        while not await self._clock.wait_async(stopping, schedule.wait(self._clock.now())):
            now = self._clock.now()
            if now >= schedule.read_at:
                schedule = self._read_memory(schedule)
            if now >= schedule.sweep_at:
                try:
                    await self._sweep(stopping)
                except Exception as error:  # noqa: BLE001 - whatever a store does; it is logged
                    self._log_failed_sweep(error)
                schedule = self._after_sweep(schedule)
            if now >= schedule.check_at:
                try:
                    with strays_are_errors():
                        await self._close_ended(stopping)
                except Exception as error:  # noqa: BLE001 - see above
                    self._log_failed_check(error)
                schedule = self._after_check(schedule)

    async def _sweep(self, stopping: asyncio.Event) -> SweepFinished:
        started = self._clock.now()
        try:
            with strays_are_errors():
                if self._dry_run:
                    found = await self._store.count_expired(self._bounds.max_rows)
                    tally = Tally().after(self._bounds.max_rows, found)
                else:
                    tally = await self._delete_expired(stopping, started)
                    await self._close_ended(stopping)
        except Exception as error:
            self._failed(error)
            raise
        return self._finished(tally, started)

    async def _delete_expired(self, stopping: asyncio.Event, started: float) -> Tally:
        tally = Tally()
        while limit := self._bounds.next_batch(tally, self._clock.now() - started):
            tally = tally.after(limit, await self._batch(limit))
            if not tally.over and await self._clock.wait_async(stopping, self._pause):
                break
        return tally

    async def _batch(self, limit: int) -> int | None:
        """Delete a batch in a task of its own, which goes on if this one is cancelled."""
        import asyncio  # noqa: PLC0415 - see `sweep`

        batch = asyncio.ensure_future(self._store.delete_expired(limit))
        self._batches.add(batch)  # the loop itself would lose it
        batch.add_done_callback(self._settle)
        try:
            return await asyncio.shield(batch)
        except asyncio.CancelledError:
            batch.add_done_callback(self._log_if_failed)
            raise

    def _is_batch(self) -> bool:
        """Return whether it is a batch that asks."""
        import asyncio  # noqa: PLC0415 - see `sweep`

        return asyncio.current_task() in self._batches

    def _settle(self, batch: asyncio.Future[int | None]) -> None:
        self._batches.discard(batch)
        if not batch.cancelled() and batch.exception() is None:
            self._cleaned(batch.result())

    def _log_if_failed(self, batch: asyncio.Future[int | None]) -> None:
        error = None if batch.cancelled() else batch.exception()
        if isinstance(error, Exception):
            self._log_failed_sweep(error)

    async def _close_ended(self, stopping: asyncio.Event) -> None:
        ended: list[str] = []
        for session_ids in self._open_sessions():
            if stopping.is_set():
                return  # the shutdown closes them, and says why
            ended += await self._store.ended(session_ids)
        if self._sockets is not None:
            await self._sockets.end_sessions_async(ended)
