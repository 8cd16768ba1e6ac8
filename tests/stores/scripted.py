"""Engines that do what they are told, in place of a server: for what all server stores have in common."""

from __future__ import annotations

import asyncio

from resilience.stores import StoreUnavailable
from resilience.stores.engine import Lost, Unable
from resilience.stores.memory import MemoryStore


class ScriptedServer:
    """A server that counts in memory, and whose next answers can be said in advance.

    Each step of `script` is for one question, in order; where it is at its end, and for None, all goes well:

    - "unsent": it is out of reach, and hears nothing of the question
    - "cut": it does what it was asked, and the reply is lost
    - "silent": it hears nothing, and the time that the question has passes
    - "late": it does what it was asked, and the reply is lost as the time passes
    - "unable": it says that it cannot at the moment
    - "refused": it says that it may not
    - any exception: it is raised
    """

    def __init__(self, clock):
        self.clock = clock
        self.store = MemoryStore(clock=clock)
        self.script = []
        self.always = None
        """The step where the script is at its end."""
        self.asked = []
        """(what, token, seconds given) of each question."""
        self.closed = 0
        self.seen = {}

    @property
    def questions(self):
        return [what for what, _, _ in self.asked]

    @property
    def tokens(self):
        return [token for _, token, _ in self.asked]

    def answer(self, what, token, until, do):
        """Do what the next step of the script says."""
        self.asked.append((what, token, until - self.clock.now()))
        step = self.script.pop(0) if self.script else self.always
        if isinstance(step, BaseException):
            raise step
        result = None
        if step in {None, "cut", "late"}:
            # What a token has done is done once.
            if token is None or token not in self.seen:
                result = do()
                if token is not None and (what != "take" or all(result)):
                    self.seen[token] = result
            else:
                result = self.seen[token]
        if step in {"silent", "late"}:
            self.clock.advance(max(0.0, until - self.clock.now()))
        if step in {"unsent", "cut", "silent", "late"}:
            raise Lost(f"no reply ({step})") from ConnectionError(step)
        if step == "unable":
            raise Unable("it is loading its data: wait until it has")
        if step == "refused":
            raise StoreUnavailable("it may not run scripts: grant it EVAL")
        return result


class ScriptedEngine:
    """Asks a scripted server."""

    def __init__(self, server):
        self.server = server

    def take(self, charges, token, until):
        return self.server.answer("take", token, until, lambda: self.server.store.take(charges))

    def peek(self, charges, until):
        return self.server.answer("peek", None, until, lambda: self.server.store.peek(charges))

    def refund(self, charges, receipts, token, until):
        return self.server.answer("refund", token, until, lambda: self.server.store.refund(charges, receipts))

    def reset(self, counters, key, until):
        return self.server.answer("reset", None, until, lambda: self.server.store.reset(counters, key))

    def holding(self, counters, limit, until):
        return self.server.answer("holding", None, until, lambda: self.server.store.holding(counters, limit))

    def close(self):
        self.server.closed += 1


class AsyncScriptedEngine:
    """The same, awaited; it can be cancelled before the server has heard of a question, and after."""

    def __init__(self, server):
        self.engine = ScriptedEngine(server)

    async def _ask(self, ask, *arguments):
        await asyncio.sleep(0)
        result = ask(*arguments)
        await asyncio.sleep(0)
        return result

    async def take(self, charges, token, until):
        return await self._ask(self.engine.take, charges, token, until)

    async def peek(self, charges, until):
        return await self._ask(self.engine.peek, charges, until)

    async def refund(self, charges, receipts, token, until):
        return await self._ask(self.engine.refund, charges, receipts, token, until)

    async def reset(self, counters, key, until):
        return await self._ask(self.engine.reset, counters, key, until)

    async def holding(self, counters, limit, until):
        return await self._ask(self.engine.holding, counters, limit, until)

    async def close(self):
        self.engine.close()
