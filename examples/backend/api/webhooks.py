"""What other services tell us."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from examples.backend.api import strict_json
from examples.backend.api.http import Access, Reply, Route
from examples.backend.schemas.webhooks import Accepted, CallData, SignedEvent, StatusCallback

if TYPE_CHECKING:
    from examples.backend.api.http import Request
    from examples.backend.assembly import Backend

ACCEPTED: Final = {"accepted": True}
SECRET: Final = re.compile(r"(?<=/api/webhooks/)[^/]+")
CALL_COMPLETED: Final = "call.completed"
RECORDING_DELETE: Final = "recording.delete"


def path_for_log(path: str) -> str:
    """Return a request's path without a tenant's secret.

    Example:
        >>> path_for_log("/api/webhooks/nobody-can-guess-it/signed"), path_for_log("/api/tenant")
        ('/api/webhooks/…/signed', '/api/tenant')
    """
    return SECRET.sub("…", path)


async def admit_callback(backend: Backend, request: Request) -> None:
    """Let a delivery to a tenant's address in; there is nothing at any other."""
    request.tenant = await backend.webhooks.admit("telephony", request.parameters["secret"])


async def admit_signed(backend: Backend, request: Request) -> None:
    """Let a delivery to a tenant's address in; whether it is signed is told by its body."""
    request.tenant = await backend.webhooks.admit("signed", request.parameters["secret"])


async def take_callback(backend: Backend, request: Request) -> Reply:
    """Note that something about a call has changed. A repetition is answered like the first delivery."""
    callback: StatusCallback = request.content
    await backend.webhooks.take(request.tenant, callback.call_sid, callback.status, callback.date_updated)
    return Reply(content=ACCEPTED)


async def take_signed(backend: Backend, request: Request) -> Reply:
    """Do what a signed delivery says (Standard Webhooks).

    `call.completed` has the recording of a call brought, `recording.delete` has it deleted. What else there
    may be is accepted and means nothing.
    """
    webhooks = backend.webhooks
    body = await request.incoming.read()
    delivery_id = await webhooks.check(request.tenant, body, request.incoming.headers)
    event = SignedEvent.model_validate(strict_json.parse(body))
    if event.type == CALL_COMPLETED:
        sid = CallData.model_validate(event.data).call_sid
        await webhooks.take(request.tenant, sid, "completed", delivery_id, delivery_id)
    elif event.type == RECORDING_DELETE:
        sid = CallData.model_validate(event.data).call_sid
        await webhooks.remove(request.tenant, sid, delivery_id)
    return Reply(content=ACCEPTED)


SIGNATURE: Final = {
    "webhook-id": "Names the delivery; its repetitions have the same.",
    "webhook-timestamp": "When it was signed, in Unix seconds.",
    "webhook-signature": "`v1,` and the signature of id, timestamp and body (Standard Webhooks).",
}

ROUTES: Final = (
    Route(method="POST", path="/api/webhooks/{secret}/telephony", handler=take_callback,
          access=Access.ANYBODY, admit=admit_callback, limited=False, body=StatusCallback, form=True,
          answers={200: Accepted}, errors=(404, 429)),
    Route(method="POST", path="/api/webhooks/{secret}/signed", handler=take_signed,
          access=Access.ANYBODY, admit=admit_signed, limited=False, body=SignedEvent, raw=True,
          headers=SIGNATURE,
          answers={200: Accepted}, errors=(401, 404, 429)),
)  # fmt: skip
