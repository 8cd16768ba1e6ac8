"""What a pipeline makes of a function: the stages around it, or one wrapper in place of them."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from resilience.callables import Kind, name_of
from resilience.fork import survive_fork
from resilience.pipeline.fused import Fusion, fused, fused_async
from resilience.pipeline.stages import arranged, dressed
from resilience.retry.guards import SUSPECT, refuse_unawaitable, refuse_unguarded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from resilience.pipeline.context import Context
    from resilience.pipeline.decorated import Decorated
    from resilience.pipeline.stages import Stage

    Fn = Callable[..., Any]
    Parts = tuple[Any, ...]


class Held:
    """The parts that a pipeline has at the moment, and the functions that it decorates.

    `parts` is replaced and never changed, so whoever reads it gets those from before or those from after,
    also without the GIL. Each call goes by what it has read once.
    """

    lock: threading.RLock

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.decorated: WeakSet[Decorated] = WeakSet()
        """Guarded by the lock."""
        survive_fork(self)

    def after_fork(self) -> None:
        """Make the lock anew, which another thread of the parent may have held."""
        self.lock = threading.RLock()


class Plan:
    """What a pipeline does by certain parts, for calls with a certain context; it never changes.

    It is no part of a cycle, so what is made for one call goes with it, without the garbage collector.
    """

    __slots__ = ("__weakref__", "_executes", "_fusion", "_held", "_stages", "parts")

    _stages: tuple[Stage, ...]

    def __init__(
        self, held: Held, parts: Parts, context: Context, name: str | None, known: Plan | None = None
    ) -> None:
        self._held = held
        self.parts = parts
        self._stages = arranged(parts, context, name, () if known is None else known._stages)  # noqa: SLF001 - its own class
        self._fusion = Fusion.of(self._stages)
        self._executes: dict[Kind, Fn] = {}
        """What takes a function of a kind and its arguments, where one wrapper stands for all stages."""

    def fuses(self, kind: Kind) -> bool:
        """Whether one wrapper stands for all stages around a function of this kind."""
        return self._fusion is not None and kind in self._fusion.kinds

    def for_one(self, fn: Fn, kind: Kind) -> Fn:
        """Return what is to be called for `fn`, a function or coroutine function, once."""
        executes = self._executes.get(kind)
        if executes is None:
            fusion = self._fusion
            if fusion is None or kind not in fusion.kinds or fusion.place_of is not None:
                return _around_one(self._stages, fn, kind)
            executes = self._execute_fused(fusion, kind)
            self._executes[kind] = executes  # two threads at once make the same
        return partial(executes, fn)

    def _execute_fused(self, fusion: Fusion, kind: Kind) -> Fn:
        stages = self._stages

        def otherwise(fn: Fn, /, *args: Any, **kwargs: Any) -> Any:
            return _around_one(stages, fn, kind)(*args, **kwargs)

        fuse, call = (fused, _call) if kind is Kind.SYNC else (fused_async, _begin)
        return fuse(fusion, fusion.retries, call, self._held, self.parts, otherwise)

    def for_good(self, fn: Fn, kind: Kind, renewed: Callable[[], Fn]) -> Fn:
        """Return what is to be called for `fn` again and again.

        Args:
            fn: What is decorated.
            kind: Its kind.
            renewed: Returns what is to be called in its place once the pipeline has other parts. Where one
                wrapper stands for all stages, it looks for that itself.

        Raises:
            TypeError: A part cannot guard `fn`.
        """
        stacked = _checked(fn) if kind is Kind.SYNC else fn
        for stage in reversed(self._stages):
            stacked = stage.around(stacked, kind, for_good=True)
        fusion = self._fusion
        if fusion is None or kind not in fusion.kinds:
            return stacked
        held, parts = self._held, self.parts

        def otherwise(*args: Any, **kwargs: Any) -> Any:
            return (stacked if held.parts is parts else renewed())(*args, **kwargs)

        fuse = fused if kind is Kind.SYNC else fused_async
        return fuse(fusion, fusion.retries.named(name_of(fn)), fn, held, parts, otherwise)


def _checked(fn: Fn) -> Fn:
    def checked(*args: Any, **kwargs: Any) -> Any:
        return _call(fn, *args, **kwargs)

    return dressed(checked, fn)


def _around_one(stages: Sequence[Stage], fn: Fn, kind: Kind) -> Fn:
    """Return what the stages make of `fn` for one call."""
    around: Fn = partial(_call if kind is Kind.SYNC else _await, fn)
    for stage in reversed(stages):
        around = stage.around(around, kind, for_good=False)
    return around


def _call(fn: Fn, /, *args: Any, **kwargs: Any) -> Any:
    """Call `fn`, and make sure that its work is done."""
    result = fn(*args, **kwargs)
    if type(result) in SUSPECT:
        refuse_unguarded(fn, result)
    return result


def _begin(fn: Fn, /, *args: Any, **kwargs: Any) -> Awaitable[Any]:
    """Call `fn`, and make sure that what it returned can be awaited."""
    awaitable: Awaitable[Any] = fn(*args, **kwargs)
    if not hasattr(awaitable, "__await__"):
        refuse_unawaitable(fn, awaitable)
    return awaitable


async def _await(fn: Fn, /, *args: Any, **kwargs: Any) -> Any:
    """Call `fn`, and await what it returned."""
    return await _begin(fn, *args, **kwargs)
