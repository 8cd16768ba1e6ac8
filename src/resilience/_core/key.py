"""The one canonical form of a key, and how names are folded for one.

Rules:
    - A key has parts: `("a/b", "c")` and `("a", "b/c")` are two keys. No parts at all is one key too: the
      one for everybody.
    - One plain part is its own canonical form, a str, so that the common case costs nothing. Everything
      else becomes bytes, which no str can equal: several parts, lone surrogates, and what is long.
    - It is bounded: what is longer than 128 characters, or 256 bytes in all, is hashed.
    - Text is NFC: "é" in one code point and in two is one key. Case is kept: fold names yourself, by `fold`.
    - An int is its decimal text: 42 and "42" are one key. None, "" and other types are refused: a missing
      identity must neither skip the limit nor share one count with all the others that are missing.
"""

from __future__ import annotations

from typing import Any, Final

EVERYBODY: Final = b""
"""The canonical form of the key without parts."""

_LONGEST_PART: Final = 128
_LONGEST: Final = 256
_HASHED: Final = b"#"


def canonical(parts: tuple[Any, ...]) -> str | bytes:
    """Return the canonical form of a key.

    Raises:
        TypeError: A part is neither str nor int, or it is a bool.
        ValueError: A part is empty.

    Example:
        >>> canonical(("ada",)), canonical(("ada", "192.0.2.1"))
        ('ada', b'3:ada9:192.0.2.1')
    """
    if len(parts) == 1:
        part = _text(parts[0])
        if len(part) <= _LONGEST_PART and (part.isascii() or _is_encodable(part)):
            return part
        return _bounded(part)
    return _bounded(*map(_text, parts))


def parts_of(key: str | bytes) -> tuple[str, ...]:
    """Return the parts of a canonical key, for people; of a hashed one `#` and its digest.

    Example:
        >>> parts_of(canonical(("ada", "192.0.2.1")))
        ('ada', '192.0.2.1')
    """
    if isinstance(key, str):
        return (key,)
    if key.startswith(_HASHED):
        return ("#" + key[1:].hex(),)
    parts: list[str] = []
    while key:
        length, _, rest = key.partition(b":")
        parts.append(rest[: int(length)].decode("utf-8", "backslashreplace"))
        key = rest[int(length) :]
    return tuple(parts)


def fold(name: str) -> str:
    """Return one form of a name for all the ways to write it: letter case, width, trailing dots and spaces.

    For keys that people type, such as e-mail addresses, where each spelling would otherwise have a count
    of its own. It is no normalisation for storing or sending: two addresses that a mail server tells apart
    may fold to one.

    Example:
        >>> fold(" Ada@Example.COM. ")
        'ada@example.com'
    """
    from unicodedata import normalize  # noqa: PLC0415 - a megabyte that only names need

    folded = normalize("NFKC", normalize("NFKC", name).casefold()).lstrip()
    end = len(folded)
    while end and (folded[end - 1] == "." or folded[end - 1].isspace()):
        end -= 1
    return folded[:end]


def _text(part: Any) -> str:
    if isinstance(part, str):
        if not part:
            raise ValueError(
                "a part of the key is empty: a missing identity would share one count with all the others; "
                "leave the part out, or refuse the call"
            )
        if part.isascii():
            return str.__str__(part)  # a plain str, also of a subclass such as an Enum
        from unicodedata import normalize  # noqa: PLC0415 - a megabyte that only such keys need

        return normalize("NFC", str.__str__(part))
    if isinstance(part, int) and not isinstance(part, bool):
        return int.__repr__(part)  # the digits, also of a subclass such as an Enum; its __str__ may be a name
    raise TypeError(f"the parts of a key are str or int, not {part!r}: pass str(…) of what identifies it")


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True


def _bounded(*parts: str) -> bytes:
    encoded = [part.encode("utf-8", "surrogatepass") for part in parts]
    whole = b"".join([b"%d:%s" % (len(part), part) for part in encoded])
    if len(whole) <= _LONGEST:
        return whole
    from hashlib import blake2b  # noqa: PLC0415 - OpenSSL comes with it, and few keys are that long

    return _HASHED + blake2b(whole, digest_size=32).digest()
