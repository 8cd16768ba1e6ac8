"""What is asked of Redis, and what its answers mean: commands and decisions, without any I/O.

Redis counts in whole microseconds, and keeps states in few bytes; a `Decision` is worked out by the rules of
the house, in nanoseconds. So each counter has a `Form` here: the same limiter and quota, with windows and
paces rounded up to a microsecond, and with rules that read what Redis keeps. Figures are worked out from it
only when they are asked for.

A key is called `PREFIX:LIMITER: QUOTA:{KEY}`. What is in braces decides the slot of a Cluster, so whatever
counts for one key lies in one slot; a prefix with braces of its own, such as `{limits}`, brings all keys into
one. Names of limiters cannot hold braces (they are written as %7B and %7D), so no key of one limiter can be
spelt like a key of another. Text is UTF-8; keys that are bytes begin with a byte that UTF-8 never has.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from redis.crc import key_slot

from resilience._core.fixed import FixedWindow
from resilience._core.gcra import Gcra
from resilience._core.quota import Decision
from resilience._core.sliding import EXACT_UP_TO, SlidingCounts, SlidingLog
from resilience.stores import StoreUnavailable
from resilience.stores.redis import scripts
from resilience.stores.redis.wire import packed, pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from resilience._core.counting import Charge, Counter, State
    from resilience.stores.redis.scripts import Script

_PREFIX: Final = re.compile(r"[^{}]*(\{[^{}]+\}[^{}]*)?")
_NOT_TEXT: Final = b"\xff"
_TEXT: Final = b"\xfe"
_EMPTY_BRACES: Final = (b"", b"}")
"""What text may not begin with, or the braces around it would be empty, and then they decide nothing."""
_PARTS: Final = 63
_MOST_FORMS: Final = 10_000
"""Forms that are kept ready; a service has a few limiters."""


class Request(NamedTuple):
    """One script to run."""

    script: Script
    command: bytes
    key: bytes
    """Its first key: all its keys lie in the slot of this one."""


class Form:
    """One counter as Redis counts it."""

    __slots__ = ("counter", "figures", "head", "letter", "script", "take_one")

    def __init__(self, prefix: bytes, counter: Counter) -> None:
        window = -(-round(counter.quota.per * 1e9) // 1000)
        limit = counter.quota.limit
        part = 0
        rules: FixedWindow | Gcra | SlidingCounts | SlidingLog
        read: Callable[[bytes], State]
        if counter.quota.algorithm == "gcra":
            if limit > window:
                raise ValueError(
                    f"{counter.limiter!r} allows {counter.quota}, and Redis cannot pace more than a unit a "
                    "microsecond: choose a smaller limit, or another algorithm"
                )
            self.letter, part = b"g", -(-window // limit)
            window = (limit - 1) * part
            rules, read = Gcra(limit, limit * part * 1000), _read_gcra
        elif counter.quota.algorithm == "fixed-window":
            self.letter = b"f"
            rules, read = FixedWindow(limit, window * 1000), _fixed_window_reader(limit)
        elif limit <= EXACT_UP_TO:
            self.letter = b"l"
            rules, read = SlidingLog(limit, window * 1000), _read_log
        else:
            self.letter, part = b"c", -(-window // _PARTS)
            rules = SlidingCounts(limit, window * 1000)
            read = _counts_reader(rules)
        self.figures = _number(limit) + _number(window) + _number(part)
        """Limit, window and part, as the scripts have them."""
        self.script = scripts.TAKE_ONE[self.letter.decode()]
        self.take_one = b"*10\r\n" + pieces(b"EVALSHA", self.script.sha, b"2")
        """What the command to take one charge begins with."""
        as_kept: Any = _AsKept(rules, read)
        self.counter = counter._replace(rules=as_kept)
        name = counter.scope.replace("%", "%25").replace("{", "%7B").replace("}", "%7D")
        self.head = b"%b:%b:{" % (prefix, name.encode("utf-8", "backslashreplace"))
        """What the names of this counter's keys begin with, and of no other's."""

    def name(self, key: str | bytes) -> bytes:
        """Return what `key` is called on the server."""
        return b"%b%b}" % (self.head, _encoded(key))

    def key(self, name: bytes) -> str | bytes:
        """Return the key that is called so."""
        encoded = name[len(self.head) : -1]
        return encoded[1:] if encoded.startswith(_NOT_TEXT) else encoded.removeprefix(_TEXT).decode()

    @property
    def pattern(self) -> bytes:
        """The pattern that the names of this counter's keys match."""
        return re.sub(rb"([*?\[\]\\^])", rb"\\\1", self.head) + b"*"


class _AsKept:
    """An algorithm that reads the states that Redis keeps; it answers what a decision asks."""

    __slots__ = ("_read", "_rules")

    def __init__(self, rules: Any, read: Callable[[bytes], State]) -> None:
        self._rules = rules
        self._read = read

    def _state(self, kept: bytes) -> State | None:
        return self._read(kept) if kept else None

    def admit(self, kept: bytes, now: int, cost: int) -> Any:
        return self._rules.admit(self._state(kept), now, cost)

    def remaining(self, kept: bytes, now: int) -> Any:
        return self._rules.remaining(self._state(kept), now)

    def fits_at(self, kept: bytes, now: int, cost: int) -> Any:
        return self._rules.fits_at(self._state(kept), now, cost)

    def whole_at(self, kept: bytes, now: int) -> Any:
        return self._rules.whole_at(self._state(kept), now)

    def receipt(self, kept: bytes) -> Any:
        return self._rules.receipt(self._state(kept))


def _read_gcra(kept: bytes) -> int:
    return int.from_bytes(kept, "big", signed=True) * 1000


def _read_log(kept: bytes) -> bytes:
    return b"".join([_nanoseconds(kept, at).to_bytes(8, "big") for at in range(0, len(kept), 7)])


def _counts_reader(rules: SlidingCounts) -> Callable[[bytes], State]:
    def read(kept: bytes) -> State:
        parts = [
            _nanoseconds(kept, at).to_bytes(8, "big") + b"\0\0\0\0" + kept[at + 7 : at + 11]
            for at in range(4, len(kept), 11)
        ]
        return rules.unpack(b"\0\0\0\0" + kept[:4] + b"".join(parts))

    return read


def _fixed_window_reader(limit: int) -> Callable[[bytes], State]:
    def read(kept: bytes) -> State:
        return _nanoseconds(kept, 0) * (limit + 1) + int.from_bytes(kept[7:], "big")

    return read


def _nanoseconds(kept: bytes, at: int) -> int:
    return int.from_bytes(kept[at : at + 7], "big") * 1000


def _encoded(key: str | bytes) -> bytes:
    if isinstance(key, bytes):
        return _NOT_TEXT + key
    text = key.encode()
    return text if text[:1] not in _EMPTY_BRACES else _TEXT + text


class Codec:
    """Commands and answers for the keys under one prefix.

    Raises:
        ValueError: The prefix has braces that would put the keys of one decision into different slots.
    """

    def __init__(self, prefix: str) -> None:
        if not isinstance(prefix, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers without a type checker
            raise TypeError(f"prefix must be a string, not {prefix!r}")
        if not prefix or not _PREFIX.fullmatch(prefix):
            raise ValueError(
                f"prefix must not be empty, and may have one pair of braces with text in it, not {prefix!r}"
            )
        self._prefix = prefix.encode()
        self._forms: dict[str, Form] = {}

    def form(self, counter: Counter) -> Form:
        """Return `counter` as Redis counts it.

        Raises:
            ValueError: Its pace is finer than a microsecond.
        """
        form = self._forms.get(counter.scope)
        if form is None:
            if len(self._forms) >= _MOST_FORMS:
                self._forms.clear()
            form = self._forms[counter.scope] = Form(self._prefix, counter)
        return form

    def take(self, charges: Sequence[Charge], token: bytes, life: int) -> Request:
        """Return the request to take `charges`, all or none; `token` lives for `life` milliseconds."""
        if len(charges) > 1:
            figures = [
                (self.form(charge.counter), charge.key, _number(charge.cost) + _number(0))
                for charge in charges
            ]
            return self._of_several(scripts.TAKE, figures, self._token(b"t", charges[0].key, token), life)
        [(counter, key, cost)] = charges
        form = self.form(counter)
        encoded = _encoded(key)
        name = b"%b%b}" % (form.head, encoded)
        once = b"%b:{%b}t%b" % (self._prefix, encoded, token)
        command = b"%b$%d\r\n%b\r\n$%d\r\n%b\r\n%b%b%b" % (
            form.take_one, len(name), name, len(once), once, _number(life), _number(cost), form.figures
        )  # fmt: skip
        return Request(form.script, command, name)

    def take_without_token(self, charge: Charge) -> Request:
        """Return the request to take one charge, which must not be repeated."""
        form = self.form(charge.counter)
        name = form.name(charge.key)
        begin = b"*9\r\n" + pieces(b"EVALSHA", form.script.sha, b"1", name)
        return Request(form.script, begin + _number(0) + _number(charge.cost) + form.figures, name)

    def peek(self, places: Sequence[tuple[Counter, str | bytes]]) -> Request:
        """Return the request for the states of these keys."""
        none = _number(0) + _number(0)
        figures = [(self.form(counter), key, none) for counter, key in places]
        return self._of_several(scripts.PEEK, figures, None, None)

    def refund(self, charges: Sequence[Charge], receipts: Sequence[int], token: bytes, life: int) -> Request:
        """Return the request to give `charges` back once, however often it is sent."""
        return self._back(scripts.REFUND, charges, receipts, self._token(b"r", charges[0].key, token), life)

    def undo(self, charges: Sequence[Charge], receipts: Sequence[int], token: bytes) -> Request:
        """Return the request to give back what was taken with `token`, as if that had never been sent."""
        return self._back(scripts.UNDO, charges, receipts, self._token(b"t", charges[0].key, token), 0)

    def _back(
        self, script: Script, charges: Sequence[Charge], receipts: Sequence[int], once: bytes, life: int
    ) -> Request:
        figures = [
            (self.form(charge.counter), charge.key, _number(charge.cost) + _number(receipt // 1000))
            for charge, receipt in zip(charges, receipts, strict=True)
        ]
        return self._of_several(script, figures, once, life)

    def _of_several(
        self,
        script: Script,
        figures: Sequence[tuple[Form, str | bytes, bytes]],
        once: bytes | None,
        life: int | None,
    ) -> Request:
        names = [form.name(key) for form, key, _ in figures]
        keys = names if once is None else [*names, once]
        arguments = [b"$1\r\n%b\r\n%b%b" % (form.letter, form.figures, rest) for form, _, rest in figures]
        count = 3 + len(keys) + 6 * len(figures)
        if life is not None:
            arguments.insert(0, _number(life))
            count += 1
        head = pieces(b"EVALSHA", script.sha, b"%d" % len(keys), *keys)
        return Request(script, b"*%d\r\n%b%b" % (count, head, b"".join(arguments)), names[0])

    def _token(self, kind: bytes, key: str | bytes, token: bytes) -> bytes:
        """Return the name of a token in the slot of `key`; no counter's keys can be called so."""
        return b"%b:{%b}%b%b" % (self._prefix, _encoded(key), kind, token)

    def taken(self, charges: Sequence[Charge], reply: bytes) -> list[Decision]:
        """Return the decisions that `take` was answered with.

        Raises:
            StoreUnavailable: No script of ours answers like that.
        """
        now = int.from_bytes(reply[:7], "big") * 1000
        decisions: list[Decision] = []
        at = 7
        for counter, _, cost in charges:
            fits = reply[at : at + 1] == b"\1"
            begins = at + 3
            ends = begins + int.from_bytes(reply[at + 1 : begins], "big")
            decisions.append(Decision((fits, reply[begins:ends], now, cost, self.form(counter).counter)))
            at = ends
        if at != len(reply):
            raise StoreUnavailable(
                f"what answered is no Redis, or something in between changes its replies: {reply[:40]!r}"
            )
        return decisions

    def foreseen(self, charges: Sequence[Charge], reply: bytes) -> list[Decision]:
        """Return the decisions that `take` would come to, by what `peek` was answered."""
        return [
            Decision((counter.rules.admit(state, now, cost) is not None, state, now, cost, counter))
            for _, state, now, cost, counter in self.taken(charges, reply)
        ]


@lru_cache(maxsize=1024)
def _number(number: int) -> bytes:
    """Return a number as an argument of a command; the same few are sent all the time."""
    return pieces(b"%d" % number)


def load(script: Script) -> bytes:
    """Return the command that makes a script known to the server."""
    return packed(b"SCRIPT", b"LOAD", script.source)


def slot(name: bytes) -> int:
    """Return the Cluster slot of a key."""
    return int(key_slot(name))
