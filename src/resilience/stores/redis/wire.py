"""The little of Redis's protocol, RESP 2, that a limiter needs: commands of bytes, replies of any kind."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

_LONGEST: Final = 16 * 1024 * 1024
"""Bytes of the longest reply that is believed; a scan of long names is a tenth of it."""
_LONGEST_LINE: Final = 64 * 1024
_STATUS, _ERROR, _INTEGER, _STRING, _ARRAY = b"+-:$*"


class ErrorReply(NamedTuple):
    """What the server answered in place of a result."""

    text: str

    @property
    def code(self) -> str:
        """The first word, such as `NOSCRIPT` or `ERR`."""
        return self.text.partition(" ")[0]

    @property
    def leads_astray(self) -> bool:
        """Whether the connection leads to a server that is not, or no more, the one to ask."""
        return "READONLY" in self.text or "MASTERDOWN" in self.text


class Garbled(Exception):  # noqa: N818 - it says what is the case
    """These bytes are no reply; whatever follows on that connection cannot be believed."""


def packed(*words: bytes) -> bytes:
    r"""Return a command as it is sent.

    Example:
        >>> packed(b"GET", b"ada")
        b'*2\r\n$3\r\nGET\r\n$3\r\nada\r\n'
    """
    return b"*%d\r\n%b" % (len(words), pieces(*words))


def pieces(*words: bytes) -> bytes:
    """Return words of a command as they are sent, without the count that stands before them."""
    return b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])


def parsed(received: bytes, at: int = 0) -> tuple[Any, int] | None:
    r"""Return the reply that begins at `at`, and where it ends; None if it is not whole yet.

    Raises:
        Garbled: It is no reply.

    Example:
        >>> parsed(b"*2\r\n:7\r\n$2\r\nok\r\n")
        ([7, b'ok'], 16)
        >>> parsed(b"$2\r\no") is None
        True
    """
    end = received.find(b"\r\n", at)
    if end < 0:
        if len(received) - at > _LONGEST_LINE:
            raise Garbled("a line without an end")
        return None
    kind, line, after = received[at], received[at + 1 : end], end + 2
    if kind == _STRING:
        return _string(received, after, _number(line))
    if kind == _INTEGER:
        return _number(line), after
    if kind == _STATUS:
        return line, after
    if kind == _ARRAY:
        return _array(received, after, _number(line))
    if kind == _ERROR:
        return ErrorReply(line.decode("utf-8", "backslashreplace")), after
    raise Garbled(f"{received[at : at + 40]!r} is no reply")


def _number(line: bytes) -> int:
    try:
        return int(line)
    except ValueError:
        raise Garbled(f"{line[:40]!r} is no number") from None


def _string(received: bytes, at: int, length: int) -> tuple[bytes | None, int] | None:
    if not 0 <= length <= _LONGEST:
        if length == -1:
            return None, at
        raise Garbled(f"a string of {length} bytes")
    end = at + length
    if len(received) < end + 2:
        return None
    if received[end : end + 2] != b"\r\n":
        raise Garbled("a string that is longer than was said")
    return received[at:end], end + 2


def _array(received: bytes, at: int, length: int) -> tuple[list[Any], int] | None:
    if not 0 <= length <= _LONGEST:
        raise Garbled(f"a list of {length} replies")
    items: list[Any] = []
    for _ in range(length):
        found = parsed(received, at)
        if found is None:
            return None
        item, at = found
        items.append(item)
    return items, at
