"""Checks of the numbers that people set: each refuses with the argument's name, its value and the bounds."""

from __future__ import annotations

from math import inf, isfinite


def check_number(argument: str, value: float, least: float, most: float = inf) -> None:
    """Refuse what is no finite number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, int | float):  # pyright: ignore[reportUnnecessaryIsInstance] - callers are not all typed
        raise TypeError(f"{argument}={value!r} must be a number")
    if not least <= value <= most or not isfinite(value):
        bounds = f"at least {least:g}" if most == inf else f"from {least:g} to {most:g}"
        raise ValueError(f"{argument}={value!r} must be {bounds}, and finite")


def check_seconds(argument: str, value: float) -> None:
    """Refuse what is no duration above 0."""
    check_number(argument, value, 0.0)
    if value == 0:
        raise ValueError(f"{argument}={value!r} must be more than 0 seconds")


def check_share(argument: str, value: float) -> None:
    """Refuse what is no share above 0 and up to 1."""
    check_number(argument, value, 0.0, 1.0)
    if value == 0:
        raise ValueError(f"{argument}={value!r} must be more than 0")


def check_count(argument: str, value: int) -> None:
    """Refuse what is no whole number from 1."""
    if isinstance(value, bool) or not isinstance(value, int):  # pyright: ignore[reportUnnecessaryIsInstance] - callers are not all typed
        raise TypeError(f"{argument}={value!r} must be a whole number")
    if value < 1:
        raise ValueError(f"{argument}={value!r} must be at least 1")
