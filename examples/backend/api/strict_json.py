"""JSON from strangers: read by the letter of RFC 8259 and RFC 7493 (I-JSON), in time linear in its length.

Python's reader is made for friends: it takes NaN, gives back the last of two members of one name, makes
infinity of 1e400, and falls over a hundred thousand brackets. What it lets pass ends elsewhere as a 500, or
as two programs that read one body differently. Here each is a `VALIDATION_ERROR`, which says what is wrong
and never repeats what was sent.

Rules:
    - What can be refused by looking at the bytes is refused before anything is built of them: encoding,
      depth, the length of a number.
    - How long a body may be is not decided here, but by whoever reads it from the network.
    - Whether a value fits its field is not decided here either. Note that True is an `int` to Python: a
      schema that wants a number must ask for `type(value) is int`.
"""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any, Final, NoReturn

from resilience import validation_error

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_DEPTH: Final = 32
"""Arrays and objects inside one another. What people exchange has less than ten."""
MAX_NUMBER: Final = 64
"""Characters of one number. Each of a float's is written in 24 (RFC 7493, 2.2: IEEE 754 doubles)."""
MAX_INTEGER: Final = 2**63 - 1
"""What a column of a database holds; beyond it, storing the number would fail."""

_BOM: Final = b"\xef\xbb\xbf"
_SKIPPED: Final = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[^"\[\]{}]++', re.DOTALL)
"""What says nothing of the depth. A string that does not end reaches to the end: nothing is read twice."""


def parse(body: bytes) -> Any:
    """Return what a JSON text says.

    Args:
        body: The text, in UTF-8.

    Returns:
        Dicts, lists, strings, ints within 64 bits, finite floats, bools and None; at most `MAX_DEPTH` deep.

    Raises:
        ServiceError: It is not JSON, or not of the kind that every program reads alike: `VALIDATION_ERROR`.

    Example:
        >>> parse(b'{"email": "ada@example.com"}')
        {'email': 'ada@example.com'}
        >>> parse(b'{"role": "member", "role": "admin"}')
        Traceback (most recent call last):
        resilience.errors.service.ServiceError: The JSON names a member twice
    """
    text = _decoded(body)
    _require_shallow(text)
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise validation_error(f"The body is not JSON: line {error.lineno}, column {error.colno}") from None
    if "\\u" in text and any(_is_unfit(string) for string in _strings(value)):
        raise validation_error("The JSON has a string with half a character, or with NUL")
    return value


def _decoded(body: bytes) -> str:
    if body.startswith(_BOM):
        raise validation_error("The JSON begins with a byte order mark")
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise validation_error(f"The body is not UTF-8: byte {error.start}") from None


def _require_shallow(text: str) -> None:
    """Refuse what is too deep, by counting brackets outside of strings; nothing recurs here."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    depth = 0
    for bracket in _SKIPPED.sub("", text):
        depth += 1 if bracket in "[{" else -1
        if depth > MAX_DEPTH:
            raise validation_error(f"The JSON is more than {MAX_DEPTH} levels deep")


# --- what the decoder asks -----------------------------------------------------------------------


def _integer(digits: str) -> int:
    if len(digits) > MAX_NUMBER or abs(number := int(digits)) > MAX_INTEGER:
        raise validation_error("The JSON has an integer of more than 64 bits")
    return number


def _float(digits: str) -> float:
    if len(digits) > MAX_NUMBER:
        raise validation_error(f"The JSON has a number of more than {MAX_NUMBER} characters")
    if not math.isfinite(number := float(digits)):
        raise validation_error("The JSON has a number that is too large")
    return number


def _constant(_: str) -> NoReturn:
    raise validation_error("The JSON has NaN or Infinity, which are no JSON")


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) < len(members):
        raise validation_error("The JSON names a member twice")
    return found


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_float, parse_int=_integer, parse_constant=_constant
)


# --- strings -------------------------------------------------------------------------------------


def _strings(value: Any) -> Iterator[str]:
    """Yield each string of a value, names of members included. Its depth is bounded already."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield name
            yield from _strings(item)


def _is_unfit(string: str) -> bool:
    """Return whether no encoder, or no database, would take a string."""
    return "\0" in string or any("\ud800" <= character <= "\udfff" for character in string)
