from __future__ import annotations

import pytest
from redis.crc import key_slot

from resilience.stores.redis.nodes import Nodes
from resilience.stores.redis.wire import ErrorReply

ONE, TWO, THREE = ("one", 7001), ("two", 7002), ("three", 7003)
RANGES = [
    [0, 8191, [b"one", 7001, b"id"], [b"replica", 7009, b"id"]],
    [8192, 16383, [b"two", 7002, b"id"]],
]


@pytest.fixture
def nodes():
    known = Nodes()
    known.clustered = True
    return known


def key_in(first, last):
    return next(b"%d" % n for n in range(10_000) if first <= key_slot(b"%d" % n) <= last)


LOW, HIGH = key_in(0, 8191), key_in(8192, 16383)


def test_a_single_server_is_asked_about_everything():
    nodes = Nodes()
    assert nodes.address(LOW) is None
    assert nodes.groups([LOW, HIGH]) == [[0, 1]]
    nodes.lost(None)
    assert nodes.address(LOW) is None


def test_moved_is_remembered_and_ask_is_not(nodes):
    slot = key_slot(LOW)
    assert nodes.redirection(ErrorReply(f"ASK {slot} two:7002")) == (TWO, True)
    assert nodes.address(LOW) is None
    assert nodes.redirection(ErrorReply(f"MOVED {slot} one:7001")) == (ONE, False)
    assert nodes.address(LOW) == ONE
    assert nodes.address(HIGH) is None
    assert nodes.redirection(ErrorReply("ERR no")) is None


def test_moved_tells_of_a_cluster_and_may_name_an_ipv6_address():
    nodes = Nodes()
    assert nodes.redirection(ErrorReply("MOVED 1 ::1:7001")) == (("::1", 7001), False)
    assert nodes.redirection(ErrorReply("MOVED 1 [::1]:7001")) == (("::1", 7001), False)
    assert nodes.clustered


def test_keys_of_one_slot_are_asked_about_together(nodes):
    assert nodes.groups([b"a{x}", HIGH, b"b{x}"]) == [[0, 2], [1]]


def test_learns_who_holds_what(nodes):
    assert nodes.learn([*RANGES, [1, 1, [b"", 7004, b"id"]], [2, 2, [None, 7004, b"id"]]]) == [ONE, TWO]
    assert [nodes.address(key) for key in (LOW, HIGH)] == [ONE, TWO]


def test_asks_others_instead_of_a_node_that_is_lost(nodes):
    nodes.learn(RANGES)
    nodes.lost(None)
    nodes.lost(TWO)
    assert [nodes.address(key) for key in (LOW, HIGH)] == [ONE, ONE]
    nodes.lost(ONE)
    assert [nodes.address(key) for key in (LOW, HIGH)] == [None, None]
