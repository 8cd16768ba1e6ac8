from __future__ import annotations

import enum
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience._core.key import EVERYBODY, canonical, fold, parts_of

TEXT = st.text(st.characters(codec=None, categories=None), min_size=1)


class Role(enum.StrEnum):
    ADMIN = "admin"


class Level(enum.IntEnum):
    HIGH = 7


def test_plain_keys_are_themselves():
    assert canonical(("ada@example.com",)) == "ada@example.com"
    assert canonical((42,)) == "42"
    assert canonical(()) == EVERYBODY
    assert type(canonical((Role.ADMIN,))) is str
    assert canonical((Role.ADMIN,)) == "admin"
    assert canonical((Level.HIGH,)) == canonical((7,)) == "7"


def test_parts_do_not_run_together():
    assert canonical(("a/b", "c")) != canonical(("a", "b/c"))
    assert canonical(("a", "b")) != canonical(("ab",))
    assert canonical(("1:a1:b",)) != canonical(("a", "b"))


@given(st.lists(TEXT, max_size=4), st.lists(TEXT, max_size=4))
def test_two_keys_are_equal_only_where_their_parts_are(one, other):
    def nfc(parts):
        return [unicodedata.normalize("NFC", part) for part in parts]

    assert (canonical(tuple(one)) == canonical(tuple(other))) == (nfc(one) == nfc(other))


@given(st.lists(TEXT, max_size=5))
def test_keys_are_bounded_and_storable(parts):
    key = canonical(tuple(parts))
    assert len(key) <= 256
    assert isinstance(key, bytes) or key.encode()


def test_compositions_are_one_key():
    assert canonical(("é",)) == canonical(("e\u0301",))
    assert canonical(("e\u0301", "x")) == canonical(("é", "x"))


def test_long_keys_are_hashed():
    long = canonical(("x" * 1_000_000,))
    assert len(long) == 33
    assert long != canonical(("x" * 1_000_001,))
    assert parts_of(long) == ("#" + long[1:].hex(),)


def test_nul_and_lone_surrogates():
    assert canonical(("a\0b",)) == "a\0b"
    assert isinstance(canonical(("a\ud800",)), bytes)
    assert canonical(("a\ud800",)) != canonical(("a\ud801",))


@pytest.mark.parametrize("part", [None, True, 1.5, b"ada", ["ada"], object()])
def test_other_types_are_refused(part):
    with pytest.raises(TypeError, match="the parts of a key are str or int, not"):
        canonical((part,))
    with pytest.raises(TypeError, match="the parts of a key are str or int, not"):
        canonical(("ada", part))


@pytest.mark.parametrize("parts", [("",), ("ada", "")])
def test_empty_parts_are_refused(parts):
    with pytest.raises(ValueError, match="a part of the key is empty"):
        canonical(parts)


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=20), min_size=1, max_size=3))
def test_parts_come_back_for_people(parts):
    assert parts_of(canonical(tuple(parts))) == tuple(unicodedata.normalize("NFC", part) for part in parts)


def test_everybody_has_no_parts():
    assert parts_of(EVERYBODY) == ()


@pytest.mark.parametrize(
    "name",
    ["ada@example.com", " Ada@Example.COM", "ADA@EXAMPLE.COM.", "ada@example.com . ", "ａｄａ@example.com"],  # noqa: RUF001 - full width on purpose
)
def test_fold(name):
    assert fold(name) == "ada@example.com"


@given(st.text(st.one_of(st.sampled_from(". \t\u3000aA\u0345"), st.characters(codec=None, categories=None))))
def test_folding_twice_changes_nothing(name):
    assert fold(fold(name)) == fold(name)


def test_folding_is_not_slowed_down_by_many_dots():
    assert fold("." * 100_000 + "x" + " ." * 100_000) == "." * 100_000 + "x"
