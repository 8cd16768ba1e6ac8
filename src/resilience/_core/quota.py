"""How much is allowed in which window, and what a limiter decided about one call.

Rules:
    - A quota is `limit` units in every `per` seconds. Its notation is `LIMIT/PERIOD [ALGORITHM]`, and
      `Quota.parse(str(quota)) == quota`.
    - Time is an integer number of nanoseconds, so that no unit is ever lost to rounding.
    - A unit taken at an instant counts from that instant on, up to but not including `per` seconds later:
      exactly on the edge it is free again, a nanosecond before it is not.
    - A refusal changes nothing.
"""

from __future__ import annotations

import re
from math import inf, isfinite
from typing import TYPE_CHECKING, Any, Final, Literal, Self, get_args

from resilience._core.counting import Counter
from resilience._core.fixed import FixedWindow
from resilience._core.gcra import Gcra
from resilience._core.sliding import EXACT_UP_TO, SlidingCounts, SlidingLog

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resilience._core.counting import Charge, State

Algorithm = Literal["sliding-window", "gcra", "fixed-window"]

_ALGORITHMS: Final[tuple[str, ...]] = get_args(Algorithm)
_SECONDS: Final = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1),
    **dict.fromkeys(("min", "minute", "minutes"), 60),
    **dict.fromkeys(("h", "hour", "hours"), 3600),
    **dict.fromkeys(("d", "day", "days"), 86400),
}
_NOTATION: Final = re.compile(
    r"\s*(?P<limit>\d+)\s*(?:/|\sper\s)\s*(?P<count>\d+(?:\.\d+)?)?\s*(?P<unit>[a-z]+)"
    r"(?:\s+(?P<algorithm>[a-z-]+))?\s*",
    re.ASCII,
)
_MOST_UNITS: Final = 1_000_000_000
_LONGEST: Final = 10 * 366 * 86400.0
_SHORTEST: Final = 0.001


class Quota:
    """`limit` units in every `per` seconds.

    Args:
        limit: Units, 1 to 1,000,000,000.
        per: Seconds of the window, 0.001 to ten years.
        algorithm: `"sliding-window"` never lets more than `limit` through in any window; `"gcra"` paces
            evenly, with one number for each key; `"fixed-window"` counts from a key's first unit, and
            lets up to twice the limit through around a window's edge.

    Raises:
        TypeError: `limit` is not a whole number, or `per` no number.
        ValueError: A number is out of its range, or the algorithm is unknown.

    Quotas are immutable and may be shared freely.

    Example:
        >>> Quota(6, per=900.0) == Quota.parse("6/15 minutes")
        True
        >>> str(Quota(100, per=3600, algorithm="gcra"))
        '100/hour gcra'
    """

    __slots__ = ("_algorithm", "_limit", "_per")

    def __init__(self, limit: int, per: float, algorithm: Algorithm = "sliding-window") -> None:
        if isinstance(limit, bool) or not isinstance(limit, int):  # pyright: ignore[reportUnnecessaryIsInstance] - callers without a type checker
            raise TypeError(f"a quota's limit must be a whole number, not {limit!r}")
        if not 1 <= limit <= _MOST_UNITS:
            raise ValueError(f"a quota's limit must be from 1 to {_MOST_UNITS:,}, not {limit!r}")
        if isinstance(per, bool) or not isinstance(per, int | float):  # pyright: ignore[reportUnnecessaryIsInstance] - callers without a type checker
            raise TypeError(f"a quota's window must be a number of seconds, not {per!r}")
        if not (isfinite(per) and _SHORTEST <= per <= _LONGEST):
            raise ValueError(f"a quota's window must be from {_SHORTEST} s to ten years, not {per!r} s")
        if algorithm not in _ALGORITHMS:
            raise ValueError(f"the algorithm must be one of {', '.join(_ALGORITHMS)}, not {algorithm!r}")
        self._limit = limit
        self._per = float(per)
        self._algorithm: Algorithm = algorithm

    @classmethod
    def parse(cls, notation: str, algorithm: Algorithm | None = None) -> Self:
        """Return the quota that `notation` stands for.

        Args:
            notation: `"6/15 minutes"`, `"100/hour"`, `"10/s"`, `"6 per 15 min"`, `"100/hour gcra"`. Units
                are s, sec, second, min, minute, h, hour, d, day and their plurals.
            algorithm: What is taken where the notation names none; `"sliding-window"` unless told.

        Raises:
            TypeError: `notation` is not a string.
            ValueError: It cannot be read, or a number is out of its range.
        """
        if not isinstance(notation, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers without a type checker
            raise TypeError(f"a quota is written as a string such as '6/15 minutes', not {notation!r}")
        found = _NOTATION.fullmatch(notation.lower())
        if not found or found["unit"] not in _SECONDS:
            raise ValueError(
                f"cannot read the quota {notation!r}: write it as '6/15 minutes', '100/hour' or "
                "'10/second gcra', with s, min, h, d or their long forms"
            )
        per = float(found["count"] or 1) * _SECONDS[found["unit"]]
        named: Any = found["algorithm"] or algorithm or "sliding-window"
        return cls(int(found["limit"]), per, named)

    @property
    def limit(self) -> int:
        """Units in each window."""
        return self._limit

    @property
    def per(self) -> float:
        """Seconds of the window."""
        return self._per

    @property
    def algorithm(self) -> Algorithm:
        """How it is counted."""
        return self._algorithm

    def __str__(self) -> str:
        """Return the notation, which `parse` reads back."""
        suffix = "" if self._algorithm == "sliding-window" else f" {self._algorithm}"
        return f"{self._limit}/{_period(self._per)}{suffix}"

    def __repr__(self) -> str:
        """Return the call that makes this quota."""
        return f"Quota({self._limit}, per={self._per!r}, algorithm={self._algorithm!r})"

    def __eq__(self, other: object) -> bool:
        """Compare limit, window and algorithm."""
        if not isinstance(other, Quota):
            return NotImplemented
        return self.__reduce__() == other.__reduce__()

    def __hash__(self) -> int:
        """Hash limit, window and algorithm."""
        return hash(self.__reduce__())

    def __reduce__(self) -> tuple[type[Quota], tuple[int, float, Algorithm]]:
        """Pickle as the arguments."""
        return Quota, (self._limit, self._per, self._algorithm)


def merged(decisions: Sequence[Decision]) -> Decision:
    """Return one decision for several that were made together, all or nothing.

    What is left is the least of them all. A refusal is that of the quota which refuses longest; else the
    quota that has the least left stands for all.
    """
    if len(decisions) == 1:
        return decisions[0]
    refusing = [decision for decision in decisions if not decision]
    if not refusing:
        return min(decisions, key=lambda decision: (decision.remaining, -decision.reset_after))
    binding = max(refusing, key=_patience)
    least = min(decision.remaining for decision in decisions)
    if binding.remaining == least:
        return binding
    return Decision.of(
        False,
        binding.quota,
        binding.limiter,
        remaining=least,
        reset_after=binding.reset_after,
        retry_after=binding.retry_after,
    )


def _patience(decision: Decision) -> float:
    return inf if decision.retry_after is None else decision.retry_after


def foreseen(charges: Sequence[Charge], states: Sequence[State | None], now: int) -> list[Decision]:
    """Return the decision about each charge by itself, on the state of its key, with nothing taken."""
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


def counter_of(limiter: str, quota: Quota) -> Counter:
    """Return what the keys of `limiter` are counted under for `quota`."""
    window = round(quota.per * 1e9)
    rules: FixedWindow | Gcra | SlidingCounts | SlidingLog
    if quota.algorithm == "gcra":
        rules = Gcra(quota.limit, window)
    elif quota.algorithm == "fixed-window":
        rules = FixedWindow(quota.limit, window)
    elif quota.limit <= EXACT_UP_TO:
        rules = SlidingLog(quota.limit, window)
    else:
        rules = SlidingCounts(quota.limit, window)
    return Counter(f"{limiter}: {quota}", limiter, quota, rules)


def _period(seconds: float) -> str:
    for unit in ("day", "hour", "minute"):
        count, rest = divmod(seconds, _SECONDS[unit])
        if count >= 1 and not rest:
            return unit if count == 1 else f"{count:.0f} {unit}s"
    if seconds == 1:
        return "second"
    digits = repr(seconds) if "e" not in repr(seconds) else f"{seconds:.20f}"
    return f"{digits.rstrip('0').rstrip('.') if '.' in digits else digits} seconds"


class _Reported:
    """In place of an algorithm where the figures are known already: merged ones, or those of a server.

    The state is (remaining, nanoseconds until whole, nanoseconds until it fits or None).
    """

    def remaining(self, state: Any, now: int) -> int:  # noqa: ARG002 - as in Rules
        return state[0]  # type: ignore[no-any-return]  # see the docstring

    def fits_at(self, state: Any, now: int, cost: int) -> int | None:  # noqa: ARG002 - as in Rules
        return None if state[2] is None else now + state[2]

    def whole_at(self, state: Any, now: int) -> int:
        return now + state[1]  # type: ignore[no-any-return]  # see the docstring


_REPORTED: Final[Any] = _Reported()  # it answers what a decision asks, and takes no units


class Decision(tuple[bool, Any, int, int, Counter]):
    """What a limiter decided about one call; true where the call is allowed.

    The figures are those of the instant of the decision, after it. They are worked out from what the
    decision was made on when they are read, since most are never read. Immutable.

    Example:
        >>> decision = Decision.of(False, Quota(6, per=900), "login", remaining=0, retry_after=12.5)
        >>> bool(decision), decision.limit, decision.retry_after
        (False, 6, 12.5)
    """

    # (allowed, state, now, cost, counter); made with `Decision((…))`, which costs what a tuple costs.

    __slots__ = ()

    @classmethod
    def of(
        cls,
        allowed: bool,
        quota: Quota,
        limiter: str = "",
        *,
        remaining: int,
        reset_after: float = 0.0,
        retry_after: float | None = 0.0,
    ) -> Decision:
        """Return a decision with these figures.

        Args:
            allowed: Whether the call may run.
            quota: The quota that decided.
            limiter: The name of the limiter that decided.
            remaining: Units left.
            reset_after: Seconds until the quota is whole again.
            retry_after: Seconds until the call would be allowed; None if never.
        """
        figures = (
            remaining,
            round(reset_after * 1e9),
            None if retry_after is None else round(retry_after * 1e9),
        )
        return cls((allowed, figures, 0, 0, Counter("", limiter, quota, _REPORTED)))

    @property
    def allowed(self) -> bool:
        """Whether the call may run."""
        return self[0]

    @property
    def limit(self) -> int:
        """Units in each window of the quota that decided."""
        return self[4].quota.limit

    @property
    def remaining(self) -> int:
        """Units left; with several quotas the least of them."""
        return self[4].rules.remaining(self[1], self[2])

    @property
    def reset_after(self) -> float:
        """Seconds until the quota is whole again."""
        return (self[4].rules.whole_at(self[1], self[2]) - self[2]) / 1e9

    @property
    def retry_after(self) -> float | None:
        """Seconds until the call would be allowed; 0.0 where it is; None where it costs more than the limit.

        With several quotas it is the longest of all that refuse.
        """
        if self[0]:
            return 0.0
        fits_at = self[4].rules.fits_at(self[1], self[2], self[3])
        return None if fits_at is None else (fits_at - self[2]) / 1e9

    @property
    def quota(self) -> Quota:
        """The quota that decided: the one that refuses longest, or else the one with the least left."""
        return self[4].quota

    @property
    def limiter(self) -> str:
        """The name of the limiter that decided."""
        return self[4].limiter

    @property
    def receipt(self) -> int:
        """What identifies the units that were taken, where a store has taken any; for refunds."""
        return self[4].rules.receipt(self[1])

    def __bool__(self) -> bool:
        """Return whether the call is allowed."""
        return self[0]

    def __repr__(self) -> str:
        """Return the figures."""
        return (
            f"Decision(allowed={self.allowed}, limit={self.limit}, remaining={self.remaining}, "
            f"reset_after={self.reset_after!r}, retry_after={self.retry_after!r}, "
            f"quota={str(self.quota)!r}, limiter={self.limiter!r})"
        )

    def __eq__(self, other: object) -> bool:
        """Compare the figures."""
        return isinstance(other, Decision) and self.__reduce__() == other.__reduce__()

    def __ne__(self, other: object) -> bool:
        """Compare the figures; a tuple would compare what they are worked out from."""
        return not self == other

    def __hash__(self) -> int:
        """Hash the figures."""
        return hash(self.__reduce__())

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the figures, whichever way they were arrived at."""
        return _decision, (
            self.allowed,
            self.quota,
            self.limiter,
            self.remaining,
            self.reset_after,
            self.retry_after,
        )


def _decision(
    allowed: bool,
    quota: Quota,
    limiter: str,
    remaining: int,
    reset_after: float,
    retry_after: float | None,
) -> Decision:
    return Decision.of(
        allowed, quota, limiter, remaining=remaining, reset_after=reset_after, retry_after=retry_after
    )
