"""One pipeline for each key: for each host, tenant or shard, so that one in trouble does not stop the others.

Rules:

- Whoever asks for a key gets the one pipeline of that key. While anybody uses it, a call under way say, it is
  the only one, also if it has been forgotten here meanwhile: it is remembered for as long as it lives.
- The number of keys is capped. Beyond it, pipelines at rest are forgotten, those that nobody has asked for of
  late before the others. One in which a breaker has fresh trouble, a limiter counts, or a bulkhead has
  somebody in it, is kept: to forget it would be to forgive.
- If all that there is has fresh trouble, a new key shares the overflow pipeline: it is better guarded along
  with others than not at all, and it takes no memory.
- `make` runs outside the lock. Where two threads make one for the same key, the first to be done counts.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import RLock
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, TypeVar
from weakref import WeakValueDictionary

from resilience.breaker import BreakerRegistry, CircuitBreaker
from resilience.bulkhead import AsyncBulkhead, Bulkhead
from resilience.checks import count, number
from resilience.clock import SYSTEM_CLOCK
from resilience.fork import survive_fork
from resilience.limiter import AsyncRateLimiter, RateLimiter
from resilience.pipeline.pipeline import AsyncPipeline, Pipeline
from resilience.pipeline.waiting import Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from resilience.clock import Clock

AnyPipeline = TypeVar("AnyPipeline", bound="Pipeline | AsyncPipeline")

EXAMINED: Final = 8
"""How many pipelines a new key looks at for one to forget: enough to keep up, too few to be a pause."""

OVERFLOW: Final = "(overflow)"
"""The key of the pipeline that new keys share where nothing can be forgotten."""


class _Entry(Generic[AnyPipeline]):
    __slots__ = ("asked", "pipeline")

    def __init__(self, pipeline: AnyPipeline) -> None:
        self.pipeline = pipeline
        self.asked = True
        """Whether anybody has asked for it since it was last examined."""


class KeyedPipelines(Generic[AnyPipeline]):
    """Makes and keeps one pipeline for each key.

    Args:
        make: A function of a key that returns its pipeline. It is also asked for `"(overflow)"`, once, should
            new keys have to share one.
        most: How many pipelines are kept at most, at least 1.
        forget_after: Seconds after which a breaker's trouble is old, above 0: the last failure of a closed
            one, the end of an open one's recovery time.
        clock: What that is measured on; that of the breakers.

    Raises:
        TypeError, ValueError: An argument is of the wrong type, or out of its range.

    Ask for the pipeline at each call. Threads, tasks and event loops may share it.

    Example:
        >>> from resilience import CircuitBreaker, RetryManager
        >>> hosts = KeyedPipelines(lambda host: Pipeline(RetryManager(name=host), CircuitBreaker(name=host)))
        >>> hosts.get("a.example").execute(str.upper, "a")
        'A'
        >>> hosts.get("a.example") is hosts.get("a.example")
        True
    """

    __slots__ = (
        "__weakref__",
        "_clock",
        "_entries",
        "_forget_after",
        "_in_use",
        "_lock",
        "_make",
        "_most",
        "_overflow",
    )

    _lock: RLock

    def __init__(
        self,
        make: Callable[[Any], AnyPipeline],
        *,
        most: int = 10_000,
        forget_after: float = 60.0,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        if not callable(make):
            raise TypeError(f"make={make!r} must be a function of a key that returns its pipeline")
        self._make = make
        self._most = count("most", most, least=1)
        self._forget_after = number("forget_after", forget_after, above=0)
        self._clock = clock
        self._entries: OrderedDict[Hashable, _Entry[AnyPipeline]] = OrderedDict()
        self._in_use: WeakValueDictionary[Hashable, AnyPipeline] = WeakValueDictionary()
        """Those that were forgotten, while somebody has them."""
        self._overflow: AnyPipeline | None = None
        survive_fork(self)

    def after_fork(self) -> None:
        """Make the lock anew, which another thread of the parent may have held."""
        self._lock = RLock()

    def get(self, key: Hashable) -> AnyPipeline:
        """Return the pipeline of `key`, made at the first call.

        Raises:
            TypeError: `make` returned no pipeline.
            Exception: What `make` raises.
        """
        # Without the lock: a dict may be read while others write it. What is found was the key's pipeline at
        # that moment; where nothing is found, the lock decides.
        entry = self._entries.get(key)
        if entry is not None:
            entry.asked = True
            return entry.pipeline
        while True:
            make = self._make
            pipeline = self._in_use.get(key)
            if pipeline is None:
                pipeline = _made(make, key)
            kept = self._keep(key, pipeline, make)
            if kept is not None:
                return kept

    def reconfigure(self, make: Callable[[Any], AnyPipeline]) -> None:
        """Go on with what `make` makes, also for the keys that there are; see `Pipeline.reconfigure`.

        Raises:
            TypeError, ValueError: What `make` returns for a key cannot take the place of its pipeline. The
                keys before it have been changed.
        """
        with self._lock:
            self._make = make
            kept = [(key, entry.pipeline) for key, entry in self._entries.items()]
            kept += self._in_use.items()
            if self._overflow is not None:
                kept.append((OVERFLOW, self._overflow))
        for key, pipeline in kept:
            pipeline.reconfigure(*_made(make, key).parts)

    def __len__(self) -> int:
        """Return how many pipelines are kept."""
        return len(self._entries)

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled."""
        raise TypeError(
            "KeyedPipelines cannot be copied or pickled: they hold live state; share these, and make others "
            "in each process"
        )

    def _keep(
        self, key: Hashable, pipeline: AnyPipeline, make: Callable[[Any], AnyPipeline]
    ) -> AnyPipeline | None:
        """Return the pipeline of `key`: one that is there by now, or else this one, or the overflow.

        None where another `make` counts by now: `reconfigure` has not seen this one, and will not.
        """
        now = self._clock.now()
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                return entry.pipeline
            used = self._in_use.get(key)
            if self._make is not make:
                return None
            if len(self._entries) < self._most or self._forget_one(now):
                pipeline = pipeline if used is None else used
                self._entries[key] = _Entry(pipeline)
                self._in_use.pop(key, None)
                return pipeline
            if used is not None:
                return used
            overflow = self._overflow
        if overflow is not None:
            return overflow
        made = _made(make, OVERFLOW)
        with self._lock:
            if self._overflow is None and self._make is make:
                self._overflow = made
            return self._overflow

    def _forget_one(self, now: float) -> bool:
        """Forget a pipeline at rest, and say whether one was found. The caller holds the lock.

        One that nobody has asked for since it was last examined goes first; those that stay go to the end.
        """
        quiet: list[Hashable] = []
        for _ in range(min(EXAMINED, len(self._entries))):
            key, entry = next(iter(self._entries.items()))
            if self._is_at_rest(entry.pipeline, now):
                if not entry.asked:
                    self._forget(key)
                    return True
                quiet.append(key)
            entry.asked = False
            self._entries.move_to_end(key)
        if quiet:
            self._forget(quiet[0])
        return bool(quiet)

    def _forget(self, key: Hashable) -> None:
        self._in_use[key] = self._entries.pop(key).pipeline

    def _is_at_rest(self, pipeline: Pipeline | AsyncPipeline, now: float) -> bool:
        return not any(self._is_busy(part, now) for part in pipeline.parts)

    def _is_busy(self, part: Any, now: float) -> bool:
        """Whether something would be forgiven if it were forgotten."""
        if isinstance(part, CircuitBreaker):
            return part.last_trouble(now) + self._forget_after > now
        if isinstance(part, Waiting):
            return self._is_busy(part.limiter, now)
        if isinstance(part, RateLimiter | AsyncRateLimiter):
            return part.is_counting
        if isinstance(part, Bulkhead | AsyncBulkhead):
            stats = part.stats()
            return stats.running + stats.waiting > 0
        if isinstance(part, BreakerRegistry):
            return len(part) > 0
        return isinstance(part, Pipeline | AsyncPipeline) and not self._is_at_rest(part, now)


def _made(make: Callable[[Any], AnyPipeline], key: Hashable) -> AnyPipeline:
    pipeline = make(key)
    if not isinstance(pipeline, Pipeline | AsyncPipeline):  # pyright: ignore[reportUnnecessaryIsInstance] - from untyped code
        raise TypeError(f"make({key!r}) returned {pipeline!r}, which is no pipeline")
    return pipeline
