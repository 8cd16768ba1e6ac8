"""How requests to a fake go wrong: the next so many, or some of them at random, as the seed has it.

A `Fault` is what somebody asked for; `Faults` decides for each request which of them strikes, and counts.
Chance depends on the seed, on what is asked for and on how often it was asked for already, and not on the
order in which requests for different things come in: a run with many workers can be repeated.
"""

from __future__ import annotations

import dataclasses
import random
import threading
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """How requests go wrong. Each field is a key of the control request."""

    next: int | None = None
    """How many requests go wrong; None for all until the faults are deleted."""
    on: str = "any"
    """Which requests it concerns, as the fake counts them: `calls`, say; or `any`."""
    rate: float = 1.0
    """Which share of them goes wrong, 0 to 1."""
    seed: int | None = None
    """What chance depends on; None for another chance in each run."""
    kinds: tuple[str, ...] = ()
    """One of these, by chance, each with the fields that the fake gives it; see the fake's `KINDS`."""

    status: int | None = None
    """Answer with this status, 503 say."""
    code: str | None = None
    """And with this code in the error's body, `SlowDown` say."""
    retry_after: str | None = None
    """And with this Retry-After."""
    location: str | None = None
    """And with this Location."""
    late: bool = False
    """But do first what was asked: the client cannot know whether it was done."""
    reset: bool = False
    """Hang up instead of answering."""
    delay: float = 0.0
    """Keep silent for so many seconds first."""
    cut: bool = False
    """Announce the whole body, send half of it, and hang up."""
    trickle: float = 0.0
    """Send the body byte by byte, with so many seconds between them."""
    slow: float = 0.0
    """Take so many seconds over the body."""
    announce: int = 0
    """Announce a body that is so many bytes longer than what comes."""
    content_type: str | None = None
    """Say that a good answer is of this type."""

    def __post_init__(self) -> None:
        """Refuse what could only be found out by a fault that never strikes."""
        object.__setattr__(self, "kinds", tuple(self.kinds))
        if not 0.0 <= self.rate <= 1.0:
            raise ValueError(f"rate={self.rate!r}: a share of 0 to 1 is expected")
        if self.next is not None and self.next < 1:
            raise ValueError(f"next={self.next!r}: at least 1 is expected")


NONE = Fault()
"""All is well."""


class Faults:
    """What shall go wrong, and what was asked for. Any number of threads may use it.

    Args:
        kinds: The fields of each named kind. A kind's `on` says which requests it can happen to.
    """

    def __init__(self, kinds: Mapping[str, Mapping[str, Any]]) -> None:
        self._kinds = {name: Fault(**fields) for name, fields in kinds.items()}
        self._lock = threading.Lock()
        self._faults: dict[int, tuple[Fault, int | None]] = {}
        self._added = 0
        self._requests: Counter[str] = Counter()
        self._requests_for: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._struck: Counter[str] = Counter()

    def add_fault(self, fault: Fault) -> None:
        """Let requests go wrong; of several faults that could strike, the one that was added first does.

        Raises:
            ValueError: There is no such kind.
        """
        if unknown := set(fault.kinds) - self._kinds.keys():
            raise ValueError(f"kinds={sorted(unknown)!r}: expected are some of {sorted(self._kinds)}")
        with self._lock:
            self._added += 1
            self._faults[self._added] = fault, fault.next

    def heal(self) -> None:
        """Let all requests go well again."""
        with self._lock:
            self._faults.clear()

    def begin(self, on: str, subject: str) -> Fault:
        """Count a request, and return how it shall go wrong, which is often not at all.

        Args:
            on: What kind of request it is.
            subject: What it is about, a call's id say.
        """
        with self._lock:
            self._requests[on] += 1
            self._requests_for[subject][on] += 1
            time = self._requests_for[subject][on]
            for number, (fault, left) in self._faults.items():
                struck = self._draw(fault, on, f"{subject} {time}")
                if struck is None:
                    continue
                if left == 1:
                    del self._faults[number]
                elif left is not None:
                    self._faults[number] = fault, left - 1
                return struck
            return NONE

    def _draw(self, fault: Fault, on: str, occasion: str) -> Fault | None:
        if fault.on not in {on, "any"}:
            return None
        seed = None if fault.seed is None else f"{fault.seed} {on} {occasion}"
        chance = random.Random(seed)  # noqa: S311 - no secret
        if chance.random() >= fault.rate:
            return None
        if not fault.kinds:
            self._struck["as told"] += 1
            return fault
        possible = [kind for kind in fault.kinds if self._kinds[kind].on in {on, "any"}]
        if not possible:
            return None
        kind = chance.choice(possible)
        self._struck[kind] += 1
        return self._kinds[kind]

    def requests(self) -> dict[str, int]:
        """Return how many requests have come, by what they were."""
        with self._lock:
            return dict(self._requests)

    def requests_for(self) -> dict[str, dict[str, int]]:
        """Return the same for each thing that was asked for."""
        with self._lock:
            return {subject: dict(counts) for subject, counts in self._requests_for.items()}

    def struck(self) -> dict[str, int]:
        """Return how many requests went wrong, by kind."""
        with self._lock:
            return dict(self._struck)
