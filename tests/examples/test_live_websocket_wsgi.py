"""The WebSocket under WSGI, spoken over a pair of sockets: a thread serves it, and the test is the client."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from types import SimpleNamespace

import pytest
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage

from examples.backend.api.live import LONGEST_MESSAGE
from examples.backend.domain.live import Ending, Hub, Listener, LiveEvent, Subscription
from examples.backend.ports.live import ThreadMailbox
from examples.backend.serving.websocket_wsgi import Conversation, accept_of
from resilience import ServiceError
from resilience.janitor.sockets import SocketRegistry
from resilience.testing import wait_until

PATIENCE = 10.0


class Client:
    """The other side of a conversation, and what the test wants to know of it."""

    def __init__(self, limit=100, **options):
        self.socket, self._theirs = socket.socketpair()
        self.socket.settimeout(PATIENCE)
        self._protocol = Connection(ConnectionType.CLIENT)
        self.events = []
        self.box = ThreadMailbox(limit)
        self.hub, self.sockets = Hub(most=1, most_of_user=1), SocketRegistry(close_timeout=5.0, spread=0.0)
        self.hub.enter(self.box, Listener("ada", "a", "s1"))
        live = SimpleNamespace(hub=self.hub)
        self.subscription = Subscription(live, self.box, self.sockets.register(self.box, "s1", "ada"))
        self.conversation = Conversation(self._theirs, self.subscription, self.box, **options)
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self):
        try:
            with self.subscription:
                self.conversation.run()
        finally:
            self.box.served()

    def tell(self, number, size=0):
        body = {"x": "x" * size}
        self.hub.deliver(
            LiveEvent(id=number, tenant_id="a", at=0.0, kind="recording", body=body, after=number)
        )

    def say(self, event):
        self.socket.sendall(self._protocol.send(event))

    def hear(self):
        """Return what the server says next; None when it has closed the connection."""
        while not self.events:
            received = self.socket.recv(65536)
            if not received:
                return None
            self._protocol.receive_data(received)
            self.events += self._protocol.events()
        return self.events.pop(0)

    def hear_message(self):
        text = ""
        while True:
            event = self.hear()
            assert isinstance(event, TextMessage), event
            text += event.data
            if event.message_finished:
                return json.loads(text)

    def hear_close(self):
        """Return the code with which the server closes, having answered it."""
        event = self.hear()
        while not isinstance(event, CloseConnection):
            assert event is not None, "it was not closed properly"
            event = self.hear()
        self.say(event.response())
        assert self.hear() is None
        return event.code

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.socket.close()
        self.thread.join(PATIENCE)
        self._theirs.close()
        assert not self.thread.is_alive()
        assert len(self.hub) == len(self.sockets) == 0


def test_it_greets_and_tells():
    with Client() as client:
        assert client.hear_message() == {"kind": "hello", "after": 0}
        client.tell(7)
        assert client.hear_message() == {
            "id": 7,
            "at": "1970-01-01T00:00:00Z",
            "kind": "recording",
            "body": {"x": ""},
            "after": 7,
        }


def test_the_end_of_the_session_closes_it():
    with Client() as client:
        client.hear_message()
        ending = threading.Thread(target=client.sockets.end_sessions, args=[["s1"]])
        ending.start()
        assert client.hear_close() == 1008
        ending.join(PATIENCE)
        assert client.sockets.closed == 1


def test_the_end_of_the_process_closes_it():
    with Client() as client:
        ending = threading.Thread(target=client.sockets.shut_down)
        ending.start()
        assert client.hear_close() == 1012
        ending.join(PATIENCE)


@pytest.mark.parametrize("message", [TextMessage("hello?"), BytesMessage(b"hello?"), TextMessage("")])
def test_who_says_something_is_parted_with(message):
    with Client() as client:
        client.say(message)
        assert client.hear_close() == 1003


def test_a_message_in_pieces_is_one_message():
    with Client() as client:
        client.say(TextMessage("a", message_finished=False))
        client.say(TextMessage("b", message_finished=True))
        assert client.hear_close() == 1003


@pytest.mark.parametrize("finished", [True, False])
def test_a_message_that_is_too_long_is_not_read(finished):
    with Client() as client:
        client.say(BytesMessage(b"x" * (LONGEST_MESSAGE + 1), message_finished=finished))
        assert client.hear_close() == 1009


def test_a_message_that_says_to_be_huge_is_not_waited_for():
    with Client() as client:
        client.hear_message()
        head = struct.pack("!BBQ", 0x82, 0x80 | 127, 2**40) + b"\0\0\0\0"
        client.socket.sendall(head + b"x" * (LONGEST_MESSAGE + 1))
        assert client.hear_close() == 1009


def test_a_ping_is_answered():
    with Client() as client:
        client.hear_message()
        client.say(Ping(b"here"))
        assert client.hear() == Pong(b"here")


def test_who_answers_pings_stays():
    with Client(heartbeat=0.01) as client:
        client.hear_message()
        for _ in range(5):
            event = client.hear()
            assert isinstance(event, Ping)
            client.say(event.response())
        client.tell(1)
        while not isinstance(event := client.hear(), TextMessage):
            client.say(event.response())
        assert json.loads(event.data)["id"] == 1


def test_who_does_not_answer_a_ping_is_parted_with():
    with Client(heartbeat=0.02) as client:
        client.hear_message()
        assert isinstance(client.hear(), Ping)
        assert client.hear_close() == 1011


def test_a_client_that_closes_is_answered():
    with Client() as client:
        client.hear_message()
        client.say(CloseConnection(1000, "bye"))
        assert client.hear().code == 1000
        assert client.hear() is None
        assert client.box.ending.code == 1001  # it has left


def test_a_client_that_is_gone_is_noticed():
    with Client() as client:
        client.hear_message()
        client.socket.close()
        client.thread.join(PATIENCE)
        assert not client.thread.is_alive()


def test_a_client_whose_connection_breaks_is_noticed(monkeypatch):
    with Client() as client:
        client.hear_message()
        client.socket.shutdown(socket.SHUT_RD)  # what it is sent now is an error
        client.tell(1)
        client.thread.join(PATIENCE)
        assert client.box.ending.code == 1001


def test_nonsense_is_refused():
    with Client() as client:
        client.hear_message()
        client.socket.sendall(b"GET / HTTP/1.1\r\n\r\n")
        event = client.hear()
        assert isinstance(event, CloseConnection)
        assert event.code == 1002


@pytest.mark.parametrize("answer", [b"\x88\x80\0\0\0\0", b""], ids=["a second close", "nothing"])
def test_who_does_not_answer_a_close_is_not_waited_for_for_long(answer):
    with Client() as client:
        client.hear_message()
        client.box.end(Ending(1008, "session ended"))
        assert isinstance(client.hear(), CloseConnection)
        client.say(CloseConnection(1008))
        with contextlib.suppress(OSError):
            client.socket.sendall(answer)
        assert client.hear() is None


def test_who_leaves_without_answering_a_close_is_not_waited_for():
    with Client() as client:
        client.hear_message()
        client.box.end(Ending(1008, "session ended"))
        assert isinstance(client.hear(), CloseConnection)
        client.socket.shutdown(socket.SHUT_WR)
        assert client.hear() is None


def test_who_says_nothing_to_a_close_is_given_a_second():
    with Client() as client:
        client.hear_message()
        client.box.end(Ending(1008, "session ended"))
        assert isinstance(client.hear(), CloseConnection)
        began = time.monotonic()
        while client.thread.is_alive():
            client.thread.join(0.1)
            with contextlib.suppress(OSError):
                client.socket.sendall(b"\x81\x80\0\0\0\0")  # talks on, and is not heard
        assert time.monotonic() - began < PATIENCE


def test_who_reads_slowly_gets_all_of_it():
    with Client() as client:
        for number in range(1, 91):
            client.tell(number, size=20_000)  # far more than the socket holds
        client.hear_message()
        assert [client.hear_message()["id"] for _ in range(90)] == list(range(1, 91))


def test_who_does_not_read_is_parted_with_and_holds_nobody_up():
    with Client(limit=10) as client:
        client.hear_message()
        for number in range(200):
            client.tell(number, size=100_000)
        assert client.box.ending.code == 1013
        client.thread.join(PATIENCE)
        assert not client.thread.is_alive()


def test_who_only_pings_and_never_reads_fills_no_memory():
    with Client(limit=1000) as client:
        client.hear_message()
        client.socket.settimeout(0.5)
        ping = client._protocol.send(Ping(b"x" * 125))
        with contextlib.suppress(TimeoutError):
            for _ in range(20_000):
                client.socket.sendall(ping)
        assert len(client.conversation._unsent) < 64 * 1024
        client.socket.settimeout(PATIENCE)
        wait_until(lambda: len(client.conversation._unsent) > 0)


# --- the opening request -------------------------------------------------------------------------------


def opening(**changed):
    return {
        "HTTP_SEC_WEBSOCKET_KEY": "dGhlIHNhbXBsZSBub25jZQ==",
        "HTTP_SEC_WEBSOCKET_VERSION": "13",
        "gunicorn.socket": object(),
    } | changed


def test_an_opening_request_is_accepted_as_the_standard_says():
    assert accept_of(opening()) == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455, section 1.3


@pytest.mark.parametrize(
    "changed",
    [
        {"HTTP_SEC_WEBSOCKET_KEY": ""},
        {"HTTP_SEC_WEBSOCKET_KEY": "dGhl"},
        {"HTTP_SEC_WEBSOCKET_KEY": "é" * 24},
        {"HTTP_SEC_WEBSOCKET_KEY": "!" * 24},
        {"HTTP_SEC_WEBSOCKET_VERSION": "8"},
    ],
)
def test_any_other_is_refused(changed):
    with pytest.raises(ServiceError) as refused:
        accept_of(opening(**changed))
    assert refused.value.status == 400


def test_a_server_without_its_socket_cannot_do_it():
    environ = opening()
    del environ["gunicorn.socket"]
    with pytest.raises(ServiceError, match="cannot be opened"):
        accept_of(environ)
