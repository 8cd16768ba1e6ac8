"""Something else in place of a failure: a value, what a function makes of the exception, or another call.

Rules:
    - Only what may happen in production is answered by default: failures that may pass by themselves,
      rejections by policies, a deadline. A programming error goes up, whatever the answer would have been.
    - Never answered, whatever `on` says: a cancellation, and a function that is guarded wrongly.
    - Where the fallback fails too, its own exception goes up, with the first one as its context.

A fallback never waits by itself, so one object serves threads and event loops at the same time.
"""

from __future__ import annotations

import threading
from functools import update_wrapper
from itertools import count
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, ParamSpec, TypeVar

from resilience.callables import Kind, MisuseError, kind_of, name_of
from resilience.checks import optional_name
from resilience.conditions import REJECTIONS, is_cancellation, matcher
from resilience.errors import DeadlineExceeded
from resilience.events import FallbackFailed, FallbackUsed, hooks, publish
from resilience.fork import survive_fork
from resilience.transient import is_transient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from resilience.conditions import Condition
    from resilience.events import Listener

    Args = tuple[Any, ...]
    Kwargs = Mapping[str, Any]

P = ParamSpec("P")
R = TypeVar("R")

FAILURES: Final = (is_transient, DeadlineExceeded, *REJECTIONS)
"""What is answered by default."""

_COPIED: Final = (list, dict, set, bytearray)
"""Values that a caller may change, so that each gets a copy."""

_ABSENT: Final = object()
_numbers = count(1)


class FallbackStats(NamedTuple):
    """What has become of the calls through a fallback, at one moment."""

    name: str
    used: int
    """Failures that were answered by something else."""
    failed: int
    """Failures for which the fallback failed, too."""


class Fallback:
    """Answers with something else where a call fails.

    Exactly one of `value`, `handle` and `call` says with what.

    Args:
        value: What is returned instead. Of a list, dict, set or bytearray each call gets a copy.
        handle: A function of the exception, whose result is returned instead. It may raise that exception
            again to leave it at that.
        call: A function of the same arguments, which is called instead.
        on: Which exceptions are answered: types, predicates of an exception, or a tuple of either. By default
            those that may pass by themselves (`resilience.is_transient`), the rejections of breakers,
            limiters, bulkheads and the like, and a deadline exceeded.
        name: What events and statistics call it. Left out, the first function that it decorates gives the
            name, or else a number.
        on_fallback: Called with a `FallbackUsed` or a `FallbackFailed`.

    Async functions may be answered by plain functions and coroutine functions; sync ones by plain ones.

    Raises:
        TypeError: None or several of the three are given, or an argument is of the wrong type.

    Threads, tasks and event loops may share it. A cancellation goes up untouched.

    Example:
        >>> @Fallback(value=[], on=ConnectionError)
        ... def recommendations(user: str) -> list[str]:
        ...     raise ConnectionError("the shop is down")
        >>> recommendations("ada")
        []
    """

    __slots__ = (
        "__weakref__",
        "_answer",
        "_failed",
        "_hooks",
        "_kind",
        "_lock",
        "_matches",
        "_name",
        "_named",
        "_used",
    )

    def __init__(
        self,
        *,
        value: Any = _ABSENT,
        handle: Callable[[Any], Any] | None = None,
        call: Callable[..., Any] | None = None,
        on: Condition = FAILURES,
        name: str | None = None,
        on_fallback: Listener | None = None,
    ) -> None:
        optional_name(name)
        self._answer, self._kind = _chosen(value, handle, call)
        self._matches = matcher(on, "on")
        self._named = name is not None
        self._name = f"fallback-{next(_numbers)}" if name is None else name
        self._hooks = hooks(on_fallback)
        self._used = 0
        self._failed = 0
        survive_fork(self)

    def after_fork(self) -> None:
        """Make the lock anew, which another thread of the parent may have held."""
        self._lock = threading.RLock()

    @property
    def name(self) -> str:
        """What events and statistics call it."""
        return self._name

    def stats(self) -> FallbackStats:
        """Return its figures, all of the same instant."""
        with self._lock:
            return FallbackStats(self._name, self._used, self._failed)

    # --- running calls ---------------------------------------------------------------------------

    def execute(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call `fn` and return its result, or else what is to be returned instead.

        Raises:
            TypeError: `fn` returned a coroutine: use `execute_async`.
            Exception: What `fn` raised, if that is not answered; or what the fallback raised.
        """
        return self._around(fn)(*args, **kwargs)  # type: ignore[no-any-return]  # what fn returned

    async def execute_async(self, fn: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call `fn`, await and return its result, or else what is to be returned instead.

        Raises:
            TypeError: `fn` returned nothing that can be awaited.
            Exception: What `fn` raised, if that is not answered; or what the fallback raised.
        """
        return await self._around_async(fn)(*args, **kwargs)  # type: ignore[no-any-return]  # what fn returned

    def __call__(self, fn: Callable[P, R], /) -> Callable[P, R]:
        """Decorate `fn`, a function or coroutine function.

        Raises:
            TypeError: It is a generator function, of whose items some may have been read when it fails; or it
                is sync, and what should answer for it is not.
        """
        kind = kind_of(fn)
        if kind not in {Kind.SYNC, Kind.ASYNC}:
            raise TypeError(
                f"{name_of(fn)} is a {kind.value}: when it fails, some of its items may have been read "
                "already, and nothing can take their place; catch the failure where the items are read"
            )
        around = self._around(fn) if kind is Kind.SYNC else self._around_async(fn)
        if not self._named:
            self._named, self._name = True, name_of(fn)
        return update_wrapper(around, fn)

    def _around(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        if self._kind is not Kind.SYNC:
            raise TypeError(
                f"{name_of(fn)} is no coroutine function, so nobody would await what answers for it: pass a "
                "plain function as handle or call"
            )

        def guarded(*args: Any, **kwargs: Any) -> Any:
            try:
                return _checked(fn, fn(*args, **kwargs))
            except Exception as error:
                if not self._answers(error):
                    raise
                try:
                    result = _checked(fn, self._answer(error, args, kwargs))
                except Exception as failure:
                    self._tell_failed(error, failure)
                    raise
                self._tell_used(error)
                return result

        return guarded

    def _around_async(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        is_awaited = self._kind is Kind.ASYNC

        async def guarded(*args: Any, **kwargs: Any) -> Any:
            try:
                awaitable = fn(*args, **kwargs)
                if not hasattr(awaitable, "__await__"):
                    _refuse_unawaitable(fn, awaitable)
                return await awaitable
            except Exception as error:
                if not self._answers(error):
                    raise
                try:
                    result: Any = self._answer(error, args, kwargs)
                    if is_awaited or type(result) is CoroutineType:
                        result = await result  # pyright: ignore[reportUnknownVariableType] - of anything
                except Exception as failure:
                    self._tell_failed(error, failure)
                    raise
                self._tell_used(error)
                return result  # pyright: ignore[reportUnknownVariableType] - likewise

        return guarded

    # --- what it decides and tells ---------------------------------------------------------------

    def _answers(self, error: Exception) -> bool:
        return not isinstance(error, MisuseError) and not is_cancellation(error) and self._matches(error)

    def _tell_used(self, error: Exception) -> None:
        with self._lock:
            self._used += 1
        publish(FallbackUsed(self._name, error), self._hooks)

    def _tell_failed(self, error: Exception, failure: Exception) -> None:
        if failure is error:
            return  # it was left at that
        with self._lock:
            self._failed += 1
        failure.add_note(f"resilience: the fallback {self._name!r} failed like this after {error!r}")
        publish(FallbackFailed(self._name, error, failure), self._hooks)

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled."""
        raise TypeError(
            f"Fallback {self._name!r} cannot be copied or pickled: its figures belong to this process; share "
            "the one there is, and make another in each process"
        )

    def __repr__(self) -> str:
        """Show its name."""
        return f"<Fallback {self._name!r}>"


def _chosen(
    value: Any, handle: Callable[[Any], Any] | None, call: Callable[..., Any] | None
) -> tuple[Callable[[Exception, Args, Kwargs], Any], Kind]:
    """Return what makes the answer, of the exception and the arguments, and whether it is awaited."""
    if (value is not _ABSENT) + (handle is not None) + (call is not None) != 1:
        raise TypeError("a Fallback needs exactly one of value, handle and call, which say what to return")
    if call is not None:
        return (lambda _error, args, kwargs: call(*args, **kwargs)), _kind("call", call)
    if handle is not None:
        return (lambda error, _args, _kwargs: handle(error)), _kind("handle", handle)
    if isinstance(value, _COPIED):
        copy: Callable[[], Any] = value.copy  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - of anything
        return (lambda _error, _args, _kwargs: copy()), Kind.SYNC
    return (lambda _error, _args, _kwargs: value), Kind.SYNC


def _kind(argument: str, fn: Callable[..., Any]) -> Kind:
    kind = kind_of(fn)
    if kind not in {Kind.SYNC, Kind.ASYNC}:
        raise TypeError(f"{argument}={fn!r} is a {kind.value}: pass a function or a coroutine function")
    return kind


def _checked(fn: Callable[..., Any], result: Any) -> Any:
    """Return `result`, unless it shows that nothing has been done yet."""
    if isinstance(result, CoroutineType):
        result.close()  # nobody will await it
        raise MisuseError(
            f"{name_of(fn)}, or what answers for it, returned a coroutine, whose failures would go "
            "unanswered: decorate the async function itself, or pass it to execute_async"
        )
    return result


def _refuse_unawaitable(fn: Callable[..., Any], returned: object) -> NoReturn:
    raise MisuseError(
        f"{name_of(fn)} returned {returned!r}, which cannot be awaited: use execute for a plain function"
    )
