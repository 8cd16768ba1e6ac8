"""What kind of function a decorator was given: found out once, at decoration, without `inspect`."""

from __future__ import annotations

from enum import Enum
from functools import partial
from types import MethodType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_GENERATOR: Final = 0x20
_COROUTINE: Final = 0x80
_ASYNC_GENERATOR: Final = 0x200


class Kind(Enum):
    """How a call of the function behaves."""

    SYNC = "function"
    ASYNC = "coroutine function"
    GENERATOR = "generator function"
    ASYNC_GENERATOR = "async generator function"


class MisuseError(TypeError):
    """A function cannot be guarded in the way that was chosen, which says nothing about its dependency."""


def innermost(fn: Callable[..., Any]) -> Any:
    """Return the function that a call of `fn` ends up in: below partials, methods and `__call__`."""
    inner: Any = fn
    while True:
        if isinstance(inner, partial):
            inner = inner.func  # pyright: ignore[reportUnknownMemberType] - a partial of anything
        elif isinstance(inner, MethodType):
            inner = inner.__func__
        elif not hasattr(inner, "__code__") and not isinstance(inner, type) and _has_python_call(inner):
            inner = type(inner).__call__
        else:
            return inner  # pyright: ignore[reportUnknownVariableType] - it is Any


def _has_python_call(instance: object) -> bool:
    return hasattr(getattr(type(instance), "__call__", None), "__code__")  # noqa: B004 - the function, not whether


def kind_of(fn: Callable[..., Any]) -> Kind:
    """Return the kind of `fn`, looking through `partial`, bound methods and callable objects.

    A function that merely *returns* an awaitable, a lambda say, cannot be told apart before it is called.

    Raises:
        TypeError: `fn` cannot be called, or is a `classmethod` or `staticmethod` object.

    Example:
        >>> async def fetch() -> bytes: ...
        >>> kind_of(partial(fetch))
        <Kind.ASYNC: 'coroutine function'>
    """
    if issubclass(type(fn), classmethod | staticmethod):
        decorator = type(fn).__name__
        raise TypeError(
            f"{fn!r} is a {decorator} object: write @{decorator} above this decorator, not below it"
        )
    if not callable(fn):
        raise TypeError(f"{fn!r} cannot be called: decorate a function, a method or a callable object")
    inner = innermost(fn)
    flags: int = getattr(getattr(inner, "__code__", None), "co_flags", 0)
    if flags & _COROUTINE or _is_marked(inner):
        return Kind.ASYNC
    if flags & _ASYNC_GENERATOR:
        return Kind.ASYNC_GENERATOR
    if flags & _GENERATOR:
        return Kind.GENERATOR
    return Kind.SYNC


def _is_marked(inner: Any) -> bool:
    """Return whether `inspect.markcoroutinefunction` was called on it, which leaves a bare object there."""
    return type(getattr(inner, "_is_coroutine_marker", None)) is object  # a mock would answer with a mock


def name_of(fn: Callable[..., Any]) -> str:
    """Return `module.qualified_name` of the function that a call of `fn` ends up in.

    Example:
        >>> name_of(partial(name_of))
        'resilience.callables.name_of'
    """
    inner = innermost(fn)
    qualified_name = getattr(inner, "__qualname__", None) or type(inner).__qualname__
    module = getattr(inner, "__module__", None) or type(inner).__module__
    return f"{module}.{qualified_name}"
