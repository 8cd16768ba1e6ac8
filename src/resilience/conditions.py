"""Which exceptions a setting such as `record_on` means: types, predicates, or a tuple of either."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final, cast

from resilience.callables import Kind, MisuseError, kind_of
from resilience.errors import BulkheadFullError, CircuitOpenError, OverloadedError, RateLimitedError

if TYPE_CHECKING:
    from collections.abc import Callable

    Condition = type[BaseException] | Callable[[Any], bool] | tuple["Condition", ...]
    """An exception type, a predicate of an exception, or a tuple of either."""


REJECTIONS: Final = (BulkheadFullError, CircuitOpenError, OverloadedError, RateLimitedError)
"""What policies raise instead of beginning a call."""

_SAYS_NOTHING: Final = (*REJECTIONS, MisuseError)


def matcher(condition: Condition, argument: str) -> Callable[[Exception], bool]:
    """Return a function that tells whether an exception meets `condition`.

    Predicates are asked in their order, and only if no type matches.

    Args:
        condition: What was given.
        argument: What it was given as; for the error message.

    Raises:
        TypeError: It is neither an exception type nor a plain predicate.

    Example:
        >>> matches = matcher((OSError, lambda error: "busy" in str(error)), "record_on")
        >>> matches(TimeoutError()), matches(ValueError("busy")), matches(ValueError("bad"))
        (True, True, False)
    """
    types: list[type[BaseException]] = []
    predicates: list[Callable[[Any], bool]] = []
    for part in _flat(condition):
        # A class is a type even where its metaclass makes its instances, or itself, look like a predicate.
        if isinstance(part, type):
            if not issubclass(part, BaseException):
                raise TypeError(f"{argument}={part!r} is no exception type: pass one, or a predicate")
            types.append(part)
        elif callable(part) and kind_of(part) is Kind.SYNC:
            predicates.append(cast("Callable[[Any], bool]", part))
        else:
            raise TypeError(
                f"{argument}={part!r} must be an exception type, a plain function of an exception that "
                "returns a bool, or a tuple of these"
            )
    chosen = tuple(types)
    if not predicates:
        return lambda error: isinstance(error, chosen)
    return lambda error: isinstance(error, chosen) or any(ask(error) for ask in predicates)


def result_predicate(predicate: Callable[[Any], bool] | None, argument: str) -> Callable[[Any], bool] | None:
    """Return `predicate` as it is, if it is a plain function or None.

    Raises:
        TypeError: It is neither; the message names `argument`.
    """
    if predicate is None or (callable(predicate) and kind_of(predicate) is Kind.SYNC):  # type: ignore[redundant-expr]  # from untyped code
        return predicate
    raise TypeError(f"{argument}={predicate!r} must be a plain function of a result that returns a bool")


def _flat(condition: Any) -> list[Any]:
    if isinstance(condition, tuple):
        return [part for inner in condition for part in _flat(inner)]  # pyright: ignore[reportUnknownVariableType] - a tuple of anything
    return [condition]


def is_cancellation(error: BaseException) -> bool:
    """Whether `error` is `concurrent.futures.CancelledError`.

    It means that nobody wants the result any more, as `asyncio.CancelledError` does; but it is an
    `Exception`, so it needs to be asked for.
    """
    futures = sys.modules.get("concurrent.futures")  # where nobody has loaded it, nobody raises it
    return isinstance(error, getattr(futures, "CancelledError", ()))


def leaves(error: BaseException) -> tuple[Exception, ...]:
    """Return what an `ExceptionGroup` holds, as a TaskGroup raises one; nothing of any other."""
    return error.exceptions if isinstance(error, ExceptionGroup) else ()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - of any exceptions


def says_nothing(error: BaseException) -> bool:
    """Return whether `error` says nothing about what was called, or was to be.

    That is a cancellation, an early exit, what a policy refused here, a function that is guarded wrongly; and
    a group of nothing but these.
    """
    if not isinstance(error, Exception) or isinstance(error, _SAYS_NOTHING) or is_cancellation(error):
        return True
    return isinstance(error, ExceptionGroup) and all(map(says_nothing, leaves(error)))  # pyright: ignore[reportUnknownArgumentType] - of any exceptions
