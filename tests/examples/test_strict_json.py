"""The reader of JSON from strangers: what it takes is what it was given, and all else is a 400."""

from __future__ import annotations

import contextlib
import doctest
import json
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from examples.backend.api import strict_json
from examples.backend.api.strict_json import MAX_DEPTH, MAX_INTEGER, parse
from resilience import ErrorCode, ServiceError

TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-MAX_INTEGER, MAX_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=30)


def refused(body: bytes) -> str:
    """Return why `body` is refused."""
    with pytest.raises(ServiceError) as caught:
        parse(body)
    assert (caught.value.code, caught.value.status) == (ErrorCode.VALIDATION_ERROR, 400)
    assert caught.value.__cause__ is None  # neither body nor traceback of the decoder hangs on it
    return caught.value.message


@given(VALUES, st.booleans(), st.sampled_from([None, 0, 2]))
def test_what_a_friend_writes_is_read_as_it_was_meant(value, ascii_only, indent):
    body = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    read = parse(body)
    assert read == value
    assert json.dumps(read) == json.dumps(value)  # 1, 1.0 and True are equal, but not the same


@given(st.binary(max_size=200))
@example(b"")
@example(b"\xff")
@example(b'"')
@example(b'"\\')
@example(b"[" * 33)
def test_whatever_comes_is_read_or_refused(body):
    try:
        value = parse(body)
    except ServiceError as error:
        assert error.code == ErrorCode.VALIDATION_ERROR  # noqa: PT017 - it may raise, but nothing else
    else:
        assert value == json.loads(body)


@given(st.text(alphabet='[]{}"\\:,0aeE+-.u8dN\0 \u2028', max_size=60))
def test_whatever_looks_like_json_is_read_or_refused(text):
    test_whatever_comes_is_read_or_refused.hypothesis.inner_test(text.encode())


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("around", ["%s", '{"a": %s}', "[1, %s]"])
def test_nan_and_infinity_are_no_json(constant, around):
    assert "NaN or Infinity" in refused((around % constant).encode())


@pytest.mark.parametrize("number", ["1e400", "-1e400", "1E+309", "9" * 30 + "e300"])
def test_a_number_that_becomes_infinite_is_refused(number):
    assert "too large" in refused(number.encode())


def test_a_number_that_is_next_to_nothing_is_nothing():
    assert parse(b"1e-400") == 0.0


@pytest.mark.parametrize("number", [MAX_INTEGER + 1, -MAX_INTEGER - 1, 10**63])
def test_an_integer_that_no_column_holds_is_refused(number):
    assert "64 bits" in refused(str(number).encode())


def test_the_largest_integers_are_read():
    assert parse(str(MAX_INTEGER).encode()) == MAX_INTEGER
    assert parse(str(-MAX_INTEGER).encode()) == -MAX_INTEGER


@pytest.mark.parametrize("digits", ["9" * 100_000, "-" + "9" * 100_000])
def test_an_endless_integer_is_not_computed(digits):
    """Whatever the interpreter's own limit is: it may be switched off, and its message is not for clients."""
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        assert "64 bits" in refused(digits.encode())
    finally:
        sys.set_int_max_str_digits(before)


def test_an_endless_fraction_is_not_computed():
    assert "64 characters" in refused(b"0." + b"1" * 100_000)


@pytest.mark.parametrize(
    "body", [b'{"a": 1, "a": 1}', b'{"a": 1, "\\u0061": 2}', b'[{"x": {"": 0, "b": 1, "": 0}}]']
)
def test_two_members_of_one_name_are_refused(body):
    assert refused(body) == "The JSON names a member twice"


@pytest.mark.parametrize("opening", ["[", '{"a":', '{"a":[', " [ "])
def test_depth_is_refused_before_anything_recurs(opening):
    assert f"{MAX_DEPTH} levels" in refused(opening.encode() * 100_000)


@pytest.mark.parametrize("depth", [MAX_DEPTH, MAX_DEPTH + 1])
def test_the_bound_on_depth_is_exact(depth):
    body = b'["]{}[",' * (depth - 1) + b"[]" + b"]" * (depth - 1)
    if depth > MAX_DEPTH:
        assert "levels deep" in refused(body)
    else:
        assert len(parse(body)) == 2


def test_breadth_is_not_depth():
    assert len(parse(b"[" + b"[{}]," * 1000 + b"[]]")) == 1001
    assert parse(b'["' + b"[" * 1000 + b'"]') == ["[" * 1000]
    assert len(parse(b'["' + b'\\"[' * 1000 + b'"]')[0]) == 2000


def test_a_byte_order_mark_is_refused():
    assert "byte order mark" in refused(b"\xef\xbb\xbf{}")


@pytest.mark.parametrize(
    "body",
    [b'"\xff"', b'"\xc0\xaf"', b'"\xed\xa0\x80"', "{}".encode("utf-16"), "{}".encode("utf-32-be") + b"\xff"],
)
def test_what_is_not_utf8_is_refused(body):
    assert "UTF-8" in refused(body)


def test_other_encodings_are_not_guessed():
    """`json.loads` reads UTF-16 and UTF-32 too, by looking at where the zeros are."""
    assert "not JSON" in refused("{}".encode("utf-16-be"))


@pytest.mark.parametrize(
    "body", [b'"\\ud800"', b'{"\\uDFFF": 1}', b'["\\udc00\\ud800"]', b'{"a": ["\\u0000"]}', b'"x\\ud83d"']
)
def test_half_characters_and_nul_are_refused(body):
    assert "half a character, or with NUL" in refused(body)


def test_escapes_that_make_sense_are_read():
    assert parse(b'["\\ud83d\\ude00", "\\\\u0000", "\\\\ud800", "\\u00e9", 1, null]') == [
        "\U0001f600", "\\u0000", "\\ud800", "\xe9", 1, None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "body",
    [b"", b" ", b"{", b"[1,]", b"{'a': 1}", b"01", b"1 2", b'"\n"', b"nul", b"\0", b"{}\0", b"+1", b".5"],
)
def test_what_is_no_json_is_told_where(body):
    assert refused(body).startswith("The body is not JSON: line ")


@given(
    st.text(alphabet="secret", min_size=3, max_size=5),
    st.sampled_from(['"%s', "%s", '{"%s" 1}', '["%s\\ud800"]']),
)
def test_what_was_sent_is_not_repeated(secret, form):
    assert secret not in refused((form % secret).encode())


HOSTILE = {
    "quotes that are escaped in a string that does not end": lambda n: b'"' + b'\\"' * (n // 2),
    "strings that do not end": lambda n: b'"a\\' * (n // 3),
    "brackets": lambda n: b"[" * n,
    "brackets in a string behind brackets": lambda n: b"[" * 30 + b'"' + b"[" * n,
    "backslashes": lambda n: b'["' + b"\\" * n,
    "members": lambda n: b"{" + b",".join(b'"%d":0' % i for i in range(n // 10)) + b"}",
    "numbers": lambda n: b"[" + b"1" * n + b"]",
    "escapes": lambda n: b'["' + b"\\u0041" * (n // 6) + b'"]',
    "empty arrays": lambda n: b"[" + b"[]," * (n // 3) + b"[]]",
    "spaces": lambda n: b" " * n,
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE.keys())
def test_the_time_is_linear(make):
    """A million bytes are read in a moment; were the time quadratic, this would not come to an end."""
    with contextlib.suppress(ServiceError):
        parse(make(1_000_000))


def test_the_bounds_are_what_the_docs_say():
    assert (strict_json.MAX_DEPTH, strict_json.MAX_NUMBER) == (32, 64)


def test_its_example_runs():
    assert doctest.testmod(strict_json).failed == 0
