from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from resilience._core.ledger import KEPT, NO_NEWS, Ledger, Report
from resilience.boards.coding import GarbledError, label_of, news_in, taken

NOW = 1e9
FIELDS = Ledger(5, is_open=True, began=NOW, rest=10.0, leases={"a": NOW + 1.0})._asdict()


def test_what_is_written_is_read_again():
    text, keep_for, answer = taken(None, Report("p", NO_NEWS, opens=True, rest=10.0), NOW)

    assert keep_for == 10.0 + KEPT
    assert news_in(text, NOW) == answer.news
    assert taken(text, Report("p", answer.news), NOW) == (None, keep_for, answer)


def test_nothing_is_no_news():
    assert news_in(None, NOW) == NO_NEWS


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("generation", -1),
        ("generation", 1.5),
        ("generation", True),
        ("generation", 1 << 62),
        ("successes", None),
        ("is_open", 1),
        ("began", "now"),
        ("rest", -1.0),
        ("rest", 10**400),
        ("recovery_time", True),
        ("leases", ["a"]),
        ("leases", {"a": "soon"}),
        ("votes", None),
        ("surprise", 1),
    ],
)
def test_a_field_that_cannot_be_is_refused(field, value):
    with pytest.raises(GarbledError, match="is no ledger of a breaker"):
        news_in(json.dumps({**FIELDS, field: value}), NOW)


@pytest.mark.parametrize("text", ["", "[]", "7", "null", '{"generation": NaN}', "[" * 100_000, "\0", "�"])
def test_what_is_no_ledger_is_refused(text):
    with pytest.raises(GarbledError):
        taken(text, Report("p", NO_NEWS), NOW)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(sorted(FIELDS)), inner),
    )
)
@example({**FIELDS, "rest": float("nan")})
@example({**FIELDS, "rest": float("inf")})
def test_any_json_is_a_ledger_or_refused(value):
    try:
        news = news_in(json.dumps(value), NOW)
    except GarbledError:
        return
    assert news.remaining >= 0


# --- labels --------------------------------------------------------------------------------------


@given(st.text(st.characters(), max_size=300), st.text(st.characters(), max_size=300))
@example("\ud800", "\0")
@example("", "#")
def test_a_label_is_short_plain_text_and_tells_names_apart(one, other):
    label = label_of(one)

    assert 0 < len(label) <= 200
    assert label.isascii()
    assert label.isprintable()
    assert (label == label_of(other)) == (one == other)


def test_a_plain_name_is_its_own_label():
    assert label_of("hosts:a.example") == "hosts:a.example"
    assert label_of("#" + "0" * 32) != "#" + "0" * 32
