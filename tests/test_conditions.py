from __future__ import annotations

import concurrent.futures
import sys

import pytest

from resilience.callables import MisuseError
from resilience.conditions import is_cancellation, leaves, matcher, result_predicate, says_nothing
from resilience.errors import BulkheadFullError, CircuitOpenError, OverloadedError


class Answering(type):
    """A metaclass that lets a class be called like a predicate."""

    def __call__(cls, *args):
        raise AssertionError("asked as a predicate")


class MetaclassedError(Exception, metaclass=Answering):
    pass


def test_a_type_matches_its_subclasses():
    matches = matcher(OSError, "record_on")

    assert matches(ConnectionError())
    assert not matches(ValueError())


def test_a_predicate_is_asked():
    assert matcher(lambda error: error.args == (1,), "ignore")(ValueError(1))


def test_a_tuple_mixes_both_and_nests():
    matches = matcher((KeyError, (OSError, lambda error: "busy" in str(error))), "record_on")

    assert [matches(e) for e in (KeyError(), TimeoutError(), ValueError("busy"), ValueError())] == [
        True,
        True,
        True,
        False,
    ]


def test_nothing_matches_the_empty_tuple():
    assert not matcher((), "ignore")(ValueError())


def test_an_exception_class_with_a_metaclass_is_no_predicate():
    matches = matcher(MetaclassedError, "record_on")

    assert not matches(ValueError())
    assert matches(MetaclassedError.__new__(MetaclassedError))


async def asynchronous(error):
    return True


@pytest.mark.parametrize("wrong", [int, 5, None, "OSError", [OSError], asynchronous, (OSError, asynchronous)])
def test_what_is_neither_is_refused_by_name(wrong):
    with pytest.raises(TypeError, match=r"^record_on="):
        matcher(wrong, "record_on")


def test_a_cancelled_future_is_a_cancellation():
    assert is_cancellation(concurrent.futures.CancelledError())
    assert not is_cancellation(ValueError())


def test_where_futures_are_not_loaded_nothing_is_a_cancellation(monkeypatch):
    monkeypatch.delitem(sys.modules, "concurrent.futures")

    assert not is_cancellation(ValueError())


def test_a_predicate_of_results_is_a_plain_function_or_none():
    assert result_predicate(None, "failure_if_result") is None
    assert result_predicate(bool, "failure_if_result") is bool
    for wrong in (asynchronous, 5):
        with pytest.raises(TypeError, match="failure_if_result="):
            result_predicate(wrong, "failure_if_result")


REJECTED = CircuitOpenError("inner", 1.0)


@pytest.mark.parametrize(
    "error",
    [
        GeneratorExit(),
        KeyboardInterrupt(),
        concurrent.futures.CancelledError(),
        REJECTED,
        BulkheadFullError("inner", "full", None),
        OverloadedError("inner", "full", None),
        MisuseError("use execute_async"),
        ExceptionGroup("tasks", [REJECTED, ExceptionGroup("more", [concurrent.futures.CancelledError()])]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_says_nothing_about_what_was_called(error):
    assert says_nothing(error)


def test_what_says_something():
    assert not says_nothing(OSError())
    assert not says_nothing(ExceptionGroup("tasks", [REJECTED, OSError()]))


def test_leaves_are_those_of_a_group():
    assert leaves(ExceptionGroup("tasks", [REJECTED])) == (REJECTED,)
    assert leaves(REJECTED) == ()
