"""Request ids and text for a log line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience.http.text import is_request_id, one_line, request_id


@pytest.mark.parametrize("proposed", ["a", "web-42", "A.b_C-9", "x" * 64])
def test_a_safe_id_is_kept(proposed):
    assert request_id(proposed) == proposed


@pytest.mark.parametrize("proposed", [None, "", "a b", "x" * 65, "a\n", "ä", "a/b", "\x00", "ⅷ"])
def test_any_other_is_replaced_by_a_fresh_one(proposed):
    first, second = request_id(proposed), request_id(proposed)
    assert first != second
    assert is_request_id(first)
    assert len(first) == 32


def test_what_can_be_printed_stays_as_it_is():
    assert one_line("Åsa, 東京 and \\n") == "Åsa, 東京 and \\n"


def test_what_cannot_be_printed_is_escaped():
    assert one_line("a\r\n\x1b[31m\u2028\x00\udc80\u202e") == r"a\r\n\x1b[31m\u2028\x00\udc80\u202e"


def test_what_is_long_is_cut():
    assert one_line("x" * 300) == "x" * 256 + "…"
    assert one_line("abc", 3) == "abc"
    assert one_line("abcd", 3) == "abc…"


@given(st.text(alphabet=st.characters(codec=None)))
def test_the_result_is_one_printable_line(text):
    line = one_line(text)
    assert line.isprintable()
    assert len(line.splitlines()) <= 1
    line.encode("utf-8")
