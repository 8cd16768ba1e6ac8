"""Arguments that are numbers or names: checked at construction, with an error that says what is wrong."""

from __future__ import annotations

import math
import sys
from typing import Any


def number(
    name: str, value: Any, *, least: float = -math.inf, above: float = -math.inf, most: float = math.inf
) -> float:
    """Return `value` as a float if it is a finite number within the bounds.

    Args:
        name: The argument's name, for the message.
        value: What was given.
        least: The least that is allowed.
        above: What it must exceed.
        most: The most that is allowed.

    Raises:
        TypeError: It is no number. A bool is none either: `max_delay=True` is a slip.
        ValueError: It is infinite, not a number (NaN) or out of bounds.

    Example:
        >>> number("max_delay", 10, least=0)
        10.0
        >>> number("multiplier", 0.5, least=1)
        Traceback (most recent call last):
        ValueError: multiplier must be a finite number of at least 1, not 0.5
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, not {value!r}")
    # Not `isfinite`, which raises OverflowError for an int that is larger than any float.
    if not (abs(value) <= sys.float_info.max and least <= value <= most and value > above):
        bounds = " and ".join(
            f"{words} {bound:g}"
            for words, bound in (("above", above), ("of at least", least), ("of at most", most))
            if math.isfinite(bound)
        )
        raise ValueError(f"{name} must be a finite number {bounds or 'of any size'}, not {value!r}")
    return float(value)


def count(name: str, value: Any, *, least: int) -> int:
    """Return `value` if it is a whole number of at least `least`.

    Raises:
        TypeError: It is no int, or a bool.
        ValueError: It is less.

    Example:
        >>> count("max_attempts", 0, least=1)
        Traceback (most recent call last):
        ValueError: max_attempts must be at least 1, not 0
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value!r}")
    return value


def optional_name(value: Any) -> str | None:
    """Return the name that was given to a policy, or None if none was.

    Raises:
        TypeError: It is no string.

    Example:
        >>> optional_name(5)
        Traceback (most recent call last):
        TypeError: name=5 must be a string
    """
    if value is not None and not isinstance(value, str):
        raise TypeError(f"name={value!r} must be a string")
    return value
