"""What has arrived of a request, byte by byte and all at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.backend.serving.arrival import LONGEST_CHUNK_LINE, Arrival

HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n"
BEHIND = b"GET /next HTTP/1.1\r\n"


def chunked(*chunks, trailers=b"", extension=b""):
    pieces = [b"%x%s\r\n%s\r\n" % (len(chunk), extension, chunk) for chunk in chunks]
    return HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(pieces) + b"0\r\n" + trailers + b"\r\n"


WHOLE = {
    "no body": HEAD + b"\r\n",
    "a length": HEAD + b"Content-Length: 5\r\n\r\nhello",
    "no length": HEAD + b"content-length:0\r\n\r\n",
    "blanks": HEAD + b"Content-Length: \t 5 \r\n\r\nhello",
    "chunks": chunked(b"hello", b"world" * 5),
    "chunks that look like their end": chunked(b"0\r\n\r\n", b"\r\n\r\n"),
    "trailers": chunked(b"hello", trailers=b"X-A: b\r\n"),
    "extensions": chunked(b"hello", extension=b";name=value"),
    "no chunks": chunked(),
}


def arrival(**limits):
    return Arrival(**{"largest_head": 1000, "largest_body": 100} | limits)


@pytest.mark.parametrize("request_bytes", WHOLE.values(), ids=WHOLE)
@given(data=st.data())
def test_a_request_is_complete_with_its_last_byte_however_it_comes(request_bytes, data):
    cuts = data.draw(st.lists(st.integers(0, len(request_bytes) - 1), max_size=10).map(sorted))
    one = arrival()
    for begin, end in zip([0, *cuts], [*cuts, len(request_bytes) - 1], strict=True):
        one.take(request_bytes[begin:end])
    assert not one.is_complete
    one.take(request_bytes[-1:])
    assert one.is_complete
    assert one.is_whole
    assert one.bytes == request_bytes


@pytest.mark.parametrize("request_bytes", WHOLE.values(), ids=WHOLE)
def test_what_comes_behind_is_kept(request_bytes):
    one = arrival()
    one.take(request_bytes + BEHIND)
    assert one.is_complete
    assert one.bytes == request_bytes + BEHIND


def test_a_head_is_noticed_when_it_is_there():
    one = arrival()
    one.take(HEAD)
    assert not one.has_head
    one.take(b"Content-Length: 5\r\n\r\n")
    assert one.has_head
    assert not one.is_complete


def test_a_head_that_is_too_large_is_noticed_before_its_end():
    one = arrival(largest_head=100)
    one.take(HEAD + b"a" * 50)
    assert not one.is_too_large
    one.take(b"a" * 50)
    assert one.is_too_large
    whole = arrival(largest_head=100)
    whole.take(HEAD + b"X: " + b"a" * 100 + b"\r\n\r\n")
    assert whole.is_too_large


GIVEN_UP = {
    "too long": HEAD + b"Content-Length: 101\r\n\r\n",
    "no size": HEAD + b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n",
    "a negative size": HEAD + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n",
    "an endless size line": HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"0" * LONGEST_CHUNK_LINE,
    "a chunk that is too long": HEAD + b"Transfer-Encoding: chunked\r\n\r\nfffffff\r\n",
    "endless trailers": HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"a" * 2000,
    "both a length and chunks": HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "another coding": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
}


@pytest.mark.parametrize("request_bytes", GIVEN_UP.values(), ids=GIVEN_UP)
def test_what_will_be_refused_is_not_waited_for(request_bytes):
    one = arrival()
    one.take(request_bytes)
    assert one.is_complete
    assert not one.is_whole


def test_many_small_chunks_do_not_gather_without_end():
    one = arrival()
    one.take(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    taken = 0
    while not one.is_complete:
        one.take(b"1\r\na\r\n")
        taken += 6
    assert taken < 2000
    assert not one.is_whole


def test_who_waits_to_be_told_to_go_on_is_told_once_and_the_server_is_not_asked_again():
    one = arrival()
    assert one.take(HEAD + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    assert not one.take(b"hello")
    assert one.is_complete
    assert one.bytes == HEAD + b"Content-Length: 5\r\n\r\nhello"
    chunks = arrival()
    assert chunks.take(HEAD + b"expect:100-continue\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunks.take(b"1\r\na\r\n0\r\n\r\n")
    assert chunks.is_complete
    assert b"expect" not in chunks.bytes


@pytest.mark.parametrize("rest", [b"", b"Content-Length: 101\r\n"])
def test_nobody_is_told_to_send_what_is_not_wanted(rest):
    one = arrival()
    assert not one.take(HEAD + b"Expect: 100-continue\r\n" + rest + b"\r\n")
    assert one.is_complete
