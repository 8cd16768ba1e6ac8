"""The proxy that the tests put between clients and servers."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress

import pytest

from resilience.testing import wait_until
from tests.proxy import Proxy
from tests.servers import free_port

LONG = 5.0
SHORT = 0.05


class Echo:
    """A server that sends back what it gets."""

    def __init__(self):
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        self.got = []
        self.ends = 0
        self.threads = [threading.Thread(target=self.accept, daemon=True)]
        self.threads[0].start()

    def accept(self):
        with suppress(OSError):
            while True:
                accepted = self.listening.accept()[0]
                self.threads.append(threading.Thread(target=self.serve, args=(accepted,), daemon=True))
                self.threads[-1].start()

    def serve(self, connection):
        with connection, suppress(OSError):
            while data := connection.recv(1 << 16):
                self.got.append(data)
                connection.sendall(data)
        self.ends += 1

    def close(self):
        self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()
        for thread in self.threads:
            thread.join(LONG)


@pytest.fixture
def echo():
    server = Echo()
    yield server
    server.close()


@pytest.fixture
def proxy(echo):
    with Proxy(echo.port) as between:
        yield between


@pytest.fixture
def connect(proxy):
    connections = []

    def connected():
        connections.append(socket.create_connection(("127.0.0.1", proxy.port), LONG))
        return connections[-1]

    yield connected
    for connection in connections:
        connection.close()


def exact(connection, count):
    received = b""
    while len(received) < count:
        data = connection.recv(count - len(received))
        assert data, received
        received += data
    return received


def asked(connection, data):
    connection.sendall(data)
    return exact(connection, len(data))


def test_passes_on_what_it_gets_and_counts_it(proxy, connect):
    one, two = connect(), connect()
    assert asked(one, b"hello") == b"hello"
    large = bytes(range(256)) * 4000
    sending = threading.Thread(target=two.sendall, args=(large,))
    sending.start()
    assert exact(two, len(large)) == large
    sending.join()
    assert (proxy.connections, proxy.open_connections) == (2, 2)
    assert proxy.sent == proxy.received == 5 + len(large)


def test_an_end_on_one_side_is_an_end_on_the_other(proxy, echo, connect):
    connection = connect()
    asked(connection, b"hello")
    connection.close()
    wait_until(lambda: echo.ends == 1)
    assert proxy.open_connections == 0


def test_a_black_hole_lets_nothing_pass_until_it_is_healed(proxy, echo, connect):
    before = connect()
    asked(before, b"hello")
    proxy.blackhole()
    during = connect()
    for connection in (before, during):
        connection.settimeout(SHORT)
        connection.sendall(b"late")
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(LONG)
    assert echo.got == [b"hello"]
    proxy.heal()
    assert exact(before, 4) == exact(during, 4) == b"late"


def test_what_was_sent_into_a_black_hole_and_given_up_still_arrives(proxy, echo, connect):
    connection = connect()
    asked(connection, b"hello")
    proxy.blackhole()
    connection.sendall(b"late")
    connection.close()
    proxy.heal()
    wait_until(lambda: echo.got == [b"hello", b"late"] and echo.ends == 1)


def test_a_reset_is_one_and_new_connections_pass(proxy, echo, connect):
    connection = connect()
    asked(connection, b"hello")
    proxy.reset()
    with pytest.raises(ConnectionResetError):
        connection.recv(1)
    wait_until(lambda: echo.ends == 1)
    assert asked(connect(), b"again") == b"again"


def test_refuses_until_it_is_healed(proxy, connect):
    connection = connect()
    asked(connection, b"hello")
    proxy.refuse()
    with pytest.raises(ConnectionResetError):
        connection.recv(1)
    with pytest.raises(ConnectionRefusedError):
        connect()
    proxy.refuse()
    proxy.heal()
    assert asked(connect(), b"again") == b"again"


def test_replies_are_late_by_the_delay_and_in_order(proxy, connect):
    connection = connect()
    asked(connection, b"hello")
    proxy.delay(0.1)
    begun = time.monotonic()
    for part in (b"a", b"b", b"c"):
        connection.sendall(part)
    assert exact(connection, 3) == b"abc"
    assert time.monotonic() - begun >= 0.1
    proxy.delay(60.0)
    connection.sendall(b"d")
    connection.settimeout(SHORT)
    with pytest.raises(TimeoutError):
        connection.recv(1)
    proxy.delay(0.0)
    connection.sendall(b"e")
    with pytest.raises(TimeoutError):
        connection.recv(1)
    proxy.heal()
    assert exact(connection, 2) == b"de"


def test_a_delayed_reply_to_who_has_left_goes_nowhere(proxy, echo, connect):
    connection = connect()
    asked(connection, b"hello")
    proxy.delay(60.0)
    connection.sendall(b"late")
    wait_until(lambda: len(echo.got) == 2)
    connection.close()
    wait_until(lambda: proxy.open_connections == 0)
    proxy.heal()


@pytest.mark.parametrize("count", [0, 1, 4])
def test_replies_are_cut_after_so_many_bytes(proxy, connect, count):
    standing = connect()
    asked(standing, b"hello")
    proxy.cut_after(count)
    for connection in (standing, connect()):
        connection.sendall(b"hello")
        assert exact(connection, count) == b"hello"[:count]
        assert connection.recv(1) == b""
    proxy.heal()
    assert asked(connect(), b"hello") == b"hello"


def test_resets_whom_it_cannot_connect():
    with Proxy(free_port()) as proxy:
        # It may be so quick that connecting hears of it already.
        with (
            pytest.raises(ConnectionResetError),
            socket.create_connection(("127.0.0.1", proxy.port), LONG) as connection,
        ):
            connection.recv(1)
        assert proxy.connections == 1
