"""What is said about a call: checked when it is said."""

from __future__ import annotations

import enum

import pytest

from resilience import Criticality
from resilience.pipeline.context import Context


async def awaited():
    pass


def test_nothing_is_said_by_default():
    assert Context() == ((), 1, None, None, None)


def test_what_is_said_is_kept_and_changed():
    context = Context().changed(key="ada", cost=2, deadline=1, idempotent=False, criticality="sheddable")
    assert context == (("ada",), 2, 1.0, False, Criticality.SHEDDABLE)
    assert context.changed(key=None, deadline=None, idempotent=None, criticality=None) == (
        (),
        2,
        None,
        None,
        None,
    )
    assert context.changed(key=("ada", 7)).key == ("ada", 7)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"keys": "ada", "costs": 1},
            TypeError,
            "a call has no costs, keys: it may have key, cost, deadline",
        ),
        ({"key": ""}, ValueError, "a part of the key is empty"),
        ({"key": ("ada", None)}, TypeError, "parts of a key are str or int, not None"),
        ({"key": awaited}, TypeError, "is a coroutine function: pass a plain function"),
        ({"cost": 0}, ValueError, "cost must be at least 1"),
        ({"deadline": -1.0}, ValueError, "deadline must be a finite number of at least 0"),
        ({"idempotent": 1}, TypeError, "idempotent=1 must be True, False or None"),
        ({"criticality": "high"}, ValueError, "high"),
    ],
)
def test_what_cannot_be_said(options, error, message):
    with pytest.raises(error, match=message):
        Context().changed(**options)


def test_the_key_of_a_call():
    by_function = Context().changed(key=lambda user, *, host: (user, host))
    assert by_function.parts(("ada",), {"host": "a"}) == ("ada", "a")
    assert Context().changed(key=lambda user: user).parts(("ada",), {}) == ("ada",)
    assert Context().changed(key="ada").parts((), {}) == ("ada",)


def test_the_key_in_a_mapping():
    assert Context().changed(key="ada").own((), {}) == "ada"
    assert Context().changed(key=("ada", 7)).own((), {}) == ("ada", 7)
    with pytest.raises(TypeError, match="not None"):
        Context().changed(key=lambda user: user).own((None,), {})


def test_it_is_frozen():
    with pytest.raises(AttributeError):
        Context().cost = 2


class Host(enum.StrEnum):
    A = "a"


def test_an_enum_is_a_key():
    assert Context().changed(key=Host.A).parts((), {}) == ("a",)
