"""Conversations with a server that says what the test wants; whole stores are tested on real ones."""

from __future__ import annotations

import logging

import pytest

from resilience._core.counting import Charge
from resilience.stores import StoreUnavailable
from resilience.stores.engine import Unable
from resilience.stores.redis import scripts
from resilience.stores.redis.codec import Codec
from resilience.stores.redis.conversation import Ask, Conversations
from resilience.stores.redis.wire import ErrorReply, parsed
from tests.stores.conformance import counter

SIX, WIDE = counter(), counter("100/hour", limiter="wide")
ONE = [Charge(SIX, "ada")]
TWO = [Charge(SIX, "ada"), Charge(WIDE, "bob")]
NOW = 1_700_000_000_000_000
TOKEN = bytes(16)


def told(*answers):
    """A reply of a script: (fits, state) of each charge."""
    each = b"".join(bytes([fits]) + len(state).to_bytes(2, "big") + state for fits, state in answers)
    return NOW.to_bytes(7, "big") + each


LOG = (NOW + 900_000_000).to_bytes(7, "big")
COUNTS = (1).to_bytes(4, "big") + (NOW + 3_600_000_000).to_bytes(7, "big") + (1).to_bytes(4, "big")
FITS, FULL = (True, LOG), (False, LOG * 6)
WIDE_FITS, WIDE_FULL = (
    (True, COUNTS),
    (False, (100).to_bytes(4, "big") + COUNTS[4:11] + (100).to_bytes(4, "big")),
)


@pytest.fixture
def talk():
    return Conversations(Codec("limits"), "cache:6379")


def held(conversation, *replies):
    """Hold a conversation in which the server says `replies`; return what was asked, and what it came to."""
    asked = []
    rest = list(replies)
    try:
        ask = next(conversation)
        while True:
            asked.append((ask.address, *words(ask)))
            replies = rest.pop(0)
            ask = conversation.send(replies if isinstance(replies, list) else [replies])
    except StopIteration as done:
        assert not rest
        return asked, done.value


def words(ask):
    """Return the first word of each command; for a script, which one it is."""
    names = {script.sha: name for name, script in vars(scripts).items() if isinstance(script, scripts.Script)}
    at, found = 0, []
    while at < len(ask.commands):
        command, at = parsed(ask.commands, at)
        found.append(names.get(command[1], "TAKE_ONE") if command[0] == b"EVALSHA" else command[0].decode())
    assert len(found) == ask.replies
    return found


def error(text):
    return ErrorReply(text)


def test_the_usual_question_is_one_command(talk):
    assert words(Ask(None, talk.question(ONE, TOKEN, 0.05))) == ["TAKE_ONE"]
    assert words(Ask(None, talk.question(TWO, TOKEN, 0.05))) == ["TAKE"]
    [decision] = talk.answer(ONE, told(FITS))
    assert (bool(decision), decision.remaining, decision.receipt) == (True, 5, (NOW + 900_000_000) * 1000)
    talk.nodes.clustered = True
    assert talk.question(ONE, TOKEN, 0.05) is None


def test_a_token_outlives_the_call(talk):
    for seconds, life in [(-1, b"1100"), (0.05, b"1200"), (10, b"21100")]:
        command, _ = parsed(talk.question(ONE, TOKEN, seconds))
        assert command[5] == life


@pytest.mark.parametrize("asked", [False, True])
def test_takes(talk, asked):
    questions, decisions = held(talk.take(TWO, TOKEN, 1, asked=asked), told(FITS, WIDE_FITS))
    assert questions == [(None, "TAKE")]
    assert [decision.remaining for decision in decisions] == [5, 99]


def test_a_missing_script_is_loaded_once(talk):
    missing = error("NOSCRIPT No matching script.")
    questions, [decision] = held(talk.take(ONE, TOKEN, 1), missing, [b"sha", told(FITS)])
    assert questions == [(None, "TAKE_ONE"), (None, "SCRIPT", "TAKE_ONE")]
    assert decision
    with pytest.raises(StoreUnavailable, match="ACL SETUSER"):
        held(
            talk.take(ONE, TOKEN, 1), missing, [error("NOPERM no permissions to run 'script|load'"), missing]
        )


def test_a_server_that_never_keeps_a_script_is_given_up(talk):
    missing = error("NOSCRIPT No matching script.")
    with pytest.raises(StoreUnavailable, match="it forgets scripts"):
        held(talk.take(ONE, TOKEN, 1), missing, *[[b"sha", missing]] * 5)


def test_moved_and_ask_are_followed(talk):
    name = talk._codec.form(SIX).name("ada")
    from redis.crc import key_slot

    slot = key_slot(name)
    questions, [decision] = held(
        talk.take(ONE, TOKEN, 1),
        error(f"MOVED {slot} one:7001"),
        error(f"ASK {slot} two:7002"),
        [b"OK", told(FITS)],
    )
    assert questions == [
        (None, "TAKE_ONE"),
        (("one", 7001), "TAKE_ONE"),
        (("two", 7002), "ASKING", "TAKE_ONE"),
    ]
    assert decision
    assert held(talk.take(ONE, TOKEN, 1), told(FITS))[0] == [(("one", 7001), "TAKE_ONE")]


def test_going_round_in_circles_ends(talk):
    with pytest.raises(StoreUnavailable, match="MOVED 5 one:7001"):
        held(talk.take(ONE, TOKEN, 1), *[error("MOVED 5 one:7001")] * 6)


def test_keys_in_several_slots_are_taken_slot_by_slot(talk):
    questions, decisions = held(
        talk.take(TWO, TOKEN, 1), error("CROSSSLOT Keys in request"), told(FITS), told(WIDE_FITS)
    )
    assert [each[1] for each in questions] == ["TAKE", "TAKE_ONE", "TAKE_ONE"]
    assert [decision.remaining for decision in decisions] == [5, 99]


def test_a_refusal_in_a_later_slot_undoes_what_was_taken(talk):
    talk.nodes.clustered = True
    before = (False, b"")
    questions, decisions = held(
        talk.take(TWO, TOKEN, 1), told(FITS), told(WIDE_FULL), b"1", told(before), told(WIDE_FULL)
    )
    assert [each[1] for each in questions] == ["TAKE_ONE", "TAKE_ONE", "UNDO", "PEEK", "PEEK"]
    assert [bool(decision) for decision in decisions] == [True, False]
    assert [decision.remaining for decision in decisions] == [6, 0]


def test_a_refusal_stands_even_if_there_is_room_by_the_time_of_the_second_look(talk):
    talk.nodes.clustered = True
    replies = [told(FITS), told(WIDE_FULL), b"1", told((False, b"")), told((False, b""))]
    _, decisions = held(talk.take(TWO, TOKEN, 1), *replies)
    assert [bool(decision) for decision in decisions] == [True, False]


def test_an_error_in_a_later_slot_undoes_what_was_taken(talk):
    talk.nodes.clustered = True
    conversation = talk.take(TWO, TOKEN, 1)
    next(conversation)
    conversation.send([told(FITS)])
    assert words(conversation.send([error("OOM command not allowed")])) == ["UNDO"]
    with pytest.raises(StoreUnavailable, match="no room"):
        conversation.send([b"1"])


def test_a_refusal_in_the_first_slot_has_nothing_to_undo(talk):
    talk.nodes.clustered = True
    questions, decisions = held(talk.take(TWO, TOKEN, 1), told(FULL), told(FULL), told((False, b"")))
    assert [each[1] for each in questions] == ["TAKE_ONE", "PEEK", "PEEK"]
    assert [bool(decision) for decision in decisions] == [False, True]


def test_while_a_slot_moves_one_charge_is_taken_without_a_token_and_several_are_not(talk):
    moving = error("TRYAGAIN Multiple keys request during rehashing of slot")
    conversation = talk.take(ONE, TOKEN, 1)
    next(conversation)
    ask = conversation.send([moving])
    command, _ = parsed(ask.commands)
    assert command[2] == b"1"
    with pytest.raises(StopIteration) as done:
        conversation.send([told(FITS)])
    assert done.value.value[0]
    with pytest.raises(Unable, match="moving these keys"):
        held(talk.take([Charge(SIX, "ada"), Charge(WIDE, "ada")], TOKEN, 1), moving)


def test_an_error_says_which_key(talk):
    with pytest.raises(StoreUnavailable, match=r"limits:login: 6/15 minutes:\{ada\}"):
        held(talk.take(ONE, TOKEN, 1), error("WRONGTYPE Operation against a key"))


def test_peeks_and_refunds_slot_by_slot_once_it_is_known(talk):
    crossing = error("CROSSSLOT Keys in request")
    questions, decisions = held(talk.peek(TWO), crossing, told(FULL), told(WIDE_FITS))
    assert [each[1] for each in questions] == ["PEEK"] * 3
    assert [bool(decision) for decision in decisions] == [False, True]
    questions, _ = held(talk.refund(TWO, [7000, 8000], TOKEN, 1), b"1", b"1")
    assert [each[1] for each in questions] == ["REFUND"] * 2


def test_resets_by_one_command(talk):
    assert held(talk.reset([SIX, WIDE], "ada"), 2)[0] == [(None, "DEL")]


def never():
    return False


def test_holding_looks_at_no_more_keys_than_asked_for(talk):
    name = talk._codec.form(SIX).name
    first = [b"17", [name("ada"), name("bob"), name("ada")]]
    questions, holding = held(
        talk.holding([SIX, WIDE], 2, never),
        [first],
        [[b"0", [name("eve")]]],
        [[b"0", [talk._codec.form(WIDE).name("ada")]]],
        told((False, LOG), (False, b"")),
    )
    assert [each[1] for each in questions] == ["SCAN", "SCAN", "SCAN", "PEEK"]
    assert holding.size == 4
    [entry] = holding.entries
    assert (entry.counter, entry.key, entry.remaining, entry.reset_after) == (SIX, "ada", 5, 900)


def test_holding_ends_when_its_time_is_up_or_after_many_scans(talk):
    endless = [[b"17", []]]
    assert held(talk.holding([SIX], 2, lambda: True), endless)[1] == (0, ())
    questions, _ = held(talk.holding([SIX], 2, never), *[endless] * 100)
    assert len(questions) == 100


def test_holding_asks_all_nodes_of_a_cluster(talk):
    talk.nodes.clustered = True
    ranges = [[0, 8191, [b"one", 7001]], [8192, 16383, [b"two", 7002]]]
    questions, _ = held(talk.holding([SIX], 2, never), [ranges], [[b"0", []]], [[b"0", []]])
    assert questions == [(None, "CLUSTER"), (("one", 7001), "SCAN"), (("two", 7002), "SCAN")]
    questions, _ = held(talk.holding([SIX], 2, never), [[]], [[b"0", []]])
    assert questions[1] == (None, "SCAN")


def test_holding_without_the_right_is_an_error(talk):
    with pytest.raises(StoreUnavailable, match=r"\+scan"):
        held(talk.holding([SIX], 2, never), error("NOPERM no permissions to run the 'scan' command"))


def test_loads_all_scripts_in_one_go(talk):
    questions, _ = held(talk.load(), [b"sha"] * 8)
    assert questions == [(None, *["SCRIPT"] * 8)]
    with pytest.raises(StoreUnavailable, match=r"script\|load"):
        held(talk.load(), [b"sha"] * 7 + [error("NOPERM no permissions to run the 'script|load' command")])


@pytest.mark.parametrize(
    ("memory", "said"),
    [
        (b"# Memory\r\nmaxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\n", None),
        (b"maxmemory:99\r\nmaxmemory_policy:noeviction\r\n", None),
        (
            b"maxmemory:99\r\nmaxmemory_policy:allkeys-lru\r\n",
            "drops keys when its memory is full (allkeys-lru)",
        ),
        (
            b"maxmemory:99\r\nmaxmemory_policy:volatile-ttl\r\n",
            "drops keys when its memory is full (volatile-ttl)",
        ),
        (ErrorReply("NOPERM no permissions to run the 'info' command"), "does not tell its maxmemory-policy"),
    ],
)
def test_sees_whether_the_server_drops_keys(talk, caplog, memory, said):
    with caplog.at_level(logging.WARNING, "resilience"):
        talk.see(memory, b"cluster_enabled:0")
    assert [record.getMessage().split(":")[1][5:] for record in caplog.records] == ([said] if said else [])
    assert not talk.nodes.clustered


def test_sees_whether_it_is_a_cluster(talk):
    talk.see(b"maxmemory:0\r\n", b"# Cluster\r\ncluster_enabled:1\r\n")
    assert talk.nodes.clustered
