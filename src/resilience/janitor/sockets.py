"""The open sockets of this process: who they belong to, and how they are closed.

A WebSocket outlives the request that authenticated it, so somebody has to close it when its session ends.

The rules:

- A socket is closed on the event loop on which it was registered, whichever thread or loop asks for it. One
  that was registered in a thread without a loop, and whose `close` blocks, is closed in a thread of its own.
- Each close is bounded by a timeout, and a close that fails or hangs keeps no other from happening. A thread
  cannot be ended from outside: one that hangs is left, and its socket not tried again before it comes back.
- The registry does not keep a socket alive: one that is dropped without a word is forgotten.
- The code says what happened (RFC 6455, section 7.4.1, and the IANA registry): 1008 tells the client that
  its session is over; 1012 that the service restarts, so that it should come back.

Any object will do that has an awaitable `close(code, reason)`: those of Starlette, `websockets` and Quart. So
will one with a blocking `close(code, reason)`, as those of flask-sock and of `websockets.sync`.
"""

from __future__ import annotations

import weakref
from functools import partial
from random import random as system_random
from threading import RLock, Thread
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn, Protocol, Self, cast

from resilience.callables import Kind, kind_of
from resilience.checks import number
from resilience.clock import SYSTEM_CLOCK
from resilience.fork import survive_fork

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Collection, Iterable
    from concurrent.futures import Future

    from resilience.clock import Clock

SESSION_ENDED: Final = 1008
"""The close code "policy violation": the session of this socket has ended."""

SERVICE_RESTART: Final = 1012
"""The close code "service restart": come back in a moment."""


class Socket(Protocol):
    """What can be registered."""

    def close(self, code: int, reason: str, /) -> object:
        """Close the connection with this code and reason.

        Returns an awaitable where it is registered on an event loop. Else it blocks until that is done, and
        is called in a thread of its own, while another may be sending or receiving.
        """
        ...


class Registration:
    """A socket's entry in the registry; a context manager that ends it.

    Ending it twice, or after the socket was closed, does nothing.
    """

    __slots__ = ("__weakref__", "_registry", "_socket", "closing", "loop", "session_id", "thread", "user_id")

    def __init__(
        self,
        registry: SocketRegistry,
        socket: Socket,
        session_id: str,
        user_id: str | None,
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        self.session_id = session_id
        self.user_id = user_id
        self.loop = loop
        """Where it is closed; None means in a thread."""
        self.closing = False
        self.thread: Thread | None = None
        """The one in which its `close` was last called."""
        self._registry = registry
        self._socket = weakref.ref(socket, lambda _: self.unregister())

    @property
    def socket(self) -> Socket | None:
        """The socket, unless nobody else has it any more."""
        return self._socket()

    def is_stuck(self) -> bool:
        """Return whether a `close` that took too long is still at it."""
        return self.thread is not None and self.thread.is_alive()

    def close_within(self, seconds: float, close: Callable[[], object]) -> None:
        """Close the socket in a thread, and leave it there if it takes longer.

        Raises:
            TimeoutError: It takes longer.
            TypeError: The close has to be awaited.
            Exception: What `close` raises.
        """
        from concurrent.futures import Future  # noqa: PLC0415 - asyncio has loaded it by now

        closing: Future[object] = Future()

        def run() -> None:
            try:
                closing.set_result(close())
            except BaseException as error:  # noqa: BLE001 - it is raised where the outcome is awaited
                closing.set_exception(error)

        self.thread = Thread(target=run, name="resilience closes a socket", daemon=True)
        self.thread.start()
        if hasattr(closing.result(seconds), "__await__"):
            raise TypeError("close(code, reason) has to be awaited: register the socket on its event loop")

    def unregister(self) -> None:
        """Take the socket out of the registry, without closing it."""
        self._registry.forget(self)

    def __enter__(self) -> Self:
        """Return the registration; leaving the block ends it."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Take the socket out of the registry."""
        self.unregister()


class SocketRegistry:
    """Knows the open sockets of this process, and closes them when their session or the service ends.

    Threads and event loops may share it. A forked child begins with an empty one: the sockets are its
    parent's.

    Args:
        close_timeout: Seconds that one close may take.
        spread: Seconds over which `shut_down` spreads the closes, at random, so that the clients do not all
            come back in the same instant.
        clock: Tells how to wait for one's turn in the spread.
        random: Returns a random number in [0, 1).

    Example:
        >>> import asyncio
        >>> class Socket:
        ...     async def close(self, code, reason):
        ...         print(code, reason)
        >>> async def serve():
        ...     sockets, socket = SocketRegistry(), Socket()
        ...     with sockets.register(socket, session_id="5e55", user_id="ada"):
        ...         await sockets.end_sessions_async(["5e55"])
        >>> asyncio.run(serve())
        1008 session ended
    """

    def __init__(
        self,
        *,
        close_timeout: float = 2.0,
        spread: float = 1.0,
        clock: Clock = SYSTEM_CLOCK,
        random: Callable[[], float] = system_random,
    ) -> None:
        self._close_timeout = number("close_timeout", close_timeout, above=0)
        self._spread = number("spread", spread, least=0)
        self._clock = clock
        self._random = random
        self._closed = 0
        self._failed = 0
        survive_fork(self)

    def after_fork(self) -> None:
        """Make the lock anew, and leave the parent its sockets."""
        self._lock = RLock()
        self._open: set[Registration] = set()
        self._tasks: set[asyncio.Task[bool]] = set()  # the loop itself would lose them

    @property
    def closed(self) -> int:
        """How many sockets this registry has closed."""
        return self._closed

    @property
    def failed(self) -> int:
        """How many closes have failed, or taken longer than the timeout. Each is logged as a warning."""
        return self._failed

    def __len__(self) -> int:
        """Return how many sockets are registered."""
        return len(self._open)

    def register(self, socket: Socket, session_id: str, user_id: str | None = None) -> Registration:
        """Enter a socket, from a coroutine that runs on its event loop, or from a thread without one.

        Args:
            socket: Has a `close(code, reason)`, and can be referred to weakly. On an event loop it must be
                awaitable; in a thread it must block.
            session_id: The id of its session, as the session store gives it; not the token.
            user_id: Whose session it is.

        Raises:
            RuntimeError: The close has to be awaited, and no event loop runs in this thread.
            TypeError: The socket has no `close`, or cannot be referred to weakly.
        """
        import asyncio  # noqa: PLC0415 - a service without sockets does not pay for it

        if not callable(getattr(socket, "close", None)):
            raise TypeError(f"{socket!r} has no close(code, reason): register the socket itself")
        loop: asyncio.AbstractEventLoop | None = None
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            if kind_of(socket.close) is not Kind.SYNC:
                raise
        registration = Registration(self, socket, session_id, user_id, loop)
        with self._lock:
            self._open.add(registration)
        return registration

    def forget(self, registration: Registration) -> None:
        """Take a registration out; the same as `registration.unregister()`."""
        with self._lock:
            self._open.discard(registration)

    def session_ids(self) -> list[str]:
        """Return the ids of the sessions that have a socket here."""
        return list({registration.session_id for registration in self._snapshot()})

    def end_sessions(self, session_ids: Collection[str], user_id: str | None = None) -> int:
        """Close the sockets of these sessions, and those of this user, with 1008.

        Waits for them, up to the timeout of a close; but not for those whose event loop runs in this very
        thread, since that would wait for ever. They are closed once the loop gets its turn.

        Returns:
            How many were closed by the time it returns.
        """
        return self._wait(self._close_ended(session_ids, user_id), self._close_timeout)

    async def end_sessions_async(self, session_ids: Collection[str], user_id: str | None = None) -> int:
        """Close the sockets of these sessions, and those of this user, with 1008; wait for them.

        A cancellation leaves at once; what was begun goes on.

        Returns:
            How many were closed by the time it returns.
        """
        return await self._wait_async(self._close_ended(session_ids, user_id), self._close_timeout)

    def shut_down(self) -> int:
        """Close all sockets with 1012, each at a random moment of the spread; wait as `end_sessions` does.

        Call it after the service has stopped to accept connections, and before it drains.
        """
        return self._wait(self._close_all(), self._spread + self._close_timeout)

    async def shut_down_async(self) -> int:
        """Close all sockets with 1012, each at a random moment of the spread; wait for them."""
        return await self._wait_async(self._close_all(), self._spread + self._close_timeout)

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled."""
        raise TypeError("a socket registry belongs to the sockets of its process: make a new one instead")

    def _snapshot(self) -> list[Registration]:
        # The list is made in one go, without running Python code, in which the collector might call
        # `forget` for a lost socket and change the set.
        with self._lock:
            return list(self._open)

    def _close_ended(self, session_ids: Collection[str], user_id: str | None) -> list[_Closing]:
        wanted = frozenset(session_ids)
        ended = (
            registration
            for registration in self._snapshot()
            if registration.session_id in wanted or (user_id is not None and registration.user_id == user_id)
        )
        return self._close_each(ended, SESSION_ENDED, "session ended", 0.0)

    def _close_all(self) -> list[_Closing]:
        return self._close_each(self._snapshot(), SERVICE_RESTART, "service restart", self._spread)

    def _close_each(
        self, registrations: Iterable[Registration], code: int, reason: str, spread: float
    ) -> list[_Closing]:
        """Begin to close each one where it belongs; return where the outcomes will stand."""
        return [
            self._begin(_Order(registration, code, reason, spread * self._random()))
            for registration in registrations
            if self._claim(registration)
        ]

    def _claim(self, registration: Registration) -> bool:
        """Return whether it is ours to close: it is still open, and nobody else is closing it."""
        with self._lock:
            if registration not in self._open or registration.closing or registration.is_stuck():
                return False
            registration.closing = True
        return True

    def _begin(self, order: _Order) -> _Closing:
        from concurrent.futures import Future  # noqa: PLC0415 - asyncio has loaded it by now

        closing = _Closing(order.registration.loop, Future())
        if closing.loop is None:
            self._begin_in_thread(order, closing.outcome)
        else:
            self._begin_on(closing.loop, order, closing.outcome)
        return closing

    def _begin_in_thread(self, order: _Order, outcome: Future[bool]) -> None:
        def run() -> None:
            self._settle(order, outcome, closed=self._close_blocking(order))

        try:
            Thread(target=run, name="resilience closes a socket", daemon=True).start()
        except RuntimeError as error:  # the process can have no more threads
            self._settle(order, outcome, closed=self._has_failed(order, error))

    def _begin_on(self, loop: asyncio.AbstractEventLoop, order: _Order, outcome: Future[bool]) -> None:
        def settle(task: asyncio.Task[bool]) -> None:
            with self._lock:
                self._tasks.discard(task)
            self._settle(order, outcome, closed=not task.cancelled() and task.result())

        def start() -> None:  # the coroutine is made by the loop that runs it: none is left over
            task = loop.create_task(self._close(order))
            with self._lock:
                self._tasks.add(task)
            task.add_done_callback(settle)

        try:
            loop.call_soon_threadsafe(start)
        except RuntimeError:  # the loop is closed, and all that ran on it has ended
            order.registration.unregister()
            outcome.set_result(False)

    def _settle(self, order: _Order, outcome: Future[bool], *, closed: bool) -> None:
        with self._lock:
            order.registration.closing = False  # what is still open can be tried again
        if outcome.set_running_or_notify_cancel():  # whoever asked may have left
            outcome.set_result(closed)

    def _close_blocking(self, order: _Order) -> bool:
        try:
            if order.delay:
                self._clock.sleep(order.delay)
            socket = self._still_open(order)
            if socket is None:
                return False
            close = partial(socket.close, order.code, order.reason)
            order.registration.close_within(self._close_timeout, close)
        except Exception as error:  # noqa: BLE001 - whatever a peer or a framework does; it is logged
            return self._has_failed(order, error)
        return self._is_closed(order)

    async def _close(self, order: _Order) -> bool:
        try:
            if order.delay:
                await self._clock.sleep_async(order.delay)
            socket = self._still_open(order)
            if socket is None:
                return False
            close = cast("Awaitable[object]", socket.close(order.code, order.reason))
            await _within(self._close_timeout, close)
        except Exception as error:  # noqa: BLE001 - whatever a peer or a framework does; it is logged
            return self._has_failed(order, error)
        return self._is_closed(order)

    def _still_open(self, order: _Order) -> Socket | None:
        """Return the socket, unless it went by itself."""
        return order.registration.socket if order.registration in self._open else None

    def _is_closed(self, order: _Order) -> bool:
        with self._lock:
            self._closed += 1
            self._open.discard(order.registration)
        return True

    def _has_failed(self, order: _Order, error: Exception) -> bool:
        import logging  # noqa: PLC0415 - loaded only when something went wrong

        logging.getLogger("resilience").warning(
            "could not close a socket of session %s with %d: %r",
            order.registration.session_id,
            order.code,
            error,
        )
        with self._lock:
            self._failed += 1
        return False

    def _wait(self, closings: list[_Closing], timeout: float) -> int:
        if not closings:
            return 0
        import asyncio  # noqa: PLC0415 - see `register`
        from concurrent.futures import wait  # noqa: PLC0415 - asyncio has loaded it by now

        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        wait([closing.outcome for closing in closings if here is None or closing.loop is not here], timeout)
        return _closed(closings)

    async def _wait_async(self, closings: list[_Closing], timeout: float) -> int:  # noqa: ASYNC109 - of each close
        if not closings:
            return 0
        import asyncio  # noqa: PLC0415 - see `register`

        outcomes = [asyncio.wrap_future(closing.outcome) for closing in closings]
        try:
            await asyncio.wait(outcomes, timeout=timeout)
        finally:
            for outcome in outcomes:
                outcome.cancel()  # nobody waits for those that are left
        return _closed(closings)


async def _within(seconds: float, close: Awaitable[object]) -> None:
    """Wait for a close, and leave it if it takes longer: even one that ignores its cancellation."""
    import asyncio  # noqa: PLC0415 - see `register`

    closing = asyncio.ensure_future(close)
    try:
        await asyncio.wait([closing], timeout=seconds)  # real seconds: the peer has no fake clock
        if not closing.done():
            raise TimeoutError
        closing.result()
    finally:
        closing.cancel()


class _Order(NamedTuple):
    """What is to be closed, with what, after how many seconds."""

    registration: Registration
    code: int
    reason: str
    delay: float


class _Closing(NamedTuple):
    """A close that was begun: where, and where it will stand whether the socket was closed."""

    loop: asyncio.AbstractEventLoop | None
    outcome: Future[bool]


def _closed(closings: list[_Closing]) -> int:
    outcomes = [outcome for _, outcome in closings if outcome.done() and not outcome.cancelled()]
    return sum(outcome.result() for outcome in outcomes)
