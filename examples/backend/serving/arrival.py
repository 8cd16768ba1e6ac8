"""What has arrived of a request: whether a thread can serve it without waiting for its client.

A thread is the dearest thing that a threaded server has, and a client that sends a byte now and then can hold
one as long as it likes. So a request is collected first, many at a time in one thread, and handed over when
it is there. That needs no more of HTTP than where a request ends; what is wrong with one is found out by the
server's own parser afterwards.

This is arithmetic on bytes: no socket, no clock.
"""

from __future__ import annotations

import re
from typing import Final

HEAD_END: Final = b"\r\n\r\n"
LINE_END: Final = b"\r\n"
LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,18})[ \t]*\r\n", re.IGNORECASE)
CODING: Final = re.compile(rb"\r\ntransfer-encoding:[ \t]*([^\r\n]*?)[ \t]*\r\n", re.IGNORECASE)
EXPECT: Final = re.compile(rb"\r\nexpect:[ \t]*100-continue[ \t]*(?=\r\n)", re.IGNORECASE)
CHUNK_SIZE: Final = re.compile(rb"([0-9a-fA-F]{1,16})[ \t]*(?:;.*)?")
LONGEST_CHUNK_LINE: Final = 256
"""Bytes of the line before a chunk."""


class Arrival:
    """One request on its way in, and whatever has arrived behind it.

    Args:
        largest_head: Bytes of the first line and the headers together; a larger head is not waited for.
        largest_body: Bytes of a body that is waited for. What is longer is handed over as it is, to be
            refused by whoever knows why.
    """

    __slots__ = (
        "_body_at", "_ends_at", "_is_chunked", "_largest_body", "_largest_head", "_scanned",
        "bytes", "is_whole",
    )  # fmt: skip

    def __init__(self, largest_head: int, largest_body: int) -> None:
        self.bytes = bytearray()
        self.is_whole = True
        """Whether nothing of the request is left to arrive once it is complete: it was not given up."""
        self._is_chunked = False
        self._largest_head = largest_head
        self._largest_body = largest_body
        self._body_at = 0
        """Where the body begins; 0 as long as the head is not there."""
        self._ends_at: int | None = None
        """Where the request ends, once that is known."""
        self._scanned = 0

    def take(self, data: bytes) -> bool:
        """Add what has arrived. Return whether the client waits to be told to go on (100)."""
        self.bytes += data
        must_encourage = False
        if not self._body_at:
            end = self.bytes.find(HEAD_END, max(0, self._scanned - len(HEAD_END)))
            self._scanned = len(self.bytes)
            if end < 0:
                return False
            must_encourage = self._read_head(end)
        if self._is_chunked and self._ends_at is None:
            self._scan_chunks()
        return must_encourage

    @property
    def has_head(self) -> bool:
        """Whether the first line and all headers are there."""
        return self._body_at > 0

    @property
    def is_too_large(self) -> bool:
        """Whether the head is larger than it may be."""
        return (self._body_at or len(self.bytes)) > self._largest_head

    @property
    def is_complete(self) -> bool:
        """Whether there is nothing more to wait for."""
        return self._ends_at is not None and len(self.bytes) >= self._ends_at

    def _read_head(self, end: int) -> bool:
        """Find out where the body ends, now that the head ends at `end`."""
        head = bytes(self.bytes[: end + len(LINE_END)])
        self._body_at = self._scanned = end + len(HEAD_END)
        length = LENGTH.search(head)
        coding = CODING.search(head)
        if coding is not None and (length is not None or coding[1].lower() != b"chunked"):
            self._give_up()
        elif coding is not None:
            self._is_chunked = True
        elif length is None:
            self._ends_at = self._body_at
        elif int(length[1]) > self._largest_body:
            self._give_up()
        else:
            self._ends_at = self._body_at + int(length[1])
        expectation = EXPECT.search(head)
        if expectation is None or self._ends_at == self._body_at:
            return False
        # We answer it ourselves, so the server must not do so once more.
        shorter = len(expectation[0])
        del self.bytes[slice(*expectation.span())]
        self._body_at -= shorter
        self._scanned -= shorter
        if self._ends_at is not None:
            self._ends_at -= shorter
        return True

    def _scan_chunks(self) -> None:
        """Go from chunk to chunk as far as they are there; what is none is for the parser to refuse."""
        while self._ends_at is None:
            most = self._body_at + 2 * self._largest_body + self._largest_head
            if max(self._scanned, len(self.bytes)) > most:
                self._give_up()
                return
            line_end = self.bytes.find(LINE_END, self._scanned, self._scanned + LONGEST_CHUNK_LINE)
            if line_end < 0:
                if len(self.bytes) - self._scanned >= LONGEST_CHUNK_LINE:
                    self._give_up()
                return
            size = CHUNK_SIZE.fullmatch(self.bytes, self._scanned, line_end)
            if size is None:
                self._give_up()
            elif int(size[1], 16) == 0:
                end = self.bytes.find(HEAD_END, line_end)  # trailers may come before
                if end < 0:
                    return
                self._ends_at = end + len(HEAD_END)
            else:
                self._scanned = line_end + len(LINE_END) + int(size[1], 16) + len(LINE_END)

    def _give_up(self) -> None:
        """Have it handed over as it is."""
        self._ends_at = self._body_at
        self.is_whole = False
