"""What the policies have in common that admit a call or refuse it, never wait, and hear how it ended.

A call is admitted with a permit, which is settled exactly once: by the end of the call or block that it
stands for, by whoever holds it, or as neutral when it is dropped. One object serves threads and event loops
at the same time.
"""

from __future__ import annotations

from functools import update_wrapper
from itertools import count
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, ParamSpec, Self, TypeVar

from resilience import checks, events
from resilience.callables import Kind, MisuseError, kind_of, name_of
from resilience.conditions import says_nothing
from resilience.errors import OverloadedError
from resilience.guarding import async_generator_in, generator_in

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from resilience.events import Hook

    Fn = Callable[..., Any]

P = ParamSpec("P")
R = TypeVar("R")
Ticket = TypeVar("Ticket")

_numbers = count(1)


class Permit(Generic[Ticket]):
    """The right to run once, settled exactly once: what comes after the first outcome is ignored.

    As a context manager it settles itself, by how the block ends. Threads and tasks may pass it on. One that
    is dropped unsettled is neutral.
    """

    __slots__ = ("_policy", "_settled", "ticket")

    def __init__(self, policy: Admission[Ticket], ticket: Ticket) -> None:
        self._policy = policy
        self._settled = [True]
        self.ticket = ticket
        """What the policy knows the call by."""

    def success(self) -> None:
        """The call succeeded."""
        if self._is_first():
            self._policy.settle(self.ticket, None)

    def failure(self, error: BaseException) -> None:
        """The call raised `error`.

        Raises:
            TypeError: `error` is no exception.
        """
        if not isinstance(error, BaseException):  # pyright: ignore[reportUnnecessaryIsInstance] - from untyped code
            raise MisuseError(f"failure({error!r}): pass the exception that the call raised")
        if self._is_first():
            self._policy.settle(self.ticket, error)

    def neutral(self) -> None:
        """The call says nothing."""
        if self._is_first():
            self._policy.give_back(self.ticket)

    def _is_first(self) -> bool:
        try:
            self._settled.pop()  # atomic, also without the GIL: of several outcomes one is the first
        except IndexError:
            return False
        return True

    def __enter__(self) -> Self:
        """Begin the call."""
        return self._begin()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Settle by how the block ended."""
        self._end(error)

    async def __aenter__(self) -> Self:
        """Begin the call."""
        return self._begin()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Settle by how the block ended; awaits nothing, so no cancellation can come between."""
        self._end(error)

    def _begin(self) -> Self:
        if not self._settled:
            raise MisuseError("this permit has been settled: ask the policy for one for each block")
        return self

    def _end(self, error: BaseException | None) -> None:
        if error is None:
            self.success()
        else:
            self.failure(error)

    def __del__(self) -> None:
        """Settle as neutral, if nobody has settled."""
        self.neutral()

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled."""
        raise TypeError("a permit cannot be copied or pickled: it is settled once, where it was acquired")


class Admission(Generic[Ticket]):
    """A policy that admits a call or refuses it, and never waits.

    It gives out a ticket for each call that it admits, and takes it back exactly once. While the call of a
    function runs, its wrapper has the ticket; elsewhere, a permit has.

    Args:
        kind: What events call such a policy.
        name: What errors, events and statistics call this one; a number where None.
        hooks: Who hears of refusals.
    """

    def __init__(self, kind: str, name: str | None, hooks: tuple[Hook, ...]) -> None:
        checks.optional_name(name)
        self._kind = kind
        self._name = f"{kind.replace(' ', '-')}-{next(_numbers)}" if name is None else name
        self._hooks = hooks

    @property
    def name(self) -> str:
        """What errors, events and statistics call it."""
        return self._name

    # --- what each policy does -------------------------------------------------------------------

    def admission_of(self, fn: Callable[..., Any]) -> Callable[[], Ticket]:
        """Return what gives a ticket for a call of `fn`, or raises OverloadedError."""
        raise NotImplementedError

    def take(self, ticket: Ticket, error: Exception | None) -> None:
        """Take the outcome of a call. If a predicate raises, nothing must have been taken."""
        raise NotImplementedError

    def give_back(self, ticket: Ticket) -> None:
        """Take the neutral outcome of a call; the garbage collector may call this at any moment."""
        raise NotImplementedError

    # --- what all of them do ---------------------------------------------------------------------

    def settle(self, ticket: Ticket, error: BaseException | None) -> None:
        """Take how a call ended; what a predicate raises about that makes it neutral, and goes up."""
        if error is not None and (not isinstance(error, Exception) or says_nothing(error)):
            self.give_back(ticket)
            return
        try:
            self.take(ticket, error)
        except BaseException:
            self.give_back(ticket)
            raise

    def execute(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call `fn` and return its result, unless the call is refused.

        Raises:
            OverloadedError: It was refused, and not begun.
            TypeError: `fn` returned a coroutine, or is a generator function: its work would run unguarded.
        """
        return _run(self, self.admission_of(fn)(), fn, args, kwargs)  # type: ignore[no-any-return]  # what fn returned

    async def execute_async(self, fn: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call `fn`, await and return its result, unless the call is refused.

        Raises:
            OverloadedError: It was refused; no coroutine was made.
            TypeError: `fn` returned nothing that can be awaited.
        """
        return await _run_async(self, self.admission_of(fn)(), fn, args, kwargs)  # type: ignore[no-any-return]  # what fn returned

    def __call__(self, fn: Callable[P, R], /) -> Callable[P, R]:
        """Decorate `fn`: a function, coroutine function, generator function or async generator function.

        A generator is admitted when its first item is asked for. Leaving it early is neutral.

        Raises:
            TypeError: `fn` cannot be guarded.
        """
        return update_wrapper(_GUARDS[kind_of(fn)](self, self.admission_of(fn), fn), fn)

    def _refusal(self, reason: str, retry_after: float | None) -> OverloadedError:
        """Tell of a refusal; return its error, to be raised as it is returned."""
        if events.is_heard(self._hooks):
            events.publish(events.CallRefused(self._kind, self._name, reason), self._hooks)
        return OverloadedError(self._name, reason, retry_after)

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled."""
        raise TypeError(
            f"{type(self).__name__} {self._name!r} cannot be copied or pickled: it holds a lock and what "
            "live calls have told; share the one there is, and make another in each process"
        )


def _run(policy: Admission[Any], ticket: Any, fn: Fn, args: Any, kwargs: Any) -> Any:
    try:
        result = fn(*args, **kwargs)
        if type(result) in _UNDONE:
            _refuse_undone(fn, result)
    except BaseException as error:
        policy.settle(ticket, error)
        raise
    policy.take(ticket, None)
    return result


async def _run_async(policy: Admission[Any], ticket: Any, fn: Fn, args: Any, kwargs: Any) -> Any:
    try:
        awaitable = fn(*args, **kwargs)
        if not hasattr(awaitable, "__await__"):
            _refuse_unawaitable(fn, awaitable)
        result = await awaitable
    except BaseException as error:
        policy.settle(ticket, error)
        raise
    policy.take(ticket, None)
    return result


def _function(policy: Admission[Any], admitted: Callable[[], Any], fn: Fn) -> Fn:
    def guarded(*args: Any, **kwargs: Any) -> Any:
        return _run(policy, admitted(), fn, args, kwargs)

    return guarded


def _coroutine_function(policy: Admission[Any], admitted: Callable[[], Any], fn: Fn) -> Fn:
    async def guarded(*args: Any, **kwargs: Any) -> Any:
        return await _run_async(policy, admitted(), fn, args, kwargs)

    return guarded


def _generator_function(policy: Admission[Any], admitted: Callable[[], Any], fn: Fn) -> Fn:
    return generator_in(lambda: Permit(policy, admitted()), fn)


def _async_generator_function(policy: Admission[Any], admitted: Callable[[], Any], fn: Fn) -> Fn:
    return async_generator_in(lambda: Permit(policy, admitted()), fn)


_GUARDS: Final = {
    Kind.SYNC: _function,
    Kind.ASYNC: _coroutine_function,
    Kind.GENERATOR: _generator_function,
    Kind.ASYNC_GENERATOR: _async_generator_function,
}

_UNDONE: Final = frozenset({CoroutineType, GeneratorType, AsyncGeneratorType})


def _refuse_undone(fn: Fn, result: Any) -> None:
    """Raise if `result` shows that the work of `fn` has not been done yet.

    A generator that an ordinary function returns, whoever made it, is a result like any other.
    """
    if type(result) is CoroutineType:
        result.close()
        raise MisuseError(
            f"{name_of(fn)} returned a coroutine, which would run unguarded: use execute_async, or decorate "
            "a function written with `async def`"
        )
    kind = kind_of(fn)
    if kind is not Kind.SYNC:
        raise MisuseError(
            f"{name_of(fn)} is a {kind.value}, which would run unguarded, when its items are asked for: "
            "decorate it instead"
        )


def _refuse_unawaitable(fn: Fn, returned: object) -> NoReturn:
    raise MisuseError(f"{name_of(fn)} returned {returned!r}, which cannot be awaited: use execute")
