"""The library's errors, request ids and limits for any ASGI application.

Wrap it around everything else, Starlette's and FastAPI's own middleware included: theirs answers an
unhandled exception outside of any middleware that is added to the application. Only CORS belongs outside of
it, so that browsers show its answers too: `CORSMiddleware(ResilienceMiddleware(app), allow_origins=…)`.

A response of 500 is held back until the application returns, since Starlette raises what it was about
right after sending it. All other responses pass at once and, unless they are errors, untouched. Once a
response has started, a failure is logged and goes up to the server, which ends the connection; once it is
complete, a failure, of a background task say, is only logged, so that the connection lives on. Once the
client has left, nobody is there to be answered: what is not its own doing is logged, and that is all.

A request whose body is refused (see `intake.py`) ends its connection.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from examples.adapters.exchange import CURRENT, LARGEST_BODY, Exchange, Settings
from examples.adapters.intake import LINGER, Intake
from resilience.clock import SYSTEM_CLOCK
from resilience.http import to_service_error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from examples.adapters.exchange import HeaderList, Mapper
    from resilience.clock import Clock
    from resilience.criticality import Criticality
    from resilience.http import ErrorResponse
    from resilience.http.headers import Style

    Message = MutableMapping[str, Any]
    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_LAST = {"http.response.body", "http.response.pathsend", "websocket.close", "websocket.http.response.body"}
"""The messages that may be an application's last; a body may say that more follows."""

_POLICY_VIOLATION = 1008
_INTERNAL_ERROR = 1011
_TRY_AGAIN_LATER = 1013


class ResilienceMiddleware:
    """Answers every error of `app` in the library's form.

    The request's id is in `scope["state"]["request_id"]` (`request.state.request_id`), in the header
    `X-Request-Id` both ways, and in `examples.adapters.request_id()`.

    Args:
        app: The application, with all its own middleware.
        development: Whether to show details and what is internal.
        mapper: What turns any exception into the error to answer with.
        style: Which rate-limit headers: `"x"`, `"ietf"` or `"both"`.
        clock: Where the wall time of the timestamps comes from, and how long a body took.
        max_body: Bytes that a request's body may have, else it is answered 413; None for any number.
        body_timeout: Seconds that are waited for a request's body, in all, else it is answered 408; None for
            as long as it takes. Both bounds need asyncio.
        path_for_log: Returns a request's path as it may be logged: some have a secret in them.
        request_timeout: Seconds that a request may take, or less where `X-Request-Timeout` asks for less: the
            deadline of its context. One that comes with no time left is answered 504. None for no deadline.
        most_critical: The most that a request may claim to matter in `X-Criticality`, such as `"critical"`;
            None to believe none.
    """

    def __init__(
        self,
        app: Application,
        *,
        development: bool = False,
        mapper: Mapper = to_service_error,
        style: Style = "x",
        clock: Clock = SYSTEM_CLOCK,
        max_body: int | None = None,
        body_timeout: float | None = None,
        path_for_log: Callable[[str], str] = str,
        request_timeout: float | None = None,
        most_critical: Criticality | str | None = None,
    ) -> None:
        self._app = app
        self._settings = Settings(
            development,
            mapper,
            style,
            clock,
            max_body,
            body_timeout,
            path_for_log,
            request_timeout,
            most_critical,
        ).checked()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; what is neither HTTP nor a WebSocket passes through."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        exchange, scope = self._begin(scope)
        connection = (_Http if scope["type"] == "http" else _WebSocket)(exchange, scope, receive, send)
        token = CURRENT.set(exchange)
        try:
            with self._settings.heeding(scope["headers"], timed=scope["type"] == "http"):
                connection.require_body()
                await self._app(scope, connection.receive, connection.send)
            await connection.finish()
        except Exception as exception:
            if connection.is_complete:
                exchange.log_failure("failed after its response", exception)
            elif connection.is_abandoned:
                exchange.error_from(exception)
            elif connection.is_late:
                exchange.log_failure("failed when its response had started", exception)
                raise
            else:
                await connection.fail(exception)
        finally:
            CURRENT.reset(token)

    def _begin(self, scope: Scope) -> tuple[Exchange, Scope]:
        """Return the exchange, and a scope whose request id is checked."""
        accept = [value.decode("latin-1") for name, value in scope["headers"] if name == b"accept"]
        proposed = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-request-id"]
        exchange = Exchange(
            self._settings,
            scope.get("method", "GET"),
            scope["path"].encode("utf-8", "surrogatepass"),
            ", ".join(accept) or None,
            proposed[0] if len(proposed) == 1 else None,
        )
        others = [header for header in scope["headers"] if header[0] != b"x-request-id"]
        return exchange, {
            **scope,
            "headers": [*others, (b"x-request-id", exchange.request_id.encode("ascii"))],
            "state": {**scope.get("state", {}), "request_id": exchange.request_id},
        }


class _Connection:
    """What is known about one connection."""

    def __init__(self, exchange: Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        self._exchange = exchange
        self._scope = scope
        self._receive = receive
        self._send = send
        self.is_late = False
        """Whether it is too late for another answer: this one has begun."""
        self.is_complete = False
        """Whether all has been said."""
        self.is_abandoned = False
        """Whether the client has left."""

    def require_body(self) -> None:
        """Raise what is wrong with the request's body; only a request has one."""

    async def receive(self) -> Message:
        """Pass on what the server says, and notice when the client leaves."""
        message = await self._receive()
        if message["type"] in {"http.disconnect", "websocket.disconnect"}:
            self.is_abandoned = True
        return message

    async def _respond(self, response: ErrorResponse, kind: str, *, more_body: bool = False) -> None:
        self.is_late = True
        headers = [
            (name.lower().encode("ascii"), value.encode("latin-1")) for name, value in response.headers
        ]
        await self._send({"type": f"{kind}.response.start", "status": response.status, "headers": headers})
        await self._send({"type": f"{kind}.response.body", "body": response.body, "more_body": more_body})
        self.is_complete = not more_body


class _Http(_Connection):
    """A request: its body is kept within bounds; its response passes, unless a framework wrote an error."""

    def __init__(self, exchange: Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(exchange, scope, receive, send)
        lengths = [value.decode("latin-1") for name, value in scope["headers"] if name == b"content-length"]
        self._intake = Intake(lengths, exchange.settings.max_body, exchange.settings.body_timeout)
        self._held: tuple[int, HeaderList] = (0, [])
        self._body = bytearray()
        self._holding = False
        self._replaced = False

    def require_body(self) -> None:
        """Raise what is wrong with the request's body, if anything is known to be."""
        if self._intake.refusal is not None:
            raise self._intake.refusal

    async def receive(self) -> Message:
        """Pass on the request's body, as far as it may go."""
        intake = self._intake
        self.require_body()
        if intake.is_complete:
            return await super().receive()
        message = await self._receive_in_time()
        if message["type"] == "http.request":
            intake.take(len(message.get("body", b"")))
            if not message.get("more_body", False):
                intake.end()
        return message

    async def _receive_in_time(self) -> Message:
        intake, clock = self._intake, self._exchange.settings.clock
        if intake.left is None:
            return await super().receive()
        began = clock.now()
        patience = asyncio.timeout(intake.left)
        try:
            async with patience:
                return await super().receive()
        except TimeoutError:
            if patience.expired():
                raise intake.expire() from None
            raise
        finally:
            intake.spend(clock.now() - began)

    async def send(self, message: Message) -> None:
        """Pass on what the application says, or hold it."""
        if self._replaced or (self._intake.refusal is not None and not self.is_late):
            return  # the rest of a body that was replaced, or what a refusal will replace
        if message["type"] == "http.response.start":
            await self._start(message)
        elif not self._holding:
            await self._send(message)
            self.is_complete = message["type"] in _LAST and not message.get("more_body", False)
        elif message["type"] == "http.response.body":
            await self._hold_body(message)
        elif message["type"] == "http.response.pathsend":
            await self._replace()

    async def finish(self) -> None:
        """Send what is still held, now that the application has returned."""
        if not self.is_late:
            self.require_body()
        if self._holding and not self._replaced:
            await self._replace()
        elif not (self.is_late or self.is_abandoned):
            raise RuntimeError("the application returned without a response")

    async def fail(self, exception: Exception) -> None:
        """Answer with the error that `exception` stands for."""
        self._replaced = True
        error = self._exchange.error_from(exception)
        if self._intake.refusal is None:
            await self._respond(self._exchange.response_for(error), "http")
        else:
            await self._part(self._exchange.response_for(self._intake.refusal))

    async def _part(self, response: ErrorResponse) -> None:
        """Answer, and have the server end the connection: the request's body is not read to its end."""
        if not self._intake.is_complete and self._scope.get("http_version", "1.1").startswith("1"):
            response.headers.append(("Connection", "close"))
        await self._respond(response, "http", more_body=self._intake.is_arriving)
        if self._intake.is_arriving:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LINGER):
                    while (await super().receive()).get("more_body", False):
                        pass
            await self._send({"type": "http.response.body", "body": b""})
            self.is_complete = True

    async def _start(self, message: Message) -> None:
        headers = [
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in message.get("headers", ())
        ]
        if self._exchange.is_framework_error(message["status"], headers):
            self._holding = True
            self._held = message["status"], headers
            return
        self.is_late = True
        own = self._exchange.with_own_headers(message["status"], headers)
        encoded = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in own]
        await self._send({**message, "headers": encoded})

    async def _hold_body(self, message: Message) -> None:
        self._body += message.get("body", b"")
        complete = not message.get("more_body", False)
        is_internal = self._held[0] == 500  # noqa: PLR2004 - see the module
        if len(self._body) > LARGEST_BODY or (complete and not is_internal):
            await self._replace()

    async def _replace(self) -> None:
        status, headers = self._held
        self._replaced = True
        await self._respond(self._exchange.replacement(status, headers, bytes(self._body)), "http")


class _WebSocket(_Connection):
    """A WebSocket: it passes untouched, and is closed if the application fails.

    Before it was accepted, the client gets the error as an HTTP response where the server can send one,
    else the 403 that servers make of an early close.
    """

    _accepted = False

    async def send(self, message: Message) -> None:
        """Pass on what the application says, and notice how far it got."""
        if message["type"] == "websocket.accept":
            self._accepted = True
        elif message["type"] in {"websocket.close", "websocket.http.response.start"}:
            self.is_late = True
        await self._send(message)
        self.is_complete = message["type"] in _LAST and not message.get("more_body", False)

    async def finish(self) -> None:
        """Do nothing: a server closes what the application left open."""

    async def fail(self, exception: Exception) -> None:
        """Refuse the connection, or close it with the code for the error."""
        error = self._exchange.error_from(exception)
        if not self._accepted and "websocket.http.response" in (self._scope.get("extensions") or {}):
            await self._respond(self._exchange.response_for(error), "websocket.http")
            return
        self.is_late = True
        code = _POLICY_VIOLATION if error.status < 500 else _INTERNAL_ERROR  # noqa: PLR2004 - server's
        if error.status == 503:  # noqa: PLR2004 - Service Unavailable
            code = _TRY_AGAIN_LATER
        await self._send({"type": "websocket.close", "code": code, "reason": str(error.code)})
