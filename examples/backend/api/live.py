"""Live updates: tickets, server-sent events, and what both shells' WebSockets have in common.

Both ways tell the same, one JSON object an event: `{"id", "at", "kind", "body", "after"}`. Whoever has to
come back says `after` (as `?after=` to the WebSocket; browsers do it by themselves with `Last-Event-ID`), and
is told what happened meanwhile. The kind `reset` says that this was too much: load the page's things anew.
What happened before the first connection is not told, so a page connects first, and then asks for what there
is.

A WebSocket is closed with 1008 when its session ends, 1012 when the process ends, 1013 when it is slower than
the events, 1011 when it answers no ping, and 1003 when the client says anything: it has nothing to say.
"""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, Field

from examples.backend.api.dispatch import once_each
from examples.backend.api.http import Access, Reply, Route
from examples.backend.domain.live import TIME_IS_UP, Listener
from examples.backend.domain.tickets import LIFETIME as TICKET_LIFETIME
from examples.backend.domain.tickets import Purpose
from examples.backend.schemas import timestamp
from resilience import ErrorCode, ServiceError, authorization_error, service_unavailable_error
from resilience.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from examples.backend.api.http import Incoming, Request
    from examples.backend.assembly import Backend
    from examples.backend.domain.live import LiveEvent, Subscription
    from resilience.clock import Clock

HEARTBEAT: Final = 20.0
"""Seconds between two signs of life; proxies commonly close what is silent for 60."""
STREAM_LIFETIME: Final = 300.0
"""Seconds after which a stream of server-sent events ends, and the browser comes back by itself: so no
thread, and no buffer of a proxy, is held for ever by one that has silently gone."""
LONGEST_MESSAGE: Final = 1024
"""Bytes of a client's message; anything longer is not even read."""
GREATEST_ID: Final = 2**63 - 1


class TicketRequest(BaseModel):
    """POST /api/auth/tickets."""

    purpose: Literal["live"] = "live"


class TicketAnswer(BaseModel):
    """A ticket, and for how many seconds it is good."""

    ticket: str
    expires_in: Annotated[int, Field(alias="expiresIn")]


class SocketQuery(BaseModel):
    """The query of the WebSocket's address."""

    ticket: str = ""
    after: Annotated[int | None, Field(ge=0, le=GREATEST_ID)] = None


async def issue_ticket(backend: Backend, request: Request) -> Reply:
    """Return a ticket that opens the WebSocket, once, within a minute."""
    ticket = backend.tickets.issue(request.member, Purpose.LIVE)
    return Reply(content={"ticket": ticket, "expiresIn": int(TICKET_LIFETIME)})


async def live_events(backend: Backend, request: Request) -> Reply:
    """Tell what happens to the tenant's recordings, as server-sent events.

    The stream ends with the session, and after some minutes in any case; browsers come back by themselves.
    """
    reply = Reply(
        content=b"",
        media_type="text/event-stream",
        headers={"X-Accel-Buffering": "no"},  # nginx passes on what is there
    )
    if request.incoming.method != "HEAD":  # which asks for nothing that would ever be closed
        reply.content = await open_stream(backend, request)
    return reply


async def open_stream(backend: Backend, request: Request) -> EventStream:
    """Return a stream of what happens from now on, or since the client has last heard."""
    member = request.member
    listener = Listener(member.user.id, member.user.tenant_id, member.session.session_id)
    mailbox = backend.kit.mailbox()
    try:
        subscription = await backend.live.subscribe(listener, mailbox, _last_event_id(request.incoming))
    except BaseException:
        mailbox.served()
        raise
    return EventStream(subscription, mailbox)


async def socket_only(_backend: Backend, _request: Request) -> Reply:
    """Say that this is a WebSocket: ask `/api/auth/tickets` for a ticket, then open `?ticket=…`."""
    raise ServiceError("Open this as a WebSocket", ErrorCode.BAD_REQUEST)


async def open_socket(backend: Backend, incoming: Incoming, mailbox: Any) -> Subscription:
    """Admit a WebSocket, before it is accepted.

    Browsers always say from which page a WebSocket is opened, and let every page open it, so the page is
    looked at here. Who says nothing is no browser, and has shown by its ticket that it may.

    Raises:
        ServiceError: It is opened by another site's page, without a good ticket, or when there are too many.
    """
    if backend.draining:
        raise service_unavailable_error("The service", retry_after=1.0)
    origin = incoming.headers.get("origin")
    if origin is not None and origin not in backend.settings.origins:
        raise authorization_error("This request came from another site")
    query = SocketQuery.model_validate(once_each(incoming.query))
    ticket = await backend.tickets.redeem(query.ticket, Purpose.LIVE)
    listener = Listener(ticket.user_id, ticket.tenant_id, ticket.session_id)
    return await backend.live.subscribe(listener, mailbox, query.after)


def message_of(event: LiveEvent) -> str:
    """Return an event as both ways tell it."""
    content = {
        "id": event.id,
        "at": timestamp(event.at),
        "kind": event.kind,
        "body": event.body,
        "after": event.after,
    }
    return json.dumps(content, separators=(",", ":"))


def greeting_of(subscription: Subscription) -> str:
    """Return the first message of a WebSocket: from where it tells."""
    return json.dumps({"kind": "hello", "after": subscription.begins_at}, separators=(",", ":"))


class EventStream:
    """A subscription as server-sent events: an asynchronous iterator, to be closed by whoever has it."""

    def __init__(self, subscription: Subscription, mailbox: Any, clock: Clock = SYSTEM_CLOCK) -> None:
        self._subscription = subscription
        self._mailbox = mailbox
        self._clock = clock
        self._ends_at = clock.now() + STREAM_LIFETIME
        self._has_begun = False

    def __aiter__(self) -> Self:
        """Return itself: it is read once."""
        return self

    async def __anext__(self) -> bytes:
        """Return the next event; or a comment now and then, which keeps the connection alive."""
        if not self._has_begun:
            self._has_begun = True
            return self._preamble()
        patience = HEARTBEAT
        while True:
            if (event := self._subscription.take()) is not None:
                return f"id: {event.after}\ndata: {message_of(event)}\n\n".encode()
            left = self._ends_at - self._clock.now()
            if left <= 0:
                self._mailbox.end(TIME_IS_UP)
            if self._mailbox.ending is not None:
                raise StopAsyncIteration
            if not await self._mailbox.wait(min(patience, left)) and left > patience:
                return b": still here\n\n"

    async def aclose(self) -> None:
        """Give the place up."""
        self._subscription.close()
        self._mailbox.served()

    def _preamble(self) -> bytes:
        """Say where we are, and when to come back: at random, so that not all do at once."""
        retry = random.randint(1000, 3000)  # noqa: S311 - milliseconds, no secret
        return f"retry: {retry}\nid: {self._subscription.begins_at}\n\n".encode()


def _last_event_id(incoming: Incoming) -> int | None:
    """Return up to where the client has heard; None if it says nothing that we have ever told it."""
    text = incoming.headers.get("last-event-id") or ""
    if not (text.isascii() and text.isdecimal() and len(text) < 19):  # noqa: PLR2004 - below 2 to the 63
        return None
    return int(text)


ROUTES: Final = (
    Route(
        method="POST",
        path="/api/auth/tickets",
        handler=issue_ticket,
        body=TicketRequest,
        answers={200: TicketAnswer},
    ),
    Route(
        method="GET",
        path="/api/live/events",
        handler=live_events,
        headers={"Last-Event-ID": "Up to where the client has heard; browsers send it by themselves."},
        answers={200: "text/event-stream"},
        errors=(429, 503),
    ),
    Route(
        method="GET",
        path="/api/live",
        handler=socket_only,
        access=Access.ANYBODY,
        limited=False,
        errors=(400,),
    ),
)
