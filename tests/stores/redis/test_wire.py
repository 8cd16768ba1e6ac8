from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience.stores.redis import wire
from resilience.stores.redis.wire import ErrorReply, Garbled, packed, parsed

replies = st.recursive(
    st.none()
    | st.integers(-(2**63), 2**63 - 1)
    | st.binary(max_size=20)
    | st.builds(ErrorReply, st.text("ABC xyz", max_size=10)),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=8,
)


def sent(reply):
    match reply:
        case None:
            return b"$-1\r\n"
        case int():
            return b":%d\r\n" % reply
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(reply), reply)
        case ErrorReply():
            return b"-%b\r\n" % reply.text.encode()
    return b"*%d\r\n%b" % (len(reply), b"".join(map(sent, reply)))


@given(replies, st.binary(max_size=5))
def test_reads_what_a_server_sends_and_leaves_what_follows(reply, rest):
    assert parsed(b"x" + sent(reply) + rest, 1) == (reply, 1 + len(sent(reply)))


@given(replies, st.data())
def test_waits_for_a_reply_that_is_not_whole(reply, data):
    whole = sent(reply)
    assert parsed(whole[: data.draw(st.integers(0, len(whole) - 1))]) is None


def test_waits_for_one_that_is_cut_anywhere():
    whole = sent([b"ada", None, 6, ErrorReply("ERR no"), [b""]])
    assert all(parsed(whole[:cut]) is None for cut in range(len(whole)))


@given(st.binary(max_size=30))
def test_is_never_upset_by_what_comes(data):
    try:
        found = parsed(data)
    except Garbled:
        return
    assert found is None or found[1] <= len(data)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"HTTP/1.1 400\r\n", "is no reply"),
        (b"\r\n", "is no reply"),
        (b":x\r\n", "is no number"),
        (b"$-2\r\n", "a string of -2 bytes"),
        (b"$99999999999\r\n", "a string of 99999999999 bytes"),
        (b"$2\r\nabc\r\n", "longer than was said"),
        (b"*-2\r\n", "a list of -2 replies"),
        (b"*99999999999\r\n", "a list of 99999999999 replies"),
        (b"+" + bytes(wire._LONGEST_LINE + 1), "a line without an end"),
    ],
)
def test_refuses_what_is_no_reply(data, why):
    with pytest.raises(Garbled, match=why):
        parsed(data)


def test_reads_a_status():
    assert parsed(b"+OK\r\n") == (b"OK", 5)


def test_tells_errors_apart():
    assert ErrorReply("NOSCRIPT No matching script").code == "NOSCRIPT"
    assert ErrorReply("READONLY You can't write").leads_astray
    assert not ErrorReply("ERR no").leads_astray


@given(st.lists(st.binary(max_size=9), min_size=1, max_size=4))
def test_packs_commands_as_a_server_reads_them(words):
    command = packed(*words)
    assert parsed(command) == (words, len(command))
