"""What other services tell us."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from examples.backend.api.http import Access, Reply, Route
from examples.backend.schemas.recordings import StatusCallback

if TYPE_CHECKING:
    from examples.backend.api.http import Request
    from examples.backend.assembly import Backend


async def admit(backend: Backend, request: Request) -> None:
    """Let a delivery to a tenant's address in; there is nothing at any other."""
    request.tenant = await backend.webhooks.admit(request.parameters["secret"])


async def take_callback(backend: Backend, request: Request) -> Reply:
    """Note that something about a call has changed. A repetition is answered like the first delivery."""
    callback: StatusCallback = request.content
    await backend.webhooks.take(request.tenant, callback.call_sid, callback.status, callback.date_updated)
    return Reply(content={"accepted": True})


ROUTES: Final = (
    Route(method="POST", path="/api/webhooks/{secret}/telephony", handler=take_callback,
          access=Access.ANYBODY, admit=admit, limited=False, body=StatusCallback, form=True),
)  # fmt: skip
