from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from resilience._core.counting import Charge
from resilience.stores import StoreUnavailable
from resilience.stores.redis import codec as module
from resilience.stores.redis.codec import Codec, load, slot
from resilience.stores.redis.wire import parsed
from tests.stores.conformance import counter

keys = st.text(st.characters(codec="utf-8")) | st.text("{}a") | st.binary()
limiters = st.text(st.characters(codec="utf-8"), min_size=1, max_size=5) | st.text(
    "a:{}% b", min_size=1, max_size=8
)


@given(keys, limiters)
def test_names_are_read_back(key, limiter):
    form = Codec("limits").form(counter(limiter=limiter))
    name = form.name(key)
    assert form.key(name) == key
    assert type(form.key(name)) is type(key)


@given(st.tuples(limiters, keys), st.tuples(limiters, keys))
def test_no_two_are_called_the_same(one, other):
    codec = Codec("limits")
    names = [codec.form(counter(limiter=limiter)).name(key) for limiter, key in (one, other)]
    assert (names[0] == names[1]) == (one == other)


@pytest.mark.parametrize("prefix", ["limits", "{limits}", "a{b}c"])
@given(keys, limiters, limiters)
def test_what_counts_for_one_key_lies_in_one_slot(prefix, key, limiter, other):
    codec = Codec(prefix)
    charges = [Charge(counter(limiter=name), key) for name in (limiter, other)]
    for request in (codec.take(charges[:1], bytes(16), 1100), codec.take(charges, bytes(16), 1100)):
        command, _ = parsed(request.command)
        names = command[3 : 3 + int(command[2])]
        assert len(set(map(slot, names))) == 1
        assert slot(request.key) == key_slot(names[0])


def test_a_prefix_in_braces_decides_the_slot():
    form = Codec("{limits}").form(counter())
    assert slot(form.name("ada")) == slot(form.name("bob")) == key_slot(b"limits")


@pytest.mark.parametrize("prefix", ["", "{}", "a{", "}", "{a}{b}", "a{}b"])
def test_refuses_a_prefix_that_would_part_keys(prefix):
    with pytest.raises(ValueError, match="one pair of braces with text in it"):
        Codec(prefix)


def test_refuses_a_prefix_that_is_no_text():
    with pytest.raises(TypeError, match="prefix must be a string, not b'limits'"):
        Codec(b"limits")


def test_paces_as_fine_as_a_microsecond_and_no_finer():
    each = Codec("limits").form(counter("1000000/second gcra")).counter
    assert each.rules.remaining(b"", 5) == 1_000_000
    with pytest.raises(ValueError, match="'login' allows 1000001/second gcra, and Redis cannot pace more"):
        Codec("limits").form(counter("1000001/second gcra"))


def test_rounds_paces_and_windows_up():
    codec = Codec("limits")
    assert [parsed(piece)[0] for piece in _pieces(codec.form(counter("7/second gcra")).figures)] == [
        b"7",
        b"%d" % (6 * 142_858),
        b"142858",
    ]
    assert [parsed(piece)[0] for piece in _pieces(codec.form(counter("100/0.0010001 seconds")).figures)] == [
        b"100",
        b"1001",
        b"16",
    ]


def _pieces(packed):
    while packed:
        _, end = parsed(packed)
        yield packed[:end]
        packed = packed[end:]


def test_forms_are_kept_and_bounded(monkeypatch):
    monkeypatch.setattr(module, "_MOST_FORMS", 2)
    codec = Codec("limits")
    first = codec.form(counter())
    assert codec.form(counter()) is first
    for number in range(5):
        codec.form(counter(limiter=f"limiter {number}"))
    assert len(codec._forms) <= 2
    assert codec.form(counter()).head == first.head


def test_patterns_match_only_the_names_of_one_counter():
    pattern = Codec("li*mits").form(counter(limiter="a[b]?\\^")).pattern
    assert pattern == rb"li\*mits:a\[b\]\?\\\^: 6/15 minutes:{*"


NOW = 1_700_000_000_000_000
LATER = (NOW + 60_000_000).to_bytes(7, "big")


@pytest.mark.parametrize(
    ("notation", "state", "remaining", "receipt"),
    [
        ("6/minute", LATER * 2, 4, NOW + 60_000_000),
        ("66/minute", (5).to_bytes(4, "big") + LATER + (5).to_bytes(4, "big"), 61, NOW + 60_000_000),
        ("6/minute gcra", (NOW - 30_000_000).to_bytes(8, "big"), 4, NOW - 30_000_000),
        ("6/minute fixed-window", LATER + (5).to_bytes(4, "big"), 1, NOW + 60_000_000),
    ],
)
def test_works_out_the_figures_of_what_redis_keeps(notation, state, remaining, receipt):
    codec, each = Codec("limits"), counter(notation)
    charges = [Charge(each, "ada"), Charge(each, "bob", 66)]
    answers = [b"\1" + len(state).to_bytes(2, "big") + state, b"\0\0\0"]
    reply = NOW.to_bytes(7, "big") + b"".join(answers)
    full, empty = codec.taken(charges, reply)
    assert (full.allowed, full.remaining, full.retry_after) == (True, remaining, 0)
    assert full.reset_after == (20 if "gcra" in notation else 60)
    assert full.receipt == receipt * 1000
    assert (empty.allowed, empty.remaining, empty.reset_after) == (False, each.quota.limit, 0)
    assert empty.retry_after == (0 if each.quota.limit == 66 else None)
    foreseen = codec.foreseen(charges, reply)
    assert [decision.allowed for decision in foreseen] == [True, each.quota.limit == 66]
    assert [decision.remaining for decision in foreseen] == [remaining, each.quota.limit]
    assert codec.form(each).counter.quota == each.quota


def test_asks_for_states_and_gives_back():
    codec = Codec("limits")
    (_, sha, count, *rest), _ = parsed(
        codec.peek([(counter(), "ada"), (counter("9/hour gcra"), "bob")]).command
    )
    assert (sha, count) == (module.scripts.PEEK.sha, b"2")
    assert rest[2:8] == [b"l", b"6", b"900000000", b"0", b"0", b"0"]
    request = codec.refund([Charge(counter(), "ada", 2)], [17_000], b"token", 1100)
    (_, sha, count, *rest), _ = parsed(request.command)
    assert (sha, count) == (module.scripts.REFUND.sha, b"2")
    assert rest[1:] == [b"limits:{ada}rtoken", b"1100", b"l", b"6", b"900000000", b"0", b"2", b"17"]


@pytest.mark.parametrize("reply", [b"", b"OK", bytes(9), bytes(12), bytes(7) + b"\0\0\2x"])
def test_refuses_a_reply_that_no_script_gives(reply):
    with pytest.raises(StoreUnavailable, match="is no Redis, or something in between"):
        Codec("limits").taken([Charge(counter(), "ada")], reply)


def test_makes_scripts_known():
    script = module.scripts.PEEK
    assert parsed(load(script))[0] == [b"SCRIPT", b"LOAD", script.source]


def test_takes_without_a_token():
    request = Codec("limits").take_without_token(Charge(counter(), "ada", 2))
    assert parsed(request.command)[0][2:] == [
        b"1",
        b"limits:login: 6/15 minutes:{ada}",
        b"0",
        b"2",
        b"6",
        b"900000000",
        b"0",
    ]


def test_an_undo_names_the_token_of_the_take():
    codec, charges = Codec("limits"), [Charge(counter(), "ada")]
    (_, _, _, _, token, *_), _ = parsed(codec.take(charges, b"token", 1100).command)
    (_, sha, _, _, forgotten, *_), _ = parsed(codec.undo(charges, [17_000], b"token").command)
    assert forgotten == token == b"limits:{ada}ttoken"
    assert sha == module.scripts.UNDO.sha
