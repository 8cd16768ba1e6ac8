"""A TCP proxy on loopback that brings about what networks do.

    with Proxy(server.port) as proxy:
        client = redis.Redis(port=proxy.port)
        proxy.blackhole()

A fault is in force when the method that asks for it returns; `heal` ends all of them. The proxy runs on an
event loop in a thread of its own, on which all that it holds is touched.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections import deque
from math import inf

from tests.servers import free_port

AT_ONCE = struct.pack("ii", 1, 0)
"""SO_LINGER for a close that throws away what is not sent yet, and resets the connection."""


class Proxy:
    """Passes on to `target_port` what comes on `port`, and back, but for the fault that is in force.

    Attributes:
        port: On 127.0.0.1.
        connections: How many were accepted so far.
        sent: Bytes passed on to the target so far.
        received: Bytes passed back from it so far.
    """

    def __init__(self, target_port):
        self.target_port = target_port
        self.port = free_port()
        self.connections = 0
        self.sent = 0
        self.received = 0
        self.is_open = True  # bytes pass; otherwise they wait
        self.lag = 0.0
        self.allowance = None
        self.links = set()
        self._listening = None
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._do(self._listen)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    @property
    def open_connections(self):
        """How many stand now."""
        return len(self.links)

    def blackhole(self):
        """Let nothing pass: connections stand or are accepted, and nobody answers.

        As in a real partition, what was sent meanwhile arrives when it heals.
        """
        self._do(lambda: setattr(self, "is_open", False))

    def delay(self, seconds):
        """Let replies arrive so much later, in order."""
        self._do(lambda: setattr(self, "lag", seconds))

    def cut_after(self, count):
        """Let each connection, standing or new, receive so many bytes from now on, then close it."""
        self._do(lambda: self._allow(count))

    def reset(self):
        """Reset the connections that stand; new ones are accepted."""
        self._do(self._reset)

    def refuse(self):
        """Reset the connections that stand, and refuse new ones."""
        self._do(self._refuse)

    def heal(self):
        """End all faults; what was held back arrives."""
        self._do(self._heal)

    def close(self):
        """Reset all connections and end the proxy."""
        self._do(self._refuse)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    # --- on the loop

    def _do(self, act):
        async def on_loop():
            result = act()
            if asyncio.iscoroutine(result):
                await result
            await asyncio.sleep(0)  # for what closing and resetting leave to the next round

        asyncio.run_coroutine_threadsafe(on_loop(), self.loop).result(10)

    async def _listen(self):
        self._listening = await self.loop.create_server(lambda: Client(self), "127.0.0.1", self.port)

    def _allow(self, count):
        self.allowance = count
        for link in self.links:
            link.allowance = count

    def _reset(self):
        for link in list(self.links):
            link.reset()

    def _refuse(self):
        if self._listening:
            self._listening.close()
            self._listening = None
        self._reset()

    async def _heal(self):
        self.is_open = True
        self.lag = 0.0
        self._allow(None)
        for link in list(self.links):
            link.pass_on(until=inf)
        if not self._listening:
            await self._listen()


class Side(asyncio.Protocol):
    """One end of a link."""

    link = None
    transport = None

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.link.take(self, data)

    def connection_lost(self, exception):
        self.link.take(self, b"")


class Client(Side):
    """The end towards who connected to the proxy."""

    def __init__(self, proxy):
        self.link = Link(proxy, self)

    def connection_made(self, transport):
        super().connection_made(transport)
        self.link.begin()


class Target(Side):
    """The end towards the server."""

    def __init__(self, link):
        self.link = link

    def connection_made(self, transport):
        super().connection_made(transport)
        self.link.target = self
        self.link.pass_on()


class Link:
    """A connection through the proxy, and what is on its way."""

    def __init__(self, proxy, client):
        self.proxy = proxy
        self.client = client
        self.target = None
        self.connecting = None
        self.allowance = proxy.allowance
        self.on_their_way = deque()  # (when it is due, from which side, bytes; none for the end)

    def begin(self):
        self.proxy.connections += 1
        self.proxy.links.add(self)
        self.pass_on()

    def take(self, side, data):
        lag = self.proxy.lag if side is not self.client else 0.0
        now = self.proxy.loop.time()
        self.on_their_way.append((now + lag, side, data))
        if lag:
            self.proxy.loop.call_at(now + lag, self.pass_on, now + lag)
        self.pass_on()

    def pass_on(self, until=None):
        """Deliver what is due by an instant; without one, by now."""
        if not self.proxy.is_open or self not in self.proxy.links:
            return
        if not self.target:
            self.connecting = self.connecting or asyncio.ensure_future(self._connect())
            return
        held = deque()
        until = self.proxy.loop.time() if until is None else until
        for due, side, data in self.on_their_way:
            overtakes = any(side is other for _, other, _ in held)
            if due <= until and not overtakes:
                self._deliver(side, data)
            else:
                held.append((due, side, data))
        self.on_their_way = held

    async def _connect(self):
        try:
            await self.proxy.loop.create_connection(lambda: Target(self), "127.0.0.1", self.proxy.target_port)
        except OSError:
            self.reset()

    def _deliver(self, side, data):
        if self not in self.proxy.links:
            return
        if not data:
            self.close()
        elif side is self.client:
            self.proxy.sent += len(data)
            self.target.transport.write(data)
        else:
            if self.allowance is not None:
                data = data[: self.allowance]
                self.allowance -= len(data)
            self.proxy.received += len(data)
            self.client.transport.write(data)
            if self.allowance == 0:
                self.close()

    def close(self):
        """Close both ends; what was written is sent before."""
        self.proxy.links.discard(self)
        self.client.transport.close()
        self.target.transport.close()

    def reset(self):
        """Reset both ends."""
        self.proxy.links.discard(self)
        for side in (self.client, self.target):
            if side and not side.transport.is_closing():
                side.transport.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE
                )
                side.transport.abort()
