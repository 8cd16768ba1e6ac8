"""What a retry leaves on the exception that its caller gets: a note, and a mark for the retries around it.

Rules:
    - The note says what was tried and why it stopped. It does not pile up on an exception that is raised
      again and again, such as a singleton or a mock's `side_effect`.
    - An exhausted retry marks the exception, so that retries around it do not multiply its attempts: three
      layers of three attempts would make 27 calls. The mark is found on causes, contexts and members of
      groups too.
    - A mark is the number of its call among all calls that this process has given up. It counts only for an
      attempt which began when fewer had been given up: then it was made during that attempt. A mark from an
      earlier call is no higher, and says nothing.
      (A thread may mark one shared exception while another is about to raise it: that other call then makes
      one retry less, never one more. And the numbers of another process, whence an exception came pickled,
      say nothing certain here.)

Both are written into the exception's `__dict__`, as plain strings and numbers: so they reach exceptions
that refuse attributes (frozen dataclasses), and pickle everywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_KEY: Final = "_resilience"
_PREFIX: Final = "resilience: "
_NO_MARK: Final = (0, False)
_MOST_LINKS: Final = 100


def leave(error: BaseException, text: str, number: int, began: int, *, exhausted: bool) -> None:
    """Leave the note `text` on `error` and, if `exhausted`, the mark.

    Args:
        error: What the caller will get.
        text: What was tried and why it stopped.
        number: The call's number among all given up.
        began: How many had been given up when the last attempt began; notes from before are removed.
        exhausted: Whether a retry that was wanted was left out.
    """
    attributes = error.__dict__
    notes: list[Any] = []
    if attributes:  # most exceptions have none
        notes = _notes(attributes.get("__notes__", []))
        earlier, was_exhausted = attributes.get(_KEY, _NO_MARK)
        if earlier > began:
            exhausted = exhausted or was_exhausted
        else:
            notes = [note for note in notes if not (isinstance(note, str) and note.startswith(_PREFIX))]
    attributes["__notes__"] = [*notes, _PREFIX + text]
    attributes[_KEY] = (number, exhausted)


def _notes(there: Any) -> list[Any]:
    """Return the notes that are there, also if whoever wrote them did so without `add_note`."""
    return [*there] if isinstance(there, list | tuple) else [there]


def inner_retry_exhausted(error: BaseException, began: int) -> bool:
    """Whether a retry below was exhausted during the attempt that raised `error`.

    Args:
        error: What the attempt raised.
        began: How many calls had been given up when it began.
    """
    for link in _links(error):
        number, exhausted = link.__dict__.get(_KEY, _NO_MARK)
        if exhausted and number > began:
            return True
    return False


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


def forget_earlier_frames(error: BaseException, attempt: int) -> None:
    """Cut from the traceback of `error` what it got in attempts before this one.

    An exception that is raised again keeps its old frames below the new ones. Those of earlier attempts
    begin where the frame that catches appears once more; or its caller, which made the first attempt.
    """
    newest = error.__traceback__
    if newest is None:
        return
    catches = newest.tb_frame
    caller = catches.f_back if attempt == 2 else None  # noqa: PLR2004 - later, the second attempt is met first
    entry, older = newest, newest.tb_next
    while older is not None:
        if older.tb_frame is catches or older.tb_frame is caller:
            entry.tb_next = None
            return
        entry, older = older, older.tb_next
