"""Which failures are worth another attempt, and which of them are safe to repeat whatever the call does.

Rules:
    - Only what is known to be transient is. Cancellation, programming errors, refused certificates, wrong
      passwords and our own open breaker never are, nor is anything that is not an `Exception`.
    - The nearest class that the tables name decides (`resilience._core.taxonomy`, printed in
      `docs/transient.md`), by itself or by a code that its instances carry.
    - An exception without any sign of its own is judged by its cause (`raise … from …`), and only then by
      words in its message. What was merely being handled when it was raised (`__context__`) makes nothing
      transient: a clean-up that fails during a timeout is not a timeout.
    - A group is transient if every leaf is.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any, Final, TypeVar

from resilience import fork
from resilience._core import signs, taxonomy
from resilience._core.retry_after import LONGEST, parse_retry_after
from resilience._core.taxonomy import Failure, Rule
from resilience.callables import Kind, MisuseError, kind_of
from resilience.errors import CircuitOpenError, DeadlineExceeded, TimeoutExceeded

if TYPE_CHECKING:
    from collections.abc import Callable

    Reader = Callable[[Any], Failure | None]

_E = TypeVar("_E", bound=Exception)

_NEVER_RETRIED: Final = (CircuitOpenError, DeadlineExceeded, MisuseError)

_DEEPEST: Final = 32
"""How many causes and nested groups are followed."""

_MOST_TYPES: Final = 1024
"""How many classes are remembered with their rule, so that classes made on the fly do not pile up."""


def is_never_retried(cls: type[BaseException]) -> bool:
    """Whether no retry repeats what raised a `cls`, whatever it is told.

    Nor does one repeat what `concurrent.futures` raises for a cancellation.
    """
    return issubclass(cls, _NEVER_RETRIED) and not issubclass(cls, TimeoutExceeded)


def is_transient(exc: BaseException) -> bool:
    """Return whether the call that raised `exc` may well succeed a little later.

    Example:
        >>> is_transient(ConnectionResetError()), is_transient(FileNotFoundError())
        (True, False)
    """
    rule = _rules.get(type(exc))
    if isinstance(rule, Failure):
        return rule.transient
    return classify(exc).transient


def classify(exc: BaseException) -> Failure:
    """Return what `exc` says about another attempt, and what told.

    Any thread may call it. It raises nothing but what a registered function raises.

    Example:
        >>> classify(ConnectionRefusedError())
        Failure(transient=True, may_be_processed=False, reason='ConnectionRefusedError')
        >>> classify(KeyError("timeout"))
        Failure(transient=False, may_be_processed=True, reason='KeyError')
    """
    rule = _rule_of(type(exc))
    if isinstance(rule, Failure):
        return rule
    return _Inquiry().judge(exc) or Failure(False, True, "no sign of a transient failure")


def retry_after_of(outcome: object, wall_now: float) -> float | None:
    """Return the seconds that an outcome asks to wait before another try.

    It looks for an attribute `retry_after` (seconds, a `timedelta`, or the text of a header), then for the
    header Retry-After of a response, the outcome itself or one that it carries, then for a gRPC server's
    pushback; and if there is none, in what the exception wraps. Of a group it is the longest.

    Args:
        outcome: What a call raised or returned; anything.
        wall_now: Unix seconds; what a date is counted from.

    Returns:
        Seconds, from 0 to `LONGEST` (six hours); None where nothing is asked, or nothing that makes sense.

    Example:
        >>> from resilience.errors import RateLimitedError, ServiceError
        >>> retry_after_of(ServiceError(retry_after=2), wall_now=0.0)
        2.0
    """
    longest = _asked(outcome, wall_now)
    if longest is not None or not isinstance(outcome, BaseException):
        return longest
    todo = [*signs.below(outcome)]
    seen = {id(outcome)}
    while todo:
        exc = todo.pop()
        asked = _asked(exc, wall_now)
        if asked is not None:
            longest = asked if longest is None else max(asked, longest)
        elif id(exc) not in seen:
            seen.add(id(exc))
            todo += signs.below(exc)
    return longest


def _asked(thing: object, wall_now: float) -> float | None:
    """Return the seconds that this one object asks to wait."""
    value = signs.attribute(thing, "retry_after")
    asked = None if value is None else _seconds(value, wall_now)
    if asked is None:
        text = signs.header(thing, "retry-after")
        asked = None if text is None else parse_retry_after(text, wall_now)
    if asked is None:
        pushback = signs.grpc_metadata(thing, "grpc-retry-pushback-ms")
        if pushback is not None and pushback.isdecimal():
            return min(float(pushback) / 1000, LONGEST)
    return asked


def _seconds(value: Any, wall_now: float) -> float | None:
    """Return the seconds that an attribute `retry_after` means: a number, a `timedelta`, a header's text."""
    if isinstance(value, str):
        return parse_retry_after(value, wall_now)
    # Where nobody has loaded `datetime`, nobody has made a `timedelta`.
    timedelta: Any = getattr(sys.modules.get("datetime"), "timedelta", ())
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:  # NaN is not
        return float(min(value, LONGEST))
    return None


# --- what applications add -----------------------------------------------------------------------


class _Registry:
    """The rules that applications have added. The dictionary is replaced, never changed."""

    def __init__(self) -> None:
        self.rules: dict[type[BaseException], Failure | Reader] = {}
        fork.survive_fork(self)

    def after_fork(self) -> None:
        """Make the lock anew."""
        self._lock = threading.RLock()

    def add(self, cls: type[Exception], rule: Failure | Reader) -> None:
        """Let `rule` decide for `cls`."""
        with self._lock:
            self.rules = {**self.rules, cls: rule}
            _forget_rules()

    def remove(self, cls: type[Exception], rule: Failure | Reader) -> None:
        """Take `rule` back, unless another has taken its place."""
        with self._lock:
            if self.rules.get(cls) is rule:
                self.rules = {other: its for other, its in self.rules.items() if other is not cls}
                _forget_rules()


def register(
    cls: type[_E],
    *,
    transient: bool | Callable[[_E], bool | Failure | None],
    may_be_processed: bool = True,
) -> Callable[[], None]:
    """Say for this process whether failures of a class, and of its subclasses, are transient.

    It wins over the tables for that class and its bases; a nearer class keeps its own rule. Registering a
    class again replaces what was registered before. Any thread may call it, at any time.

    Args:
        cls: A subclass of `Exception`.
        transient: Whether; or a plain function of the exception that says so. The function may also return a
            whole `Failure`, or None where it cannot tell: then attributes, cause and message do. What it
            raises reaches the caller of `is_transient`.
        may_be_processed: Whether the other side may have carried the call out.

    Returns:
        A function that takes the registration back; calling it again does nothing.

    Raises:
        TypeError: `cls` is no subclass of `Exception` (what is not, such as cancellation, is never retried)
            or one of those that are never retried, or `transient` neither a bool nor a plain function.

    Example:
        >>> class Locked(Exception): ...
        >>> undo = register(Locked, transient=True, may_be_processed=False)
        >>> is_transient(Locked())
        True
        >>> undo()
    """
    if not (isinstance(cls, type) and issubclass(cls, Exception)):  # type: ignore[redundant-expr]  # pyright: ignore[reportUnnecessaryIsInstance] - not everyone checks types
        raise TypeError(f"{cls!r} is not a subclass of Exception: nothing else is ever transient")
    cancelled = getattr(sys.modules.get("concurrent.futures"), "CancelledError", ())
    if is_never_retried(cls) or issubclass(cls, cancelled):
        raise TypeError(f"{cls!r} is never retried, whatever is registered: catch it, and raise what may be")
    rule: Failure | Reader
    if callable(transient) and kind_of(transient) is Kind.SYNC:
        rule = _reader(cls.__name__, transient, may_be_processed)
    elif isinstance(transient, bool):  # pyright: ignore[reportUnnecessaryIsInstance] - likewise
        rule = Failure(transient, may_be_processed, cls.__name__)
    else:
        raise TypeError(f"transient must be True, False or a plain function, not {transient!r}")
    _registry.add(cls, rule)
    return lambda: _registry.remove(cls, rule)


def _reader(name: str, decide: Callable[[Any], bool | Failure | None], may_be_processed: bool) -> Reader:
    def read(exc: Any) -> Failure | None:
        verdict = decide(exc)
        if verdict is None:
            return signs.by_attributes(exc)
        return verdict if isinstance(verdict, Failure) else Failure(bool(verdict), may_be_processed, name)

    return read


# --- which rule is a class's ---------------------------------------------------------------------

_BY_TYPE: Final = {
    Rule.NEVER: (False, True),
    Rule.UNPROCESSED: (True, False),
    Rule.PROCESSED: (True, True),
}
"""The rules that do not ask the instance: transient, may be processed."""

# The rule of a type is found once and remembered: a verdict where the type alone decides, else what to ask
# the instance. No lock is needed, with or without a GIL: a rule depends on the type and on the registrations
# only, so two threads that miss at once write the same. A registration replaces this dictionary after the
# other one; `_rule_of` takes hold of it before it reads the registrations, so what an old registration said
# is written into the old dictionary, which nobody reads again.
_rules: dict[type[BaseException], Failure | Reader | Rule] = {}


def _forget_rules() -> None:
    global _rules  # noqa: PLW0603 - replaced, never emptied: see above
    _rules = {}


def _rule_of(cls: type[BaseException]) -> Failure | Reader | Rule:
    rules = _rules
    rule = rules.get(cls)
    if rule is None:
        rule = _find_rule(cls, _registry.rules)
        if len(rules) >= _MOST_TYPES:
            rules.clear()
        rules[cls] = rule
    return rule


def _find_rule(
    cls: type[BaseException], registered: dict[type[BaseException], Failure | Reader]
) -> Failure | Reader | Rule:
    """Walk the method resolution order to the first class that is registered or in the tables."""
    for base in cls.__mro__ if issubclass(cls, Exception) else ():
        if base in registered:
            return registered[base]
        package = str(base.__module__).partition(".")[0]
        rule = taxonomy.TYPES.get(package, {}).get(base.__name__)
        if rule in _BY_TYPE:
            return Failure(*_BY_TYPE[rule], _name(cls))
        if rule is not None:
            return signs.READERS.get(rule, rule)
    return Failure(False, True, _name(cls))  # BaseException only: never the business of a retry


def _name(cls: type[BaseException]) -> str:
    package = str(cls.__module__).partition(".")[0]
    return cls.__name__ if package == "builtins" else f"{package}.{cls.__name__}"


# --- what lies below an exception ----------------------------------------------------------------


class _Inquiry:
    """One look at an exception and what lies below it: each is judged once, none deeper than `_DEEPEST`."""

    __slots__ = ("_depth", "_verdicts")

    def __init__(self) -> None:
        # By id, which is safe here: all of them are held by the first. An exception is entered before its
        # verdict is known, which is what ends a cycle.
        self._verdicts: dict[int, Failure | None] = {}
        self._depth = 0

    def judge(self, exc: BaseException | None) -> Failure | None:
        """Return the verdict on `exc`, or None where nothing tells."""
        if exc is None:
            return None
        rule = _rule_of(type(exc))
        if isinstance(rule, Failure):
            return rule
        if id(exc) not in self._verdicts and self._depth < _DEEPEST:
            self._verdicts[id(exc)] = None
            self._depth += 1
            own = _ASKS_BELOW[rule](self, exc) if isinstance(rule, Rule) else rule(exc)
            self._verdicts[id(exc)] = own or self.judge(exc.__cause__) or signs.by_message(exc)
            self._depth -= 1
        return self._verdicts.get(id(exc))

    def group(self, group: BaseExceptionGroup[Exception]) -> Failure:
        """Judge a group: transient if every leaf is, perhaps processed if any leaf is."""
        verdicts = [self.judge(leaf) for leaf in group.exceptions]
        transient = [verdict for verdict in verdicts if verdict is not None and verdict.transient]
        if len(transient) < len(verdicts):
            count = len(verdicts) - len(transient)
            return Failure(False, True, f"{count} of {len(verdicts)} in the group not transient")
        reasons = ", ".join(dict.fromkeys(verdict.reason for verdict in transient))
        return Failure(True, any(verdict.may_be_processed for verdict in transient), reasons)

    def wrapped(self, exc: BaseException) -> Failure | None:
        """Judge a wrapper by what it wraps; a connection that SQLAlchemy gave up was lost."""
        inner = signs.wrapped(exc)
        below = self.judge(inner)
        lost = signs.attribute(exc, "connection_invalidated") is True and signs.by_sqlstate(inner) is None
        if lost and (below is None or not below.transient):
            return Failure(True, True, "connection invalidated")
        return below

    def connect(self, exc: BaseException) -> Failure:
        """Judge a client's failure to connect."""
        return self._refusal(exc) or Failure(True, False, _name(type(exc)))

    def transport(self, exc: BaseException) -> Failure:
        """Judge a client's connection error, which may have come before or after the request was sent."""
        refusal = self._refusal(exc)
        if refusal:
            return refusal
        below = self.judge(signs.wrapped(exc))
        unprocessed = below is not None and below.transient and not below.may_be_processed
        return Failure(True, not unprocessed, _name(type(exc)))

    def _refusal(self, exc: BaseException) -> Failure | None:
        """Find a refused name or certificate below; there, what was being handled counts as well."""
        link = exc
        for _ in range(_DEEPEST):
            below = signs.wrapped(link)
            if below is None and not link.__suppress_context__:
                below = link.__context__
            if below is None:
                break
            if any((base.__module__, base.__name__) in taxonomy.REFUSALS for base in type(below).__mro__):
                verdict = self.judge(below)
                return None if verdict is None or verdict.transient else verdict
            link = below
        return None


_ASKS_BELOW: Final[dict[Rule, Callable[[_Inquiry, Any], Failure | None]]] = {
    Rule.GROUP: _Inquiry.group,
    Rule.WRAPPED: _Inquiry.wrapped,
    Rule.CONNECT: _Inquiry.connect,
    Rule.TRANSPORT: _Inquiry.transport,
}
"""The rules that ask what lies below the instance."""

_registry: Final = _Registry()
