"""How a ledger is written on an engine: as JSON, which people can read, and which is read with distrust."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, cast

from resilience._core.ledger import NO_NEWS, Ledger

if TYPE_CHECKING:
    from resilience._core.ledger import Answer, News, Report

LONGEST: Final = 200
"""Bytes of a label at most."""

LATEST: Final = 1e12
"""Unix seconds that are no slip."""


class GarbledError(Exception):
    """What stands where a ledger should be is none."""


def label_of(name: str) -> str:
    """Return what a breaker's name is written as on an engine; hashed if it is long, or not plain text.

    Example:
        >>> label_of("storage"), len(label_of("storage" * 100))
        ('storage', 33)
    """
    if name.isascii() and name.isprintable() and not name.startswith("#") and 0 < len(name) <= LONGEST:
        return name
    return "#" + blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def news_in(text: str | None, now: float) -> News:
    """Return the news that a ledger holds; none if there is no ledger.

    Raises:
        GarbledError: The text is no ledger.
    """
    return NO_NEWS if text is None else _read(text).news(now)


def taken(text: str | None, report: Report, now: float) -> tuple[str | None, float, Answer]:
    """Return what is to be written after a report, for how many seconds, and the answer to the report.

    Args:
        text: What is written; None if nothing is.
        report: What a process tells.
        now: The engine's clock, in Unix seconds.

    Returns:
        The text is None where nothing has changed.

    Raises:
        GarbledError: The text is no ledger.
    """
    before = Ledger() if text is None else _read(text)
    after, answer = before.take(report, now)
    return None if after == before else _written(after), after.keep_for(now), answer


def _written(ledger: Ledger) -> str:
    return json.dumps(ledger._asdict(), separators=(",", ":"))


def _read(text: str) -> Ledger:
    try:
        ledger = Ledger(**json.loads(text))
    except (ValueError, TypeError, RecursionError) as error:
        raise GarbledError(f"{text[:80]!r} is no ledger of a breaker: {error}") from error
    well_formed = (
        type(ledger.is_open) is bool,
        *map(_is_count, (ledger.generation, ledger.successes)),
        *map(_is_seconds, (ledger.began, ledger.rest, ledger.recovery_time)),
        *map(_are_instants, (ledger.leases, ledger.votes)),
    )
    if not all(well_formed):
        raise GarbledError(f"{text[:80]!r} is no ledger of a breaker: a field is out of its range")
    return ledger


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62


def _is_seconds(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < LATEST


def _are_instants(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_seconds, cast("dict[str, Any]", value).values()))
