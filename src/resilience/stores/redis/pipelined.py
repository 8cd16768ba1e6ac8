"""Asks Redis from event loops: one connection for all tasks of a loop, on which questions go out together.

A link sends what the tasks of one turn of the loop have asked in one piece, and gives the replies out in the
order of the questions. Rules:
    - Whoever leaves, cancelled or out of time, leaves a place behind that takes its reply: nobody else
      gets it.
    - A link on which a reply did not come in time is asked no more. Those who wait already may still get
      theirs; then it is closed.
    - That this process is busy is not the server's silence. A loop that comes late to see that time is up may
      have sent the question only just now, and has not read for as long: it looks once more.
    - A link that broke, or that brought what is no reply, is closed at once, and all who wait are told.
    - A link ends with its loop: `asyncio.run` ends what is left of asynchronous generators, and each link has
      one that closes it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from math import inf
from typing import TYPE_CHECKING, Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from resilience.fork import survive_fork
from resilience.stores import StoreUnavailable
from resilience.stores.engine import Lost
from resilience.stores.redis.answers import failure
from resilience.stores.redis.conversation import LOOK, Conversations
from resilience.stores.redis.source import Source
from resilience.stores.redis.wire import ErrorReply, Garbled, parsed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from resilience._core.counting import Charge, Counter
    from resilience._core.quota import Decision
    from resilience.clock import Clock
    from resilience.stores import Holding
    from resilience.stores.redis.codec import Codec
    from resilience.stores.redis.conversation import Answer, Conversation
    from resilience.stores.redis.source import Address

_TOGETHER: Final = 8
"""Questions that go out without waiting for the end of the turn, so that the server works meanwhile."""
_LAST_LOOK: Final = 0.01
"""Seconds by which a loop may be late, and that a late one waits for replies before it gives them up."""
_inherited: Final[list[object]] = []
"""The parent's links, in a forked child: to close them here would take them out of the parent's loop."""


_Question = tuple[asyncio.Future[list[Any]], int, float]
"""Somebody who waits: for an answer of so many replies, until an instant of the loop."""


class Link(asyncio.Protocol):
    """A connection that the tasks of one loop share.

    redis-py has opened it; from then on, what comes in comes here.
    """

    def __init__(self, made: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._made = made
        self._transport: asyncio.Transport = made._writer.transport  # noqa: SLF001 - there is no public way to it
        self._transport.set_protocol(self)
        self._loop = loop
        self._outgoing: list[bytes] = []
        self._incoming = b""
        self._waiting: deque[_Question] = deque()
        self._found: list[Any] = []
        """Replies for the first who waits, until there are as many as asked for."""
        self._wakes_at = inf
        self._timer: asyncio.TimerHandle | None = None
        self._is_last_look = False
        self.is_usable = True
        """Whether it may be asked."""
        self._end_with_loop = self._until_shutdown()

    async def start(self) -> None:
        """See to it that the link is closed when its loop ends."""
        await anext(self._end_with_loop)

    async def _until_shutdown(self) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            self.close("the event loop ended")

    def ask(self, commands: bytes, replies: int, seconds: float) -> asyncio.Future[list[Any]]:
        """Send commands with whatever else is sent in this turn; return a future of the replies.

        It raises `Lost` if they do not come within `seconds`, which is above 0.
        """
        loop = self._loop
        answer: asyncio.Future[list[Any]] = loop.create_future()
        deadline = loop.time() + seconds
        self._waiting.append((answer, replies, deadline))
        outgoing = self._outgoing
        outgoing.append(commands)
        if len(outgoing) == 1:
            loop.call_soon(self._send)
        elif len(outgoing) >= _TOGETHER:
            self._send()
        if deadline < self._wakes_at:
            self._watch(deadline)
        return answer

    def _send(self) -> None:
        """Send what was asked since the last time."""
        if self._outgoing and not self._transport.is_closing():
            self._transport.write(b"".join(self._outgoing))
        self._outgoing.clear()

    def data_received(self, data: bytes) -> None:
        """Give out the replies that are whole."""
        received = self._incoming + data if self._incoming else data
        at = 0
        try:
            while whole := parsed(received, at):
                reply, at = whole
                self._give_out(reply)
        except Garbled as error:
            self.close(f"it sent what is no reply: {error}")
            return
        self._incoming = received[at:]
        if not self.is_usable and not self._waiting:
            self.close("a reply did not come in time")

    def _give_out(self, reply: Any) -> None:
        if not self._waiting:
            raise Garbled("more replies than questions")
        self._found.append(reply)
        answer, replies, _ = self._waiting[0]
        if len(self._found) == replies:
            self._waiting.popleft()
            if not answer.done():
                answer.set_result(self._found)
            self._found = []

    def eof_received(self) -> None:
        """Let the transport close: there will be no more replies."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell all who wait."""
        self.close(str(exc or "the server closed the connection"))

    def _watch(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(deadline, self._expire)
        self._wakes_at = deadline

    def _expire(self) -> None:
        """Tell those whose time is up; wake up again for the next."""
        self._timer = None
        due, self._wakes_at = self._wakes_at, inf
        now = self._loop.time()
        if now - due > _LAST_LOOK and not self._is_last_look:
            self._is_last_look = True
            self._watch(now + _LAST_LOOK)
            return
        self._is_last_look = False
        left: list[float] = []
        for answer, _, deadline in self._waiting:
            if answer.done():
                continue
            if deadline > now:
                left.append(deadline)
            else:
                self.is_usable = False
                answer.set_exception(Lost("no whole reply in time"))
        if left:
            self._watch(min(left))
        elif not self.is_usable:
            self.close("a reply did not come in time")

    def retire(self) -> None:
        """Ask no more; close when all who wait have their replies."""
        self.is_usable = False
        if not self._waiting:
            self.close("it is not the server to ask")

    def close(self, why: str) -> None:
        """Close at once, and tell all who wait; a second time does nothing."""
        self.is_usable = False
        self._transport.abort()
        self._made._close()  # noqa: SLF001 - redis-py's public way would have to be awaited
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            answer, _, _ = self._waiting.popleft()
            if not answer.done():
                answer.set_exception(Lost(why))


class AsyncRedisEngine:
    """Asks one server, or the nodes of a Cluster; see `resilience.stores.remote.AsyncEngine`.

    Each loop has links of its own, so nothing here is shared by threads but two dicts, which each change by
    single operations.
    """

    def __init__(self, server: str | Redis, codec: Codec, clock: Clock) -> None:
        self._source = Source(server, Redis, "redis.asyncio.Redis")
        self.name = self._source.name
        self._clock = clock
        self._conversations = Conversations(codec, self.name)
        self._has_looked = False
        self._links: dict[tuple[asyncio.AbstractEventLoop, Address | None], Link] = {}
        self._connecting: dict[tuple[asyncio.AbstractEventLoop, Address | None], asyncio.Task[Link]] = {}
        survive_fork(self)

    def after_fork(self) -> None:
        """Forget the links, which are the parent's."""
        _inherited.extend((self._links, self._connecting))
        self._links, self._connecting = {}, {}

    async def take(self, charges: Sequence[Charge], token: bytes, until: float) -> list[Decision]:
        """Take all charges if all of them fit, or else none."""
        conversations = self._conversations
        seconds = until - self._clock.now()
        question = conversations.question(charges, token, seconds)
        if question is None:
            return await self._held(conversations.take(charges, token, seconds), until)
        replies = await self._ask(None, question, 1, until)
        if type(replies[0]) is bytes:
            return conversations.answer(charges, replies[0])
        return await self._held(conversations.take(charges, token, seconds, asked=True), until, replies)

    async def peek(self, charges: Sequence[Charge], until: float) -> list[Decision]:
        """Return the decision that `take` would come to about each, and take nothing."""
        return await self._held(self._conversations.peek(charges), until)

    async def refund(
        self, charges: Sequence[Charge], receipts: Sequence[int], token: bytes, until: float
    ) -> None:
        """Give back charges that were taken, once for each `token`."""
        left = until - self._clock.now()
        await self._held(self._conversations.refund(charges, receipts, token, left), until)

    async def reset(self, counters: Sequence[Counter], key: str | bytes, until: float) -> None:
        """Forget what counts for `key`."""
        await self._held(self._conversations.reset(counters, key), until)

    async def holding(self, counters: Sequence[Counter], limit: int, until: float) -> Holding:
        """Return what is held for `counters`, with at most `limit` entries."""
        scan_until = (self._clock.now() + until) / 2
        conversation = self._conversations.holding(counters, limit, lambda: self._clock.now() > scan_until)
        return await self._held(conversation, until)

    async def load(self, until: float) -> None:
        """Make all scripts known to the server."""
        await self._held(self._conversations.load(), until)

    async def close(self) -> None:
        """Let go of the connections of the loop that is running."""
        loop = asyncio.get_running_loop()
        for place in list(self._links):
            if place[0] is loop and (link := self._links.pop(place, None)):
                link.close("the store was closed")
        await asyncio.sleep(0)  # a transport says good-bye in the loop's next turn

    async def _held(
        self, conversation: Conversation[Answer], until: float, heard: list[Any] | None = None
    ) -> Answer:
        """Hold a conversation, and return what it comes to; `heard` are the replies to its first question."""
        try:
            ask = next(conversation)
            while True:
                replies = heard or await self._ask(*ask, until)
                heard = None
                ask = conversation.send(replies)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]  # a generator's value is not typed

    async def _ask(self, address: Address | None, commands: bytes, replies: int, until: float) -> list[Any]:
        link = self._links.get((asyncio.get_running_loop(), address))
        if link is None or not link.is_usable:
            link = await self._linked(address, until)
        left = until - self._clock.now()
        if left <= 0:
            raise Lost("no time left to ask")
        try:
            found = await link.ask(commands, replies, left)
        except Lost:
            self._conversations.nodes.lost(address)
            raise
        if isinstance(found[-1], ErrorReply) and found[-1].leads_astray:
            link.retire()
        return found

    async def _linked(self, address: Address | None, until: float) -> Link:
        """Return a new link, which all who need one at this time wait for together."""
        left = until - self._clock.now()
        if left <= 0:
            raise Lost("no time left to connect")
        loop = asyncio.get_running_loop()
        place = loop, address
        connecting = self._connecting.get(place)
        if connecting is None:
            connecting = self._connecting[place] = loop.create_task(self._connected(address, left))
            connecting.add_done_callback(lambda task: self._note_connected(place, task))
        done, _ = await asyncio.wait({connecting}, timeout=left)
        if not done:
            raise Lost("no connection in time")
        try:
            return connecting.result()
        except Lost as error:
            raise Lost(str(error)) from error  # an exception of one's own for each who waits
        except StoreUnavailable as error:
            raise type(error)(error.message) from error

    def _note_connected(self, place: tuple[Any, Address | None], connecting: asyncio.Task[Link]) -> None:
        """Let the next one connect anew; take note of an error for which nobody is waiting any more."""
        self._connecting.pop(place, None)
        if not connecting.cancelled():
            connecting.exception()

    async def _connected(self, address: Address | None, seconds: float) -> Link:
        """Return a new link on which we have said who we are."""
        loop = asyncio.get_running_loop()
        made = self._source.connection(address, seconds)
        ends = loop.time() + seconds
        try:
            async with asyncio.timeout(seconds):
                await made.connect()
                link = Link(made, loop)
                await link.start()
                await self._greet(made, link, ends)
                if address is None:
                    await self._look(link, ends)
        except (Lost, RedisError, OSError) as error:
            made._close()  # noqa: SLF001 - as in Link.close
            self._conversations.nodes.lost(address)
            raise Lost(f"no connection ({str(error) or 'not in time'})") from error
        except BaseException:
            made._close()  # noqa: SLF001 - as in Link.close
            raise
        self._keep(loop, address, link)
        return link

    def _keep(self, loop: asyncio.AbstractEventLoop, address: Address | None, link: Link) -> None:
        """Have the tasks of the loop use a link, and forget those of loops that were closed."""
        for place in list(self._links):
            if place[0].is_closed():
                self._links.pop(place, None)
        self._links[loop, address] = link

    async def _look(self, link: Link, ends: float) -> None:
        """Look once at what kind of server was named."""
        if not self._has_looked:
            left = ends - asyncio.get_running_loop().time()
            self._conversations.see(*await link.ask(LOOK.commands, LOOK.replies, left))
            self._has_looked = True

    async def _greet(self, made: Any, link: Link, ends: float) -> None:
        provider = made.credential_provider
        credentials = None if provider is None else await provider.get_credentials_async()
        commands = self._source.greeting(made, credentials)
        if commands:
            left = ends - asyncio.get_running_loop().time()
            for reply in await link.ask(b"".join(commands), len(commands), left):
                if isinstance(reply, ErrorReply):
                    raise failure(reply, self.name)
