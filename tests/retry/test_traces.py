"""What a retry leaves on exceptions: notes that do not pile up, marks that count once, short tracebacks."""

from __future__ import annotations

import contextlib
import dataclasses
import pickle
import sys

import pytest

from resilience.retry.traces import forget_earlier_frames, inner_retry_exhausted, leave


def notes(error):
    return getattr(error, "__notes__", [])


def test_a_note_stands_beside_those_of_others():
    error = ValueError()
    error.add_note("from the application")
    leave(error, "2 attempts; stopped: x", 1, 0, exhausted=False)
    assert notes(error) == ["from the application", "resilience: 2 attempts; stopped: x"]


@pytest.mark.parametrize("odd", [[1, 2], (1, 2), "text", None])
def test_notes_that_are_no_list_of_strings_are_kept_and_hide_nothing(odd):
    error = ValueError()
    error.__notes__ = odd
    leave(error, "first", 1, 0, exhausted=True)
    leave(error, "later", 2, 1, exhausted=True)
    before = list(odd) if isinstance(odd, list | tuple) else [odd]
    assert notes(error) == [*before, "resilience: later"]


def test_an_inner_retrys_note_stays_and_an_earlier_calls_goes():
    error = ValueError()
    error.add_note("from the application")
    leave(error, "inner", 1, 0, exhausted=True)
    leave(error, "outer", 2, 0, exhausted=True)
    assert notes(error)[1:] == ["resilience: inner", "resilience: outer"]
    leave(error, "later", 3, 2, exhausted=True)
    assert notes(error) == ["from the application", "resilience: later"]


def test_a_mark_counts_only_for_the_attempt_in_which_it_was_made():
    error = ValueError()
    assert not inner_retry_exhausted(error, 0)
    leave(error, "inner", 7, 3, exhausted=True)
    assert inner_retry_exhausted(error, 6)
    assert not inner_retry_exhausted(error, 7)


def test_an_outer_note_keeps_the_inner_mark():
    error = ValueError()
    leave(error, "inner", 1, 0, exhausted=True)
    leave(error, "outer", 2, 0, exhausted=False)
    assert inner_retry_exhausted(error, 1)
    leave(error, "later", 3, 2, exhausted=False)
    assert not inner_retry_exhausted(error, 0)


def test_a_note_alone_is_no_mark():
    error = ValueError()
    leave(error, "2 attempts", 1, 0, exhausted=False)
    assert not inner_retry_exhausted(error, 0)


def test_the_mark_is_found_on_causes_contexts_and_members_of_groups():
    marked = ConnectionError()
    leave(marked, "inner", 1, 0, exhausted=True)

    caused = KeyError()
    caused.__cause__ = marked
    assert inner_retry_exhausted(caused, 0)

    while_handling = KeyError()
    while_handling.__context__ = caused
    while_handling.__suppress_context__ = True  # `from None` hides it from people only
    assert inner_retry_exhausted(while_handling, 0)

    group = ExceptionGroup("several", [KeyError(), ExceptionGroup("more", [while_handling])])
    assert inner_retry_exhausted(group, 0)


def test_cycles_and_endless_chains_end():
    first, second = ValueError(), ValueError()
    first.__cause__, second.__cause__ = second, first
    assert not inner_retry_exhausted(first, 0)

    last = ConnectionError()
    leave(last, "inner", 1, 0, exhausted=True)
    for _ in range(200):
        link = ValueError()
        link.__cause__ = last
        last = link
    assert not inner_retry_exhausted(last, 0)  # not looked for further than a hundred links


def test_exceptions_that_refuse_attributes_get_both():
    @dataclasses.dataclass(frozen=True)
    class FrozenError(Exception):
        code: int

    error = FrozenError(7)
    leave(error, "2 attempts", 1, 0, exhausted=True)
    assert notes(error) == ["resilience: 2 attempts"]
    assert inner_retry_exhausted(error, 0)


def test_both_survive_pickling_as_plain_values():
    error = ValueError("x")
    leave(error, "2 attempts", 1, 0, exhausted=True)
    twin = pickle.loads(pickle.dumps(error))
    assert notes(twin) == ["resilience: 2 attempts"]
    assert b"resilience.retry.traces" not in pickle.dumps(error)


def frames(error):
    names = []
    entry = error.__traceback__
    while entry is not None:
        names.append(entry.tb_frame.f_code.co_name)
        entry = entry.tb_next
    return names


def fail(error):
    raise error


def loop(error, attempts, first=2):
    for attempt in range(first, attempts + 1):
        try:
            fail(error)
        except ValueError as caught:
            forget_earlier_frames(caught, attempt)


def wrapper(error, attempts):
    with contextlib.suppress(ValueError):
        fail(error)
    loop(error, attempts)


@pytest.mark.parametrize("attempts", [2, 3, 10])
def test_an_exception_raised_again_keeps_only_the_frames_of_its_last_attempt(attempts):
    error = ValueError()
    wrapper(error, attempts)
    assert frames(error) == ["loop", "fail"]


def test_a_fresh_exceptions_frames_all_stay():
    error = ValueError()
    loop(error, attempts=3, first=3)
    assert frames(error) == ["loop", "fail"]


def test_an_exception_without_a_traceback_is_left_alone():
    error = ValueError()
    forget_earlier_frames(error, 2)
    assert error.__traceback__ is None
    assert sys.exception() is None
