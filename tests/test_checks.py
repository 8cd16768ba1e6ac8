"""Numbers and names as arguments: what is refused, and what the error says."""

from __future__ import annotations

import math

import pytest

from resilience.checks import count, number, optional_name


def test_a_number_comes_back_as_a_float():
    assert number("delay", 3) == 3.0
    assert isinstance(number("delay", 3), float)
    assert number("delay", 0.5, least=0.5, most=0.5) == 0.5


@pytest.mark.parametrize("value", [True, "3", None, 1j])
def test_what_is_no_number_is_refused(value):
    with pytest.raises(TypeError, match="delay must be a number, not "):
        number("delay", value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_only_finite_numbers_are_accepted(value):
    with pytest.raises(ValueError, match=f"delay must be a finite number of any size, not {value!r}"):
        number("delay", value)


@pytest.mark.parametrize(
    ("bounds", "value", "message"),
    [
        ({"least": 0}, -1, "of at least 0, not -1"),
        ({"above": 0}, 0, "above 0, not 0"),
        ({"above": 0, "most": 1}, 1.5, "above 0 and of at most 1, not 1.5"),
    ],
)
def test_the_message_names_bounds_and_value(bounds, value, message):
    with pytest.raises(ValueError, match=f"^jitter must be a finite number {message}$"):
        number("jitter", value, **bounds)


def test_a_count_is_a_whole_number():
    assert count("attempts", 3, least=1) == 3
    with pytest.raises(TypeError, match=r"attempts must be a whole number, not 2\.0"):
        count("attempts", 2.0, least=1)
    with pytest.raises(TypeError, match="not True"):
        count("attempts", True, least=1)
    with pytest.raises(ValueError, match="attempts must be at least 1, not 0"):
        count("attempts", 0, least=1)


def test_a_name_is_a_string_or_left_out():
    assert optional_name("storage") == "storage"
    assert optional_name(None) is None
    with pytest.raises(TypeError, match=r"^name=5 must be a string$"):
        optional_name(5)
