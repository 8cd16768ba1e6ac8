"""What a retry leaves on the exception that its caller gets: a note, and a mark for the retries around it.

Rules:
    - The note says what was tried and why it stopped. It does not pile up on an exception that is raised
      again and again, such as a singleton or a mock's `side_effect`.
    - An exhausted retry marks the exception, so that retries around it do not multiply its attempts:
      three layers of three attempts would make 27 calls. The mark is found on causes, contexts and members
      of groups too.
    - A mark counts only for attempts during which it was made. Each is a number higher than all before; an
      attempt notes the highest (`MARKS.latest`) when it begins. What was marked in an earlier call carries
      a lower number and says nothing.

Both are written into the exception's `__dict__`, as plain strings and numbers: so they reach exceptions
that refuse attributes (frozen dataclasses), and pickle everywhere.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from resilience.fork import survive_fork

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

_KEY: Final = "_resilience"
_PREFIX: Final = "resilience: "
_MOST_LINKS: Final = 100


class _Marks:
    """The numbers of marks, for the whole process.

    `latest` is read without the lock at the beginning of each attempt. A reading that misses a mark which
    some other thread is just making is right: that one is not of this attempt. Should both threads raise
    one shared exception at that moment, this call makes a retry less, never one more.
    """

    __slots__ = ("__weakref__", "_lock", "latest")

    def __init__(self) -> None:
        self.latest = 0
        survive_fork(self)

    def after_fork(self) -> None:
        self._lock = threading.RLock()

    def next(self) -> int:
        with self._lock:
            self.latest += 1
            return self.latest


MARKS: Final = _Marks()


def leave(error: BaseException, text: str, since: int, *, exhausted: bool) -> None:
    """Leave the note `text` on `error` and, if `exhausted`, the mark.

    Args:
        error: What the caller will get.
        text: What was tried and why it stopped.
        since: `MARKS.latest` when the last attempt began; notes from before are removed.
        exhausted: Whether a retry that was wanted had to be left out.
    """
    attributes = error.__dict__
    number, was_exhausted = attributes.get(_KEY, (0, False))
    notes: list[str] = attributes.get("__notes__", [])
    if number <= since:
        was_exhausted = False
        notes = [note for note in notes if not note.startswith(_PREFIX)]
    attributes["__notes__"] = [*notes, _PREFIX + text]
    attributes[_KEY] = (MARKS.next(), exhausted or was_exhausted)


def inner_retry_exhausted(error: BaseException, since: int) -> bool:
    """Whether a retry below was exhausted during the attempt that began at `since` and raised `error`."""
    if MARKS.latest == since:
        return False
    return any(
        number > since and exhausted
        for number, exhausted in (link.__dict__.get(_KEY, (0, False)) for link in _links(error))
    )


def _links(error: BaseException) -> Iterator[BaseException]:
    """Yield `error`, what it was raised from or while handling, and members of groups; each once."""
    waiting, seen = [error], {id(error)}
    while waiting and len(seen) <= _MOST_LINKS:
        link = waiting.pop()
        yield link
        below = [link.__cause__, link.__context__]
        if isinstance(link, BaseExceptionGroup):
            below += link.exceptions  # pyright: ignore[reportUnknownMemberType] - a group of anything
        for other in below:
            if other is not None and id(other) not in seen:
                seen.add(id(other))
                waiting.append(other)


def forget_earlier_frames(error: BaseException) -> None:
    """Cut from the traceback of `error` what it got in earlier attempts of the same call.

    An exception that is raised again keeps its old frames below the new ones. Those of earlier attempts
    begin where the frame that catches, or its caller, appears for the second time.
    """
    entry = newest = error.__traceback__
    if newest is None:
        return
    ours = (newest.tb_frame, newest.tb_frame.f_back)
    while entry is not None:
        older: TracebackType | None = entry.tb_next
        if older is not None and older.tb_frame in ours:
            entry.tb_next = None
            return
        entry = older
