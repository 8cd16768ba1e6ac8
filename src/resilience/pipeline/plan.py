"""What a pipeline makes of a function: the stages around it, or one wrapper in place of them."""

from __future__ import annotations

import threading
from functools import partial
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from resilience.callables import Kind, name_of
from resilience.fork import survive_fork
from resilience.pipeline.fused import Fusion, fused, fused_async
from resilience.pipeline.stages import arranged, dressed
from resilience.retry.guards import refuse_unawaitable, refuse_unguarded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from resilience.pipeline.context import Context
    from resilience.pipeline.decorated import Decorated
    from resilience.pipeline.stages import Stage

    Fn = Callable[..., Any]
    Parts = tuple[Any, ...]

_SUSPECT: Final = frozenset({CoroutineType, GeneratorType, AsyncGeneratorType})


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
    """What a pipeline does by certain parts, for calls with a certain context; it never changes."""

    __slots__ = ("__weakref__", "_executes", "_fusion", "_held", "parts", "stages")

    stages: tuple[Stage, ...]

    def __init__(
        self, held: Held, parts: Parts, context: Context, name: str | None, known: Plan | None = None
    ) -> None:
        self._held = held
        self.parts = parts
        self.stages = arranged(parts, context, name, () if known is None else known.stages)
        self._fusion = fusion = Fusion.of(self.stages)
        self._executes: dict[Kind, Fn] = {}
        """By kind, what takes a function and its arguments, where one wrapper stands for all stages."""
        if fusion is not None and fusion.place_of is None:
            for kind in fusion.kinds:
                fuse, call = (fused, _call) if kind is Kind.SYNC else (fused_async, _call_async)
                self._executes[kind] = fuse(fusion, fusion.retries, call, held, parts, self._otherwise(kind))

    def _otherwise(self, kind: Kind) -> Fn:
        def otherwise(fn: Fn, /, *args: Any, **kwargs: Any) -> Any:
            return self._stacked(fn, kind, for_good=False)(*args, **kwargs)

        return otherwise

    def fuses(self, kind: Kind) -> bool:
        """Whether one wrapper stands for all stages around a function of this kind."""
        return self._fusion is not None and kind in self._fusion.kinds

    def for_one(self, fn: Fn, kind: Kind) -> Fn:
        """Return what is to be called for `fn` once."""
        executes = self._executes.get(kind)
        return self._stacked(fn, kind, for_good=False) if executes is None else partial(executes, fn)

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
        stacked = self._stacked(fn, kind, for_good=True)
        fusion = self._fusion
        if fusion is None or kind not in fusion.kinds:
            return stacked
        held, parts = self._held, self.parts

        def otherwise(*args: Any, **kwargs: Any) -> Any:
            return (stacked if held.parts is parts else renewed())(*args, **kwargs)

        fuse = fused if kind is Kind.SYNC else fused_async
        return fuse(fusion, fusion.retries.named(name_of(fn)), fn, held, parts, otherwise)

    def _stacked(self, fn: Fn, kind: Kind, *, for_good: bool) -> Fn:
        around = fn
        if kind is Kind.SYNC:
            around = _checked(fn)
        elif kind is Kind.ASYNC and not for_good:
            around = _checked_async(fn)
        for stage in reversed(self.stages):
            around = stage.around(around, kind, for_good=for_good)
        return around


def _call(fn: Fn, /, *args: Any, **kwargs: Any) -> Any:
    """Call `fn`, and make sure that its work is done."""
    result = fn(*args, **kwargs)
    if type(result) in _SUSPECT:
        refuse_unguarded(fn, result)
    return result


def _call_async(fn: Fn, /, *args: Any, **kwargs: Any) -> Awaitable[Any]:
    """Call `fn`, and make sure that it can be awaited."""
    awaitable: Awaitable[Any] = fn(*args, **kwargs)
    if not hasattr(awaitable, "__await__"):
        refuse_unawaitable(fn, awaitable)
    return awaitable


def _checked(fn: Fn) -> Fn:
    def checked(*args: Any, **kwargs: Any) -> Any:
        return _call(fn, *args, **kwargs)

    return dressed(checked, fn)


def _checked_async(fn: Fn) -> Fn:
    async def checked(*args: Any, **kwargs: Any) -> Any:
        return await _call_async(fn, *args, **kwargs)

    return dressed(checked, fn)
