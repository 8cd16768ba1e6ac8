"""What an algorithm is asked, and what it is asked about.

Every algorithm is pure arithmetic on the state of one key: state and instant go in, the new state or None
comes out. So memory, SQLite and the simulator decide alike. Rules:
    - Instants are integer nanoseconds of one clock, from 0 up.
    - A state is immutable: a number, a string of bytes, or a flat tuple of such; None stands for a key of
      which nothing counts. None of these stays with the garbage collector, however many keys there are.
    - An instant before the newest one in the state is taken for the newest one, so a clock that steps back
      never admits more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilience._core.quota import Quota

Kept = TypeVar("Kept", int, bytes)

Packed = int | bytes
"""A state as stores outside this process keep it."""
State = Packed | tuple[int, int, int, int, bytes]


class Rules(Protocol):
    """An algorithm with the figures of one quota."""

    @property
    def horizon(self) -> int:
        """Nanoseconds after which a state that was admitted to no more has nothing left that counts."""
        ...

    def admit(self, state: Any, now: int, cost: int = 1) -> State | None:
        """Return the state after taking `cost` units, or None if they do not fit."""
        ...

    def admit_one(self) -> Callable[[Any, int], State | None]:
        """Return `admit` for one unit of a key that has a state, with the figures bound: the hot path."""
        ...

    def remaining(self, state: Any, now: int) -> int:
        """Return the units that would fit."""
        ...

    def fits_at(self, state: Any, now: int, cost: int) -> int | None:
        """Return the first instant at which `cost` units fit; None if they never do."""
        ...

    def whole_at(self, state: Any, now: int) -> int:
        """Return the first instant at which nothing counts any more; not before `now`."""
        ...

    def receipt(self, state: Any) -> int:
        """Return what identifies the units that the admission to `state` took."""
        ...

    def refund(self, state: Any, now: int, cost: int, receipt: int) -> State | None:
        """Return the state without `cost` units of `receipt`; what has lapsed is not given back again."""
        ...

    def pack(self, state: Any) -> Packed:
        """Return the state in the form in which it is kept outside this process."""
        ...

    def unpack(self, packed: Any) -> State:
        """Return the state that was packed."""
        ...


class KeptAsItIs:
    """An algorithm whose state needs no packing."""

    __slots__ = ()

    @staticmethod
    def pack(state: Kept) -> Kept:
        """Return the state."""
        return state

    @staticmethod
    def unpack(packed: Kept) -> Kept:
        """Return the state."""
        return packed


class Counter(NamedTuple):
    """What keys are counted under: one quota of one limiter."""

    scope: str
    """The limiter's name and the quota's notation: equal scopes in one store count together."""
    limiter: str
    quota: Quota
    rules: Rules


class Charge(NamedTuple):
    """What a decision is asked about: `cost` units for one key of one counter."""

    counter: Counter
    key: str | bytes
    cost: int = 1
