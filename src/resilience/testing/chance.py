"""Chance that repeats itself."""

from __future__ import annotations

from random import Random


class SeededRandom:
    """Draws the same numbers in every run: pass it as the `random` of a policy.

    Args:
        seed: Which numbers; two objects with one seed draw the same.

    Threads may share it.

    Example:
        >>> chance = SeededRandom(seed=7)
        >>> chance() == SeededRandom(seed=7)() == chance.drawn[0]
        True
    """

    def __init__(self, seed: int = 0) -> None:
        self.drawn: list[float] = []
        """What has been drawn, in order."""
        self._seed = seed
        self._random = Random(seed)  # noqa: S311 - it is there to be foreseen

    def __call__(self) -> float:
        """Return a number from 0 up to, but not including, 1."""
        number = self._random.random()
        self.drawn.append(number)
        return number

    def __repr__(self) -> str:
        """Return the call that makes an equal one."""
        return f"SeededRandom(seed={self._seed!r})"
