"""Server-sent events and WebSockets of tasks, without a server: what only happens after a while."""

from __future__ import annotations

import asyncio
import json
import logging
from types import SimpleNamespace

import pytest
from starlette.websockets import WebSocketDisconnect

from examples.backend.api.live import HEARTBEAT, STREAM_LIFETIME, EventStream
from examples.backend.domain.live import GONE, TOO_SLOW, Ending, LiveEvent, Mailbox
from examples.backend.kit import drive
from examples.backend.ports.live import TaskMailbox
from examples.backend.serving import websocket_asgi
from examples.backend.serving.websocket_asgi import converse, is_fit_for_the_log
from resilience.testing import FakeClock, wait_until_async


class Patient(Mailbox):
    """A mailbox in which nothing comes: to wait for it is to let the time pass."""

    def __init__(self, clock):
        super().__init__()
        self._clock = clock
        self.is_served = False

    def wake(self):
        pass

    def close(self, code, reason):
        pass

    async def wait(self, seconds):
        self._clock.advance(seconds)
        return False

    def served(self):
        self.is_served = True


class Subscription:
    """What there is to tell, without a hub."""

    begins_at = 3

    def __init__(self, mailbox):
        self._mailbox = mailbox
        self.is_closed = False

    def take(self):
        return self._mailbox.take()

    def close(self):
        self.is_closed = True


def event(number=7, **body):
    return LiveEvent(id=number, tenant_id="a", at=0.0, kind="recording", body=body, after=6)


# --- server-sent events ----------------------------------------------------------------------------


class Streamed:
    def __init__(self):
        self.clock = FakeClock()
        self.box = Patient(self.clock)
        self.subscription = Subscription(self.box)
        self.stream = EventStream(self.subscription, self.box, self.clock)

    def next(self):
        async def following():
            return await anext(self.stream)

        return drive(following()).decode()


def test_a_stream_says_where_it_begins_and_when_to_come_back():
    first = Streamed().next()

    assert first.startswith("retry: ")
    assert first.endswith("\nid: 3\n\n")


def test_an_event_is_one_line_whatever_is_in_it():
    streamed = Streamed()
    streamed.next()
    streamed.box.put(event(name="a\nid: 9\n\ndata: forged\r\u2028é"))
    told = streamed.next()

    assert told.startswith("id: 6\ndata: ")
    assert told.endswith("\n\n")
    assert len(told.splitlines()) == 3
    assert json.loads(told.splitlines()[1].removeprefix("data: "))["body"]["name"].startswith("a\nid")


def test_a_stream_in_which_nothing_happens_shows_that_it_lives_and_ends_after_a_while():
    streamed = Streamed()
    streamed.next()
    for _ in range(int(STREAM_LIFETIME / HEARTBEAT) - 1):
        assert streamed.next() == ": still here\n\n"
    with pytest.raises(StopAsyncIteration):
        streamed.next()

    assert streamed.box.ending.code == 1000


def test_a_stream_ends_when_it_is_to_be_closed():
    streamed = Streamed()
    streamed.next()
    streamed.box.put(event())
    streamed.box.end(Ending(1008, "session ended"))
    with pytest.raises(StopAsyncIteration):
        streamed.next()


def test_a_stream_that_nobody_began_to_read_gives_its_place_up():
    streamed = Streamed()
    drive(streamed.stream.aclose())

    assert streamed.subscription.is_closed
    assert streamed.box.is_served
    assert aiter(streamed.stream) is streamed.stream


# --- WebSockets of tasks ---------------------------------------------------------------------------


class WebSocket:
    """A client that leaves, stays, or does not read."""

    def __init__(self, receives=None, stuck=False):
        self.receives = receives
        self.sent = []
        self.closed = None
        self._stuck = stuck

    async def receive(self):
        if self.receives is None:
            await asyncio.Event().wait()
        return self.receives

    async def send_text(self, text):
        if self._stuck and self.sent:
            await asyncio.Event().wait()
        self.sent.append(json.loads(text))

    async def close(self, code, reason):
        if self._stuck:
            await asyncio.Event().wait()
        self.closed = code, reason


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(websocket_asgi, "FLUSH_WITHIN", 0.01)


async def test_a_client_that_leaves_is_not_closed():
    box, websocket = TaskMailbox(), WebSocket({"type": "websocket.disconnect"})
    await converse(websocket, Subscription(box), box)

    assert box.ending == GONE
    assert websocket.closed is None


async def test_a_client_that_has_left_when_it_is_told_something():
    box, websocket = TaskMailbox(), WebSocket()

    async def lost(_text):
        raise WebSocketDisconnect(1006)

    websocket.send_text = lost
    await converse(websocket, Subscription(box), box)

    assert box.ending == GONE


async def test_a_client_that_does_not_read_is_not_waited_for():
    box, websocket = TaskMailbox(limit=1), WebSocket(stuck=True)
    serving = asyncio.ensure_future(converse(websocket, Subscription(box), box))
    await wait_until_async(lambda: websocket.sent)
    for number in range(3):
        box.put(event(number))
        await asyncio.sleep(0)
    await serving

    assert box.ending == TOO_SLOW
    assert websocket.sent == [{"kind": "hello", "after": 3}]


async def test_what_is_being_sent_is_finished_before_the_close():
    box, websocket = TaskMailbox(), WebSocket()
    serving = asyncio.ensure_future(converse(websocket, Subscription(box), box))
    await wait_until_async(lambda: websocket.sent)
    box.end(Ending(1012, "service restart"))
    await serving

    assert websocket.closed == (1012, "service restart")


async def test_a_failure_on_our_side_goes_up():
    box, websocket = TaskMailbox(), WebSocket()
    subscription = Subscription(box)
    subscription.take = lambda: 1 / 0
    with pytest.raises(ExceptionGroup) as failed:
        await converse(websocket, subscription, box)

    assert failed.group_contains(ZeroDivisionError)


# --- the log -------------------------------------------------------------------------------------------


def record(message, *args):
    return logging.LogRecord("uvicorn.error", logging.INFO, "", 0, message, args, None)


def test_tickets_are_not_logged():
    line = record('%s - "WebSocket %s" [accepted]', "::1", "/api/live?ticket=ey.J.x&after=1")

    assert is_fit_for_the_log(line)
    assert line.getMessage() == '::1 - "WebSocket /api/live?ticket=…&after=1" [accepted]'


def test_a_refusal_is_no_mistake():
    assert not is_fit_for_the_log(record("ASGI callable returned without completing handshake."))
    assert is_fit_for_the_log(record("%d of them", 3))
    assert is_fit_for_the_log(SimpleNamespace(msg="", args=None))
