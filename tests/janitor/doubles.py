"""Doubles for the janitors' tests: session stores that do what a test tells them."""

from __future__ import annotations

import asyncio
import threading


class Store:
    """Sessions in a dict: id -> (user, expired)."""

    def __init__(self, expired=0, alive=0):
        self.sessions = {f"old{n}": ("ada", True) for n in range(expired)}
        self.sessions |= {f"new{n}": ("bob", False) for n in range(alive)}
        self.batches = []
        self.before_batch = lambda number: None

    def delete(self, session_id):
        return self.sessions.pop(session_id, None) is not None

    def delete_user(self, user_id):
        ended = [session_id for session_id, (user, _) in self.sessions.items() if user == user_id]
        for session_id in ended:
            del self.sessions[session_id]
        return ended

    def delete_expired(self, limit):
        self.before_batch(len(self.batches) + 1)
        expired = [session_id for session_id, (_, over) in self.sessions.items() if over][:limit]
        for session_id in expired:
            del self.sessions[session_id]
        self.batches.append(len(expired))
        return len(expired)

    def count_expired(self, limit):
        return min(limit, sum(over for _, over in self.sessions.values()))

    def ended(self, session_ids):
        return [i for i in session_ids if self.sessions.get(i, ("", True))[1]]


class AsyncStore:
    """The same, awaited: each call takes a tick before it happens, and one after."""

    def __init__(self, expired=0, alive=0):
        self.store = Store(expired, alive)

    @property
    def sessions(self):
        return self.store.sessions

    @property
    def batches(self):
        return self.store.batches

    async def _do(self, method, *args):
        await asyncio.sleep(0)
        result = method(*args)
        await asyncio.sleep(0)
        return result

    async def delete(self, session_id):
        return await self._do(self.store.delete, session_id)

    async def delete_user(self, user_id):
        return await self._do(self.store.delete_user, user_id)

    async def delete_expired(self, limit):
        return await self._do(self.store.delete_expired, limit)

    async def count_expired(self, limit):
        return await self._do(self.store.count_expired, limit)

    async def ended(self, session_ids):
        return await self._do(self.store.ended, session_ids)


class StuckStore(Store):
    """Whose first batch does not end before `release` is set."""

    def __init__(self, expired=0):
        super().__init__(expired)
        self.inside = threading.Event()
        self.release = threading.Event()

    def delete_expired(self, limit):
        self.inside.set()
        self.release.wait(10)
        return super().delete_expired(limit)


class AsyncStuckStore(AsyncStore):
    """The same, awaited."""

    def __init__(self, expired=0):
        super().__init__(expired)
        self.inside = asyncio.Event()
        self.release = asyncio.Event()

    async def delete_expired(self, limit):
        self.inside.set()
        await self.release.wait()
        return await super().delete_expired(limit)


class Socket:
    """Remembers the code with which it was closed."""

    def __init__(self):
        self.code = None

    async def close(self, code, reason):
        self.code = code
