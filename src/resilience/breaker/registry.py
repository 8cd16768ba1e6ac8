"""Keyed breakers: one for each host, shard or tenant, so that one that is down does not stop the others.

Rules:

- Whoever asks for a key gets the one breaker of that key.
- The number of keys is capped. Beyond it, breakers without trouble on record are forgotten, those that
  nobody has asked for of late before the others. One with trouble is kept until the trouble is old.
- If all that there is has fresh trouble, a new key shares the overflow breaker: it is better guarded along
  with others than not at all, and it takes no memory.

Example:
    >>> hosts = BreakerRegistry(5, 60.0, name="hosts")
    >>> hosts.get("a.example") is hosts.get("a.example")
    True
    >>> hosts.get("b.example")
    <CircuitBreaker 'hosts:b.example', closed>
"""

from __future__ import annotations

from collections import OrderedDict
from threading import RLock
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypedDict

from resilience.breaker.breaker import CircuitBreaker
from resilience.checks import count, number
from resilience.clock import SYSTEM_CLOCK
from resilience.fork import survive_fork

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from typing import Unpack

    from resilience.boards import Board
    from resilience.breaker.breaker import Snapshot
    from resilience.clock import Clock
    from resilience.conditions import Condition
    from resilience.events import Listener

EXAMINED: Final = 8
"""How many breakers a new key looks at for one to forget: enough to keep up, too few to be a pause."""


class BreakerOptions(TypedDict, total=False):
    """What `CircuitBreaker` is told by keyword only, but for its name and its clock."""

    failure_ratio: float
    minimum_calls: int
    window: float
    window_calls: int | None
    slow_after: float | None
    slow_ratio: float
    probes: int
    probe_lease: float
    recovery_jitter: float
    recovery_growth: float
    max_recovery_time: float | None
    record_on: Condition
    ignore: Condition
    failure_if_result: Callable[[Any], bool] | None
    shared: Board | None
    quorum: int
    random: Callable[[], float]
    on_change: Listener | None


class KeyOptions(BreakerOptions, total=False):
    """What `CircuitBreaker` is told, but for its name and its clock."""

    failure_threshold: int | None
    recovery_time: float


class _Entry:
    __slots__ = ("asked", "breaker", "options")

    def __init__(self, breaker: CircuitBreaker, options: KeyOptions) -> None:
        self.breaker = breaker
        self.options = options
        self.asked = True
        """Whether anybody has asked for it since it was last examined."""


class BreakerRegistry:
    """Makes and keeps one breaker for each key, all with the same settings.

    Args:
        failure_threshold: As of `CircuitBreaker`, and so are `recovery_time` and `options`.
        recovery_time: As of `CircuitBreaker`.
        name: What the names of the breakers begin with: `name:key`. Left out, the key is the name.
        max_keys: How many breakers are kept at most, at least 1.
        forget_after: Seconds after which trouble is old, above 0: the last failure of a closed breaker, the
            end of an open one's recovery time.
        clock: Where time comes from.
        options: As of `CircuitBreaker`.

    Ask for the breaker at each call: one that is kept elsewhere may have been forgotten here, and made anew.

    Raises:
        TypeError, ValueError: An argument is of the wrong type, or out of its range.

    Threads, tasks and event loops may share it.
    """

    __slots__ = (
        "__weakref__",
        "_clock",
        "_defaults",
        "_entries",
        "_forget_after",
        "_lock",
        "_max_keys",
        "_name",
        "_overflow",
    )

    _lock: RLock

    def __init__(
        self,
        failure_threshold: int | None = None,
        recovery_time: float = 5.0,
        *,
        name: str | None = None,
        max_keys: int = 10_000,
        forget_after: float = 60.0,
        clock: Clock = SYSTEM_CLOCK,
        **options: Unpack[BreakerOptions],
    ) -> None:
        self._defaults: KeyOptions = {
            "failure_threshold": failure_threshold,
            "recovery_time": recovery_time,
            **options,
        }
        self._name = name
        self._max_keys = count("max_keys", max_keys, least=1)
        self._forget_after = number("forget_after", forget_after, above=0)
        self._clock = clock
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._overflow = self._make("(overflow)", {})
        survive_fork(self)

    def after_fork(self) -> None:
        """Make the lock anew in a forked child; `resilience.fork` calls this."""
        self._lock = RLock()

    def get(self, key: Hashable, **options: Unpack[KeyOptions]) -> CircuitBreaker:
        """Return the breaker of `key`, made with the registry's settings and `options` if there is none.

        Raises:
            ValueError: There is one, made with other options.
        """
        # Without the lock: a dict may be read while others write it. What is found was the key's breaker at
        # that moment; where nothing is found, the lock decides.
        entry = self._entries.get(key)
        if entry is None:
            made = _Entry(self._make(key, options), options)
            now = self._clock.now()
            with self._lock:
                entry = self._entries.get(key)
                if entry is None:
                    if len(self._entries) >= self._max_keys and not self._forget_one(now):
                        return self._overflow
                    self._entries[key] = entry = made
        if options and entry.options != options:
            raise ValueError(
                f"the breaker of {key!r} was made with {entry.options!r}, not with {options!r}: "
                "ask for it with one set of options everywhere"
            )
        entry.asked = True
        return entry.breaker

    def snapshots(self) -> dict[Hashable, Snapshot]:
        """Return a snapshot of each breaker that is kept, by key."""
        with self._lock:
            entries = list(self._entries.items())
        return {key: entry.breaker.snapshot() for key, entry in entries}

    def __len__(self) -> int:
        """Return how many breakers are kept."""
        return len(self._entries)

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled."""
        raise TypeError(
            f"BreakerRegistry {self._name!r} cannot be copied or pickled: it holds live breakers; "
            "share the one there is, and make another in each process"
        )

    def _make(self, key: Hashable, options: KeyOptions) -> CircuitBreaker:
        name = str(key) if self._name is None else f"{self._name}:{key}"
        return CircuitBreaker(**(self._defaults | options), name=name, clock=self._clock)

    def _forget_one(self, now: float) -> bool:
        """Forget a breaker without fresh trouble, and say whether one was found. The caller holds the lock.

        One that nobody has asked for since it was last examined goes first; those that stay go to the end.
        """
        quiet: list[Hashable] = []
        for _ in range(min(EXAMINED, len(self._entries))):
            key, entry = next(iter(self._entries.items()))
            if entry.breaker.last_trouble(now) + self._forget_after <= now:
                if not entry.asked:
                    del self._entries[key]
                    return True
                quiet.append(key)
            entry.asked = False
            self._entries.move_to_end(key)
        if quiet:
            del self._entries[quiet[0]]
        return bool(quiet)
