"""A function that a pipeline decorates: each call goes by the parts that the pipeline has at that moment."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final

from resilience.callables import Kind, kind_of
from resilience.guarding import async_generator_in
from resilience.pipeline.stages import dressed

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from resilience.pipeline.plan import Plan

    Fn = Callable[..., Any]


class Decorated:
    """What is called for one function by the parts of this moment.

    Args:
        fn: The function.
        plan: Returns the plan of this moment, or the one for other parts.

    Raises:
        TypeError: A part cannot guard `fn`.
    """

    __slots__ = ("__weakref__", "_fn", "_kind", "_made", "_plan")

    def __init__(self, fn: Fn, plan: Callable[..., Plan]) -> None:
        self._fn = fn
        self._kind = kind_of(fn)
        self._plan = plan
        self._made = self._made_by(plan())

    def try_on(self, parts: tuple[Any, ...]) -> None:
        """Do nothing if these parts can guard the function.

        Raises:
            TypeError: They cannot.
        """
        self._made_by(self._plan(parts))

    def chain(self) -> Fn:
        """Return what is to be called now."""
        plan, chain = self._made  # read at once; two threads that renew it make the same
        present = self._plan()
        if plan is not present:
            _, chain = self._made = self._made_by(present)
        return chain

    def wrapper(self) -> Fn:
        """Return the function that stands in place of the one that is decorated."""
        plan, chain = self._made
        return dressed(chain if plan.fuses(self._kind) else _FOLLOWING[self._kind](self), self._fn)

    def _made_by(self, plan: Plan) -> tuple[Plan, Fn]:
        return plan, plan.for_good(self._fn, self._kind, self.chain)


def _following(decorated: Decorated) -> Fn:
    def following(*args: Any, **kwargs: Any) -> Any:
        return decorated.chain()(*args, **kwargs)

    return following


def _following_async(decorated: Decorated) -> Fn:
    async def following(*args: Any, **kwargs: Any) -> Any:
        return await decorated.chain()(*args, **kwargs)

    return following


def _following_generator(decorated: Decorated) -> Fn:
    def following(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        stream: Generator[Any, Any, Any] = decorated.chain()(*args, **kwargs)
        return (yield from stream)

    return following


def _following_async_generator(decorated: Decorated) -> Fn:
    return async_generator_in(nullcontext, _following(decorated))


_FOLLOWING: Final[dict[Kind, Callable[[Decorated], Fn]]] = {
    Kind.SYNC: _following,
    Kind.ASYNC: _following_async,
    Kind.GENERATOR: _following_generator,
    Kind.ASYNC_GENERATOR: _following_async_generator,
}
