"""The own tenant: who belongs to it, who may come, and where its webhooks come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from examples.backend.api.accounts import ACCEPTED, said
from examples.backend.api.http import Access, Reply, Route
from examples.backend.schemas import Message
from examples.backend.schemas.tenants import (
    InvitationRequest,
    TenantShown,
    UserList,
    UserShown,
    UsersQuery,
    WebhookShown,
)

if TYPE_CHECKING:
    from examples.backend.api.http import Request
    from examples.backend.assembly import Backend

USER_ID: Final = {"user_id": "[0-9a-f]{32}"}


async def show_tenant(backend: Backend, request: Request) -> Reply:
    """Return the own tenant, and the own role in it."""
    user = request.member.user
    name = await backend.administration.name(request.member)
    return Reply(content=TenantShown(id=user.tenant_id, name=name, role=user.role).body())


async def list_users(backend: Backend, request: Request) -> Reply:
    """Return users of the own tenant, in the order of their addresses."""
    query: UsersQuery = request.query
    return Reply(content=UserList.of(await backend.administration.users(request.member, query.after)).body())


async def invite(backend: Backend, request: Request) -> Reply:
    """Invite somebody by mail. The answer is the same whether or not the address has an account."""
    body: InvitationRequest = request.content
    await backend.administration.invite(request.member, body.email, body.role)
    return said("An invitation is on its way to this address", ACCEPTED)


async def disable_user(backend: Backend, request: Request) -> Reply:
    """Keep a user out from now on, and end all sessions of theirs. Not the last administrator."""
    user = await backend.administration.disable(request.member, request.parameters["user_id"])
    return Reply(content=UserShown.of(user).body())


async def enable_user(backend: Backend, request: Request) -> Reply:
    """Let a user in again."""
    user = await backend.administration.enable(request.member, request.parameters["user_id"])
    return Reply(content=UserShown.of(user).body())


async def new_webhook_url(backend: Backend, request: Request) -> Reply:
    """Give the tenant's webhooks a new address and signing secret, shown only now; the old ones are void."""
    address = await backend.administration.new_webhook(request.member)
    url = f"{backend.settings.public_url.rstrip('/')}/api/webhooks/{address.secret}"
    shown = WebhookShown(
        url=f"{url}/telephony", signed_url=f"{url}/signed", signing_secret=address.signing_secret
    )
    return Reply(content=shown.body())


ROUTES: Final = (
    Route(method="GET", path="/api/tenant", handler=show_tenant, answers={200: TenantShown}),
    Route(method="GET", path="/api/tenant/users", handler=list_users, query=UsersQuery,
          answers={200: UserList}),
    Route(method="POST", path="/api/tenant/invitations", handler=invite, access=Access.ADMINISTRATOR,
          body=InvitationRequest, status=ACCEPTED, answers={ACCEPTED: Message}),
    Route(method="POST", path="/api/tenant/users/{user_id}/disable", handler=disable_user,
          access=Access.ADMINISTRATOR, patterns=USER_ID, answers={200: UserShown}, errors=(404, 409)),
    Route(method="POST", path="/api/tenant/users/{user_id}/enable", handler=enable_user,
          access=Access.ADMINISTRATOR, patterns=USER_ID, answers={200: UserShown}, errors=(404,)),
    Route(method="POST", path="/api/tenant/webhook-url", handler=new_webhook_url,
          access=Access.ADMINISTRATOR, answers={200: WebhookShown}),
)  # fmt: skip
