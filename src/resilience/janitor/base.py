"""What both janitors have in common: everything but waiting."""

from __future__ import annotations

from itertools import islice
from math import inf
from random import random as system_random
from threading import RLock
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, NamedTuple, NoReturn, TypeVar

from resilience._core.schedule import Bounds, Schedule, first_delay, next_delay
from resilience.callables import kind_of
from resilience.checks import count, number
from resilience.clock import SYSTEM_CLOCK
from resilience.events import MemoryAlert, SweepFailed, SweepFinished, hooks, publish
from resilience.fork import survive_fork
from resilience.janitor.memory import MemoryWatch, for_people
from resilience.janitor.runs import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from resilience._core.schedule import Tally
    from resilience.callables import Kind
    from resilience.clock import Clock
    from resilience.janitor.sockets import SocketRegistry

S = TypeVar("S")
R = TypeVar("R", bound=Run)

_ASKED_AT_ONCE: Final = 500  # sessions; so that no question to a store is a big one


class JanitorStats(NamedTuple):
    """What a janitor has done since it was made."""

    is_running: bool
    sessions_cleaned: int
    """Expired sessions that sweeps have deleted; those ended on request are not among them."""
    connections_closed: int
    """Sockets that its registry has closed, for whatever reason."""
    memory_alerts: int
    """How often memory has become high; `memory_high` tells whether it is."""
    last_sweep_at: float | None
    """When the last sweep that did not fail ended, in Unix seconds; None before the first."""
    memory: str
    """Resident memory, for people: `"125MB"`."""
    sweeps: int
    """Sweeps that did not fail, dry ones included."""
    failed_sweeps: int
    last_sweep_elapsed: float | None
    """How long the sweep took that ended at `last_sweep_at`, in seconds."""
    memory_high: bool
    """Whether memory was high at the last reading: a janitor that is running reads it by itself."""

    def as_dict(self) -> dict[str, Any]:
        """Return the figures by name, as JSON can hold them."""
        return self._asdict()


class Janitor(Generic[S, R]):
    """What both janitors have in common: everything but waiting."""

    _store_kind: ClassVar[Kind]
    _twin: ClassVar[str]
    _run: R | None

    def __init__(
        self,
        store: S,
        interval: float = 1800.0,
        *,
        batch: int = 250,
        max_rows: int = 1_000_000,
        max_seconds: float = 60.0,
        pause: float = 0.02,
        jitter: float = 0.1,
        dry_run: bool = False,
        sockets: SocketRegistry | None = None,
        sockets_interval: float | None = 60.0,
        memory: MemoryWatch | None = None,
        name: str = "sessions",
        clock: Clock = SYSTEM_CLOCK,
        random: Callable[[], float] = system_random,
        on_sweep: Callable[[SweepFinished], object] | None = None,
        on_sweep_failed: Callable[[SweepFailed], object] | None = None,
        on_memory_alert: Callable[[MemoryAlert], object] | None = None,
    ) -> None:
        self._check_kind(store)
        self._store = store
        self._interval = number("interval", interval, above=0)
        self._bounds = Bounds(
            count("batch", batch, least=1),
            count("max_rows", max_rows, least=1),
            number("max_seconds", max_seconds, above=0),
        )
        self._pause = number("pause", pause, least=0)
        self._jitter = number("jitter", jitter, least=0, most=1)
        self._dry_run = dry_run
        self._sockets = sockets
        checked = None if sockets_interval is None else number("sockets_interval", sockets_interval, above=0)
        self._sockets_interval = None if sockets is None or dry_run else checked
        self._memory = memory or MemoryWatch(clock=clock)
        self._name = name
        self._clock = clock
        self._random = random
        self._on_sweep = hooks(on_sweep)
        self._on_sweep_failed = hooks(on_sweep_failed)
        self._on_memory_alert = hooks(on_memory_alert)
        self._sessions_cleaned = 0
        self._sweeps = 0
        self._failed_sweeps = 0
        self._last_sweep_at: float | None = None
        self._last_sweep_elapsed: float | None = None
        survive_fork(self)

    def after_fork(self) -> None:
        """Make the lock anew, and leave the parent its thread or task."""
        self._lock = RLock()
        self._run = None

    @property
    def is_running(self) -> bool:
        """Whether its thread or task is at work, in this process."""
        run = self._run
        return run is not None and run.is_alive()

    def stats(self) -> JanitorStats:
        """Return what this janitor has done, and the memory in use now.

        Raises:
            Exception: What a memory reader of one's own raised; the system's raises nothing.
        """
        is_running = self.is_running
        connections_closed = self._sockets.closed if self._sockets is not None else 0
        memory = for_people(self._memory.resident())
        with self._lock:
            return JanitorStats(
                is_running=is_running,
                sessions_cleaned=self._sessions_cleaned,
                connections_closed=connections_closed,
                memory_alerts=self._memory.alerts,
                last_sweep_at=self._last_sweep_at,
                memory=memory,
                sweeps=self._sweeps,
                failed_sweeps=self._failed_sweeps,
                last_sweep_elapsed=self._last_sweep_elapsed,
                memory_high=self._memory.high,
            )

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled."""
        raise TypeError(
            "a janitor belongs to the process it runs in: make a new one with the same store instead"
        )

    def _check_kind(self, store: object) -> None:
        delete_expired = getattr(store, "delete_expired", None)
        if delete_expired is None:
            raise TypeError(f"{store!r} has no delete_expired(limit): a janitor cleans a session store")
        kind = kind_of(delete_expired)
        if kind is not self._store_kind:
            raise TypeError(f"the methods of {store!r} are {kind.value}s: give it to {self._twin}")

    def _first_schedule(self) -> Schedule:
        now = self._clock.now()
        sweep_at, check_at = now + first_delay(self._interval, self._random), inf
        if self._sockets_interval is not None:
            check_at = now + first_delay(self._sockets_interval, self._random)
        return Schedule(sweep_at, read_at=now, check_at=check_at)

    def _after_sweep(self, schedule: Schedule) -> Schedule:
        delay = next_delay(self._interval, self._jitter, self._random)
        return self._after_check(schedule._replace(sweep_at=self._clock.now() + delay))  # it has checked, too

    def _after_check(self, schedule: Schedule) -> Schedule:
        if self._sockets_interval is None:
            return schedule
        delay = next_delay(self._sockets_interval, self._jitter, self._random)
        return schedule._replace(check_at=self._clock.now() + delay)

    def _open_sessions(self) -> Iterator[list[str]]:
        """Yield the ids of the sessions that have sockets here, a few hundred at a time."""
        ids = iter(() if self._sockets is None else self._sockets.session_ids())
        while some := list(islice(ids, _ASKED_AT_ONCE)):
            yield some

    def _read_memory(self, schedule: Schedule) -> Schedule:
        """Take a reading, tell if it is alarming, and put the next one on the schedule."""
        try:
            reading = self._memory.check()
        except Exception:
            import logging  # noqa: PLC0415 - loaded only when something went wrong

            logging.getLogger("resilience").exception(
                "the janitor %s could not read the memory in use", self._name
            )
        else:
            if reading.alert and reading.resident is not None and reading.limit is not None:
                event = MemoryAlert(self._name, reading.resident, reading.limit, reading.slope)
                publish(event, self._on_memory_alert)
        return schedule._replace(read_at=self._clock.now() + self._memory.interval)

    def _cleaned(self, sessions: int | None) -> None:
        with self._lock:
            self._sessions_cleaned += sessions or 0

    def _finished(self, tally: Tally, started: float) -> SweepFinished:
        ended_at = self._clock.wall()
        elapsed = self._clock.now() - started
        with self._lock:
            self._sweeps += 1
            self._last_sweep_at = ended_at
            self._last_sweep_elapsed = elapsed
        event = SweepFinished(
            self._name, tally.cleaned, elapsed, tally.complete, self._dry_run, tally.left_to_another
        )
        publish(event, self._on_sweep)
        return event

    def _failed(self, error: Exception) -> None:
        with self._lock:
            self._failed_sweeps += 1
        publish(SweepFailed(self._name, error), self._on_sweep_failed)

    def _log_failed_sweep(self, error: Exception) -> None:
        import logging  # noqa: PLC0415 - see `_read_memory`

        logging.getLogger("resilience").error(
            "the janitor %s failed to sweep; it goes on", self._name, exc_info=error
        )

    def _log_failed_check(self, error: Exception) -> None:
        import logging  # noqa: PLC0415 - see `_read_memory`

        logging.getLogger("resilience").error(
            "the janitor %s failed to check the open sockets; it goes on", self._name, exc_info=error
        )

    def _warn_still_busy(self, timeout: float) -> None:
        import logging  # noqa: PLC0415 - see `_read_memory`

        logging.getLogger("resilience").warning(
            "the janitor %s is still in the middle of a batch after %g s", self._name, timeout
        )
