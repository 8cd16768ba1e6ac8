"""What a pipeline is told about one call, beside the function and its arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, Unpack, cast

from resilience._core.criticality import Criticality
from resilience._core.key import canonical
from resilience.callables import Kind, kind_of
from resilience.checks import count, number

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    Key = str | int
    Keys = Key | tuple[Key, ...]
    KeyFunction = Callable[..., Keys]


class CallOptions(TypedDict, total=False):
    """What may be said about a call; `Context` says what each means."""

    key: Keys | KeyFunction | None
    cost: int
    deadline: float | None
    idempotent: bool | None
    criticality: Criticality | str | None


class Context(NamedTuple):
    """What holds for one call, or for all calls of one decorated function; frozen."""

    key: tuple[Key, ...] | KeyFunction = ()
    """For whom it is: what limiters count under and registries keep a breaker for. Or a function of the
    call's arguments that returns that."""
    cost: int = 1
    """Units that limiters charge."""
    deadline: float | None = None
    """Seconds for the whole call."""
    idempotent: bool | None = None
    """Whether it may be repeated if it has perhaps been processed; None leaves it to the retries."""
    criticality: Criticality | None = None
    """How much it matters, to bulkheads and load shedders."""

    def changed(self, **changes: Unpack[CallOptions]) -> Context:
        """Return a context with these changes.

        Raises:
            TypeError, ValueError: A change is of the wrong kind, or out of its range.

        Example:
            >>> Context().changed(key="ada", cost=2)[:2]
            (('ada',), 2)
        """
        checked = {name: _CHECKS[name](value) for name, value in changes.items() if name in _CHECKS}
        unknown = sorted(changes.keys() - checked.keys())
        if unknown:
            raise TypeError(f"a call has no {', '.join(unknown)}: it may have {', '.join(_CHECKS)}")
        return self._replace(**checked)

    def parts(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Key, ...]:
        """Return the parts of the key of a call with these arguments."""
        key = self.key
        if not callable(key):
            return key
        found: Any = key(*args, **kwargs)
        return cast("tuple[Key, ...]", found) if isinstance(found, tuple) else (found,)

    def own(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Hashable:
        """Return the key of a call with these arguments as one that a mapping may hold."""
        parts = self.parts(args, kwargs)
        canonical(parts)  # refuses a missing identity, which would share with all others that are missing
        return parts[0] if len(parts) == 1 else parts


def _checked_key(key: Any) -> Any:
    if key is None:
        return ()
    if callable(key):
        if kind_of(key) is not Kind.SYNC:
            raise TypeError(f"key={key!r} is a {kind_of(key).value}: pass a plain function of the arguments")
        return key
    parts = key if isinstance(key, tuple) else (key,)  # pyright: ignore[reportUnknownVariableType] - of anything
    canonical(parts)  # pyright: ignore[reportUnknownArgumentType] - which refuses what identifies nobody
    return parts  # pyright: ignore[reportUnknownVariableType] - of str and int


def _checked_flag(idempotent: Any) -> Any:
    if idempotent is not None and not isinstance(idempotent, bool):
        raise TypeError(f"idempotent={idempotent!r} must be True, False or None")
    return idempotent


_CHECKS: Mapping[str, Callable[[Any], Any]] = {
    "key": _checked_key,
    "cost": lambda cost: count("cost", cost, least=1),
    "deadline": lambda seconds: None if seconds is None else number("deadline", seconds, least=0),
    "idempotent": _checked_flag,
    "criticality": lambda level: None if level is None else Criticality.of(level),
}
