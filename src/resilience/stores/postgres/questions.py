"""What the server is asked, and how its answers are read: bytes in both directions, in binary form.

Nothing here waits. A question is a statement with its values, and the function that reads the result.
"""

from __future__ import annotations

from struct import Struct, pack, unpack_from
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar

from resilience._core.fixed import FixedWindow
from resilience._core.gcra import Gcra
from resilience._core.quota import Decision, foreseen
from resilience._core.sliding import SlidingLog
from resilience.stores import Entry, Holding
from resilience.stores.postgres.schema import ALGORITHMS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from psycopg.pq.abc import PGresult

    from resilience._core.counting import Charge, Counter, State

Answer = TypeVar("Answer")

_BYTEA, _INT8, _INT4, _TEXT, _BYTEAS, _INT8S, _TEXTS = 17, 20, 23, 25, 1001, 1016, 1009
"""PostgreSQL's numbers for these types."""

MOST_COUNTED: Final = 10_000
"""How many rows of a counter are looked at to say how many keys it holds."""

_BINARY: Final = 1
_MOST_FIGURES: Final = 1000
"""How many counters have their figures kept ready."""

_BIGINT: Final = Struct(">q")
_INT: Final = Struct(">i")
_ONE: Final = _BIGINT.pack(1)
_TOKEN: Final = 8
"""Bytes of a token that the server keeps: one in 10^19 is mistaken for one of the sixteen of its row."""


class Statement(NamedTuple):
    """A statement, with the name under which it is prepared."""

    name: bytes
    text: bytes
    types: tuple[int, ...]
    formats: tuple[int, ...]


def _statement(function: str, *types: int, select: str = "SELECT") -> Statement:
    values = ", ".join(f"${i + 1}" for i in range(len(types)))
    text = f"{select} {function}({values})"
    return Statement(f"_{function}_1".encode(), text.encode(), types, (_BINARY,) * len(types))


_TAKE: Final = {
    algorithm.encode(): _statement(
        f"resilience_take_{algorithm.replace('-', '_')}",
        *(_BYTEA, _BYTEA, _INT8, _INT8, _INT8, _INT8, _BYTEA, _TEXT),
    )
    for algorithm in ALGORITHMS
}
_TAKE_ALL: Final = _statement(
    "resilience_take_all",
    *(_BYTEAS, _BYTEAS, _TEXTS, _INT8S, _INT8S, _INT8S, _INT8S, _BYTEA, _TEXT),
)
_PEEK: Final = _statement("resilience_peek", _BYTEAS, _BYTEAS, _TEXTS, _INT8S)
_REFUND: Final = _statement(
    "resilience_refund", _BYTEAS, _BYTEAS, _TEXTS, _INT8S, _INT8S, _INT8S, _BYTEA, _TEXT
)
_RESET: Final = _statement("resilience_reset", _BYTEAS, _BYTEA, _TEXT)
_HOLDING: Final = _statement("resilience_holding", _BYTEA, _INT4, _INT4, select="SELECT * FROM")


class Question(NamedTuple, Generic[Answer]):
    """A statement with its values, and how to read what comes back."""

    statement: Statement
    values: tuple[bytes, ...]
    read: Callable[[PGresult], Answer]


class Questions:
    """Makes the questions of one store.

    Args:
        patience: Milliseconds that the server may wait for a lock.

    Threads may share it.
    """

    def __init__(self, patience: int) -> None:
        self._patience = str(patience).encode()

    def take(self, charges: Sequence[Charge], token: bytes) -> Question[list[Decision]]:
        """Return the question of `Engine.take`."""
        if len(charges) > 1:
            return self._take_all(charges, token[:_TOKEN])
        (charge,) = charges
        figures = _figures_of(charge.counter)
        values = (
            figures.scope,
            _packed_key(charge.key),
            figures.units,
            figures.step,
            figures.horizon,
            _ONE if charge.cost == 1 else _packed_cost(charge),
            token[:_TOKEN],
            self._patience,
        )

        def read(result: PGresult) -> list[Decision]:
            return [_decision(charge, figures, result, 0)]

        return Question(figures.take, values, read)

    def _take_all(self, charges: Sequence[Charge], token: bytes) -> Question[list[Decision]]:
        order = _order(charges)
        batch = _Batch([charges[at] for at in order])

        def read(result: PGresult) -> list[Decision]:
            decisions = {
                at: _decision(charge, figures, result, row)
                for row, (at, charge, figures) in enumerate(
                    zip(order, batch.charges, batch.figures, strict=True)
                )
            }
            return [decisions[at] for at in range(len(charges))]

        values = (
            batch.scopes,
            batch.keys,
            batch.algorithms,
            _array(_INT8, [figures.units for figures in batch.figures]),
            batch.steps,
            batch.horizons,
            batch.costs,
            token,
            self._patience,
        )
        return Question(_TAKE_ALL, values, read)

    def peek(self, charges: Sequence[Charge]) -> Question[list[Decision]]:
        """Return the question of `Engine.peek`."""
        batch = _Batch(charges)

        def read(result: PGresult) -> list[Decision]:
            answers = [_bigints(_value(result, row, 0)) for row in range(len(charges))]
            states = [
                figures.state(state) if state else None
                for figures, (_, *state) in zip(batch.figures, answers, strict=True)
            ]
            return foreseen(charges, states, answers[0][0])

        return Question(_PEEK, (batch.scopes, batch.keys, batch.algorithms, batch.horizons), read)

    def refund(self, charges: Sequence[Charge], receipts: Sequence[int], token: bytes) -> Question[None]:
        """Return the question of `Engine.refund`."""
        order = _order(charges)
        batch = _Batch([charges[at] for at in order])
        given = [
            _BIGINT.pack(receipts[at] + figures.saved)
            for at, figures in zip(order, batch.figures, strict=True)
        ]
        values = (
            batch.scopes,
            batch.keys,
            batch.algorithms,
            batch.steps,
            batch.costs,
            _array(_INT8, given),
            token[:_TOKEN],
            self._patience,
        )
        return Question(_REFUND, values, _nothing)

    def reset(self, counters: Sequence[Counter], key: str | bytes) -> Question[None]:
        """Return the question of `Engine.reset`."""
        scopes = sorted(_figures_of(counter).scope for counter in counters)
        return Question(_RESET, (_array(_BYTEA, scopes), _packed_key(key), self._patience), _nothing)

    @staticmethod
    def holding(counter: Counter, shown: int) -> Question[Holding]:
        """Return the question what is held for one counter, with at most `shown` entries."""
        figures = _figures_of(counter)

        def read(result: PGresult) -> Holding:
            entries: list[Entry] = []
            for row in range(min(shown, result.ntuples)):
                now, state = _number(result, row, 1), figures.state(_bigints(_value(result, row, 3)))
                left = (counter.rules.whole_at(state, now) - now) / 1e9
                key = _unpacked_key(_value(result, row, 2))
                entries.append(Entry(counter, key, counter.rules.remaining(state, now), left))
            return Holding(_number(result, 0, 0) if result.ntuples else 0, tuple(entries))

        # The number of all comes with each row, so there must be one.
        values = (figures.scope, _INT.pack(MOST_COUNTED), _INT.pack(max(1, shown)))
        return Question(_HOLDING, values, read)


class _Figures:
    """A counter as the server is told of it."""

    __slots__ = ("algorithm", "horizon", "saved", "scope", "state", "step", "take", "units")

    def __init__(self, counter: Counter) -> None:
        rules, quota = counter.rules, counter.quota
        self.scope = counter.scope.encode("utf-8", "surrogatepass")
        self.units = _BIGINT.pack(quota.limit)
        self.horizon = _BIGINT.pack(rules.horizon)
        self.saved = 0
        """By how much the server's instant is later than that of `rules`: gcra's is when all is whole."""
        step = 0
        self.state: Callable[[Sequence[int]], State]
        if isinstance(rules, Gcra):
            step = rules.horizon // quota.limit
            self.algorithm = b"gcra"
            self.saved = saved = rules.horizon - step
            self.state = lambda kept: kept[0] - saved
        elif isinstance(rules, FixedWindow):
            self.algorithm = b"fixed-window"
            self.state = lambda kept: kept[0] * (quota.limit + 1) + kept[1]
        elif isinstance(rules, SlidingLog):
            self.algorithm = b"sliding-log"
            self.state = _log
        else:
            step = rules.horizon - round(quota.per * 1e9)
            self.algorithm = b"sliding-counts"
            self.state = lambda kept: rules.unpack(_counts(kept))
        self.step = _BIGINT.pack(step)
        self.take = _TAKE[self.algorithm]


class _Batch:
    """Several charges as arrays."""

    def __init__(self, charges: Sequence[Charge]) -> None:
        self.charges = charges
        self.figures = [_figures_of(charge.counter) for charge in charges]
        self.scopes = _array(_BYTEA, [figures.scope for figures in self.figures])
        self.keys = _array(_BYTEA, [_packed_key(charge.key) for charge in charges])
        self.algorithms = _array(_TEXT, [figures.algorithm for figures in self.figures])
        self.steps = _array(_INT8, [figures.step for figures in self.figures])
        self.horizons = _array(_INT8, [figures.horizon for figures in self.figures])
        self.costs = _array(_INT8, [_packed_cost(charge) for charge in charges])


_figures: dict[str, _Figures] = {}


def _figures_of(counter: Counter) -> _Figures:
    """Return the figures of a counter, made once.

    Safe without a lock: each step on the dict is one step, and what two threads make for one scope is equal.
    """
    figures = _figures.get(counter.scope)
    if figures is None:
        if len(_figures) >= _MOST_FIGURES:
            _figures.clear()
        figures = _figures[counter.scope] = _Figures(counter)
    return figures


def _order(charges: Sequence[Charge]) -> list[int]:
    """Return the order in which rows are locked: the same for all, so that none waits for one that waits."""
    places = [(_figures_of(charge.counter).scope, _packed_key(charge.key)) for charge in charges]
    return sorted(range(len(charges)), key=places.__getitem__)


# --- values --------------------------------------------------------------------------------------


def _packed_key(key: str | bytes) -> bytes:
    return b"t" + key.encode() if isinstance(key, str) else b"b" + key


def _unpacked_key(packed: bytes) -> str | bytes:
    return packed[1:].decode() if packed[:1] == b"t" else packed[1:]


def _packed_cost(charge: Charge) -> bytes:
    """Return the cost; of any that never fits the least, since a bigint does not hold all there are."""
    return _BIGINT.pack(min(charge.cost, charge.counter.quota.limit + 1))


def _array(kind: int, items: Sequence[bytes]) -> bytes:
    """Return an array of one dimension, without nulls."""
    parts = [pack(">5i", 1, 0, kind, len(items), 1)]
    for item in items:
        parts += (_INT.pack(len(item)), item)
    return b"".join(parts)


# --- results -------------------------------------------------------------------------------------

_HEADER: Final = 20
_ITEM: Final = 12
"""An array has a header, and before each bigint the number of its bytes."""


def _decision(charge: Charge, figures: _Figures, result: PGresult, row: int) -> Decision:
    taken, now, *kept = _bigints(_value(result, row, 0))
    return Decision((taken == 1, figures.state(kept) if kept else None, now, charge.cost, charge.counter))


def _nothing(_: PGresult) -> None:
    """Read the result of a function that returns none."""


def _value(result: PGresult, row: int, column: int) -> bytes:
    value = result.get_value(row, column)
    if value is None:
        raise ValueError(f"column {column} of the answer is null")
    return value


def _number(result: PGresult, row: int, column: int) -> int:
    return int.from_bytes(_value(result, row, column), "big")


def _bigints(packed: bytes) -> tuple[int, ...]:
    count = (len(packed) - _HEADER) // _ITEM
    return unpack_from(">" + "4xq" * count, packed, _HEADER)


def _log(kept: Sequence[int]) -> bytes:
    """Return the state of `SlidingLog`, which has the newest last."""
    return pack(f">{len(kept)}q", *reversed(kept))


def _counts(kept: Sequence[int]) -> bytes:
    """Return the packed state of `SlidingCounts`: the units in all, and the parts with the newest last."""
    *parts, total = kept
    pairs = [number for at in range(len(parts) - 2, -1, -2) for number in parts[at : at + 2]]
    return pack(f">{len(kept)}q", total, *pairs)
