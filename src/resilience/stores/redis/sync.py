"""Asks Redis from threads: one question at a time on a connection that nobody else is using.

A connection is taken from those that are idle, or made. It goes back only after all replies were read, and
nothing but them; whatever else happens, it is closed. So nobody ever reads a reply to somebody else. Where
one turns out to be broken, those that are idle are closed too: a restart has broken them all.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from redis import Redis
from redis.exceptions import RedisError

from resilience.fork import survive_fork
from resilience.stores.engine import Lost
from resilience.stores.redis.answers import failure
from resilience.stores.redis.conversation import LOOK, Conversations
from resilience.stores.redis.source import Source
from resilience.stores.redis.wire import ErrorReply, Garbled, parsed

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from resilience._core.counting import Charge, Counter
    from resilience._core.quota import Decision
    from resilience.clock import Clock
    from resilience.stores import Holding
    from resilience.stores.redis.codec import Codec
    from resilience.stores.redis.conversation import Answer, Conversation
    from resilience.stores.redis.source import Address

_MOST_IDLE: Final = 64
"""Connections that are kept for each server. There are as many as threads ask at once; more are not kept."""
_RECEIVE: Final = 65536


class Connection:
    """A connection that stands, for one thread at a time.

    Its socket is redis-py's, which opened it and will close it. redis-py itself would bound each piece of a
    reply, and not the whole.
    """

    def __init__(self, made: Any, clock: Clock) -> None:
        self._made = made
        self._socket: socket.socket = made._sock  # noqa: SLF001 - see the class
        self._clock = clock

    def ask(self, commands: bytes, replies: int, until: float) -> list[Any]:
        """Send commands and return so many replies.

        Raises:
            Lost: They did not all come by `until`, or not only they.
        """
        try:
            self._limit(until)
            self._socket.sendall(commands)
            return self._receive(replies, until)
        except (OSError, Garbled) as error:
            raise Lost(str(error) or type(error).__name__) from error

    def _receive(self, replies: int, until: float) -> list[Any]:
        received = b""
        at = 0
        found: list[Any] = []
        while True:
            more = self._socket.recv(_RECEIVE)
            if not more:
                raise Lost("the server closed the connection")
            received = received + more if received else more
            while len(found) < replies and (whole := parsed(received, at)):
                reply, at = whole
                found.append(reply)
            if len(found) == replies:
                if at < len(received):
                    raise Garbled("more replies than questions")
                return found
            self._limit(until)

    def _limit(self, until: float) -> None:
        left = until - self._clock.now()
        if left <= 0:
            raise TimeoutError("no whole reply in time")
        self._socket.settimeout(left)

    def close(self) -> None:
        """Let go of it."""
        self._made.disconnect()


class RedisEngine:
    """Asks one server, or the nodes of a Cluster; see `resilience.stores.remote.Engine`."""

    def __init__(self, server: str | Redis, codec: Codec, clock: Clock) -> None:
        self._source = Source(server, Redis, "redis.Redis")
        self.name = self._source.name
        self._clock = clock
        self._conversations = Conversations(codec, self.name)
        self._has_looked = False
        survive_fork(self)

    def after_fork(self) -> None:
        """Forget the connections, which are the parent's; redis-py lets go of them in this process only."""
        # Threads take out and put in by single operations, so it needs no lock.
        self._idle: dict[Address | None, deque[Connection]] = {}

    def take(self, charges: Sequence[Charge], token: bytes, until: float) -> list[Decision]:
        """Take all charges if all of them fit, or else none."""
        conversations = self._conversations
        seconds = until - self._clock.now()
        question = conversations.question(charges, token, seconds)
        if question is None:
            return self._held(conversations.take(charges, token, seconds), until)
        replies = self._ask(None, question, 1, until)
        if type(replies[0]) is bytes:
            return conversations.answer(charges, replies[0])
        return self._held(conversations.take(charges, token, seconds, asked=True), until, replies)

    def peek(self, charges: Sequence[Charge], until: float) -> list[Decision]:
        """Return the decision that `take` would come to about each, and take nothing."""
        return self._held(self._conversations.peek(charges), until)

    def refund(self, charges: Sequence[Charge], receipts: Sequence[int], token: bytes, until: float) -> None:
        """Give back charges that were taken, once for each `token`."""
        left = until - self._clock.now()
        self._held(self._conversations.refund(charges, receipts, token, left), until)

    def reset(self, counters: Sequence[Counter], key: str | bytes, until: float) -> None:
        """Forget what counts for `key`."""
        self._held(self._conversations.reset(counters, key), until)

    def holding(self, counters: Sequence[Counter], limit: int, until: float) -> Holding:
        """Return what is held for `counters`, with at most `limit` entries."""
        scan_until = (self._clock.now() + until) / 2
        conversation = self._conversations.holding(counters, limit, lambda: self._clock.now() > scan_until)
        return self._held(conversation, until)

    def load(self, until: float) -> None:
        """Make all scripts known to the server."""
        self._held(self._conversations.load(), until)

    def close(self) -> None:
        """Let go of the connections that are idle; those in use are closed by whoever uses them."""
        for address in list(self._idle):
            self._drop_idle(address)

    def _held(
        self, conversation: Conversation[Answer], until: float, heard: list[Any] | None = None
    ) -> Answer:
        """Hold a conversation, and return what it comes to; `heard` are the replies to its first question."""
        try:
            ask = next(conversation)
            while True:
                replies = heard or self._ask(*ask, until)
                heard = None
                ask = conversation.send(replies)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]  # a generator's value is not typed

    def _ask(self, address: Address | None, commands: bytes, replies: int, until: float) -> list[Any]:
        try:
            connection = self._idle[address].pop()
        except LookupError:
            connection = self._connected(address, until)
        try:
            found = connection.ask(commands, replies, until)
        except BaseException as error:
            connection.close()
            if isinstance(error, Lost):
                self._drop_idle(address)
                self._conversations.nodes.lost(address)
            raise
        if isinstance(found[-1], ErrorReply) and found[-1].leads_astray:
            connection.close()
            self._drop_idle(address)
        else:
            self._put_back(address, connection)
        return found

    def _put_back(self, address: Address | None, connection: Connection) -> None:
        idle = self._idle.get(address)
        if idle is None:
            idle = self._idle.setdefault(address, deque())
        if len(idle) < _MOST_IDLE:
            idle.append(connection)
        else:
            connection.close()

    def _drop_idle(self, address: Address | None) -> None:
        idle = self._idle.pop(address, None)
        while idle:
            try:
                idle.pop().close()
            except IndexError:  # another thread has taken the last one
                break

    def _connected(self, address: Address | None, until: float) -> Connection:
        """Return a new connection on which we have said who we are."""
        left = until - self._clock.now()
        if left <= 0:
            raise Lost("no time left to connect")
        made = self._source.connection(address, left)
        try:
            made.connect()
            connection = Connection(made, self._clock)
            self._greet(made, connection, until)
            if not self._has_looked and address is None:
                self._conversations.see(*connection.ask(LOOK.commands, LOOK.replies, until))
                self._has_looked = True
        except BaseException as error:
            made.disconnect()
            if isinstance(error, Lost | RedisError | OSError):
                self._conversations.nodes.lost(address)
                raise Lost(f"no connection ({str(error) or 'not in time'})") from error
            raise
        return connection

    def _greet(self, made: Any, connection: Connection, until: float) -> None:
        provider = made.credential_provider
        credentials = None if provider is None else provider.get_credentials()
        commands = self._source.greeting(made, credentials)
        if commands:
            for reply in connection.ask(b"".join(commands), len(commands), until):
                if isinstance(reply, ErrorReply):
                    raise failure(reply, self.name)
