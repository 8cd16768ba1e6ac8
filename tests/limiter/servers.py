"""Stores that stand for a server: they count what they are asked, and can be away."""

from __future__ import annotations

import asyncio
import threading

from resilience.stores import StoreUnavailable
from resilience.stores.memory import MemoryStore


class Server:
    """A shared store that notes what it is asked: the method, and units where it is about charges."""

    shared = True
    blocking = False

    def __init__(self, clock):
        self.clock = clock
        self.counts = MemoryStore(clock=clock)
        self.asked = []
        self.is_away = False
        self.gates = []
        """What a `take` waits for, one after the other, before it is made."""

    @property
    def trips(self):
        return len(self.asked)

    def ask(self, method, *arguments):
        units = [charge.cost for charge in arguments[0]] if method in {"take", "peek", "refund"} else []
        self.asked.append((method, *units))
        if self.is_away:
            raise StoreUnavailable("the server is away", retry_after=5.0)
        return getattr(self.counts, method)(*arguments)

    def hold(self):
        """Let the next `take` wait until what this returns is set."""
        gate = threading.Event()
        self.gates.append(gate)
        return gate

    def take(self, charges):
        if self.gates:
            self.gates.pop(0).wait(30)
        return self.ask("take", charges)

    def peek(self, charges):
        return self.ask("peek", charges)

    def refund(self, charges, receipts):
        self.ask("refund", charges, receipts)

    def reset(self, counters, key):
        self.ask("reset", counters, key)

    def holding(self, counters, limit):
        return self.ask("holding", counters, limit)


class AsyncServer(Server):
    """The same, awaited."""

    def hold(self):
        """Let the next `take` wait until what this returns is set."""
        gate = asyncio.Event()
        self.gates.append(gate)
        return gate

    async def take(self, charges):
        if self.gates:
            await self.gates.pop(0).wait()
        return self.ask("take", charges)

    async def peek(self, charges):
        return self.ask("peek", charges)

    async def refund(self, charges, receipts):
        self.ask("refund", charges, receipts)

    async def reset(self, counters, key):
        self.ask("reset", counters, key)

    async def holding(self, counters, limit):
        return self.ask("holding", counters, limit)
