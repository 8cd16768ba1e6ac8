"""Accounts: sign up, prove the address, log in and out; sessions and passwords."""

from __future__ import annotations

from http.cookies import SimpleCookie
from typing import TYPE_CHECKING, Any, Final

from examples.backend.api.dispatch import cookie_name, refuse_other_sites
from examples.backend.api.http import Access, Reply, Route
from examples.backend.domain.accounts import Origin
from examples.backend.domain.codes import Purpose
from examples.backend.schemas import Message
from examples.backend.schemas.accounts import (
    Account,
    CodeRequest,
    LoggedIn,
    Login,
    PasswordChange,
    PasswordReset,
    Registered,
    Registration,
    SessionList,
    Verification,
)

if TYPE_CHECKING:
    from examples.backend.api.http import Request
    from examples.backend.assembly import Backend

ACCEPTED: Final = 202
SESSION_ID: Final = {"session_id": "[0-9a-f]{64}"}
MOST_OF_A_DEVICE: Final = 200
"""Characters of what a client says that it is."""


async def from_this_site(backend: Backend, request: Request) -> None:
    """Refuse what another site has a browser send: it could log somebody into an account of its own, say."""
    refuse_other_sites(backend, request.incoming)


async def register(backend: Backend, request: Request) -> Reply:
    """Open an account. The answer is the same whether or not the address has one."""
    body: Registration = request.content
    registration = await backend.accounts.register(
        body.email, body.password, body.name, request.address, body.invitation
    )
    message = "If this address is free, a mail is on its way to it that says how to go on"
    return Reply(status=ACCEPTED, content=Registered(message=message, registration=registration).body())


async def verify_email(backend: Backend, request: Request) -> Reply:
    """Prove an address by the code that was sent to it."""
    body: Verification = request.content
    await backend.accounts.verify_email(body.email, body.code, body.registration, request.address)
    return said("The address is verified: you can log in")


async def resend_otp(backend: Backend, request: Request) -> Reply:
    """Send a new code. The answer is the same whether or not the address awaits one."""
    body: CodeRequest = request.content
    await backend.accounts.send_code(Purpose.VERIFY_EMAIL, body.email, request.address)
    return said("If this address awaits a code, a new one is on its way to it", ACCEPTED)


async def login(backend: Backend, request: Request) -> Reply:
    """Begin a session; its token is in the answer for programs, and in a cookie for browsers."""
    body: Login = request.content
    token = await backend.accounts.login(body.email, body.password, origin_of(request), request.token)
    return logged_in(backend, token)


async def logout(backend: Backend, request: Request) -> Reply:
    """End the session. It costs nothing of any limit: one can always log out."""
    if request.token is not None:
        await backend.accounts.logout(request.token)
    return logged_out(backend, "You are logged out")


async def logout_everywhere(backend: Backend, request: Request) -> Reply:
    """End all sessions of one's own, this one too."""
    await backend.accounts.logout_everywhere(request.member)
    return logged_out(backend, "You are logged out everywhere")


async def me(_backend: Backend, request: Request) -> Reply:
    """Return the own account."""
    return Reply(content=Account.of(request.member.user).body())


async def list_sessions(backend: Backend, request: Request) -> Reply:
    """Return where one is logged in."""
    sessions = await backend.accounts.sessions_of(request.member)
    return Reply(content=SessionList.of(sessions, request.member.session.session_id).body())


async def end_session(backend: Backend, request: Request) -> Reply:
    """End one of one's own sessions, here or elsewhere."""
    session_id = request.parameters["session_id"]
    await backend.accounts.end_session(request.member, session_id)
    if session_id == request.member.session.session_id:
        return logged_out(backend, "The session has ended: you are logged out")
    return said("The session has ended")


async def change_password(backend: Backend, request: Request) -> Reply:
    """Change the password. The session that asks ends, and a new one begins; the others may end too."""
    body: PasswordChange = request.content
    token = await backend.passwords.change(
        request.member,
        body.current_password,
        body.new_password,
        origin_of(request),
        end_others=body.end_others,
    )
    return logged_in(backend, token)


async def forgot_password(backend: Backend, request: Request) -> Reply:
    """Send a code that lets one choose a new password. The answer is the same without an account."""
    body: CodeRequest = request.content
    await backend.accounts.send_code(Purpose.RESET_PASSWORD, body.email, request.address)
    return said("If this address has an account, a code is on its way to it", ACCEPTED)


async def reset_password(backend: Backend, request: Request) -> Reply:
    """Choose a new password, by the code that was sent. All sessions end."""
    body: PasswordReset = request.content
    await backend.passwords.reset(body.email, body.code, body.password, request.address)
    return said("The password has changed: you can log in")


def said(message: str, status: int = 200) -> Reply:
    """Return an answer for people to read."""
    return Reply(status=status, content=Message(message=message).body())


def logged_in(backend: Backend, token: str) -> Reply:
    """Return an answer that begins a session."""
    return Reply(content=LoggedIn(token=token).body(), cookies=[session_cookie(backend, token)])


def logged_out(backend: Backend, message: str) -> Reply:
    """Return an answer that ends a session, in the browser too."""
    reply = said(message)
    reply.cookies.append(session_cookie(backend, None))
    return reply


def origin_of(request: Request) -> Origin:
    """Return where a request came from, as its user will see it in the list of sessions."""
    said_to_be = request.incoming.headers.get("user-agent") or ""
    device = "".join(letter if letter.isprintable() else " " for letter in said_to_be[:MOST_OF_A_DEVICE])
    return Origin(request.address, device)


def session_cookie(backend: Backend, token: str | None) -> str:
    """Return the Set-Cookie that has a browser keep `token`, or forget the one it has."""
    cookie: SimpleCookie = SimpleCookie()
    name = cookie_name(backend)
    cookie[name] = token or ""
    settings: dict[str, Any] = {
        "max-age": int(backend.settings.session_lifetime) if token else 0,
        "path": "/",
        "secure": backend.settings.secure_cookies,
        "httponly": True,
        "samesite": "lax",
    }
    cookie[name].update(settings)
    return cookie[name].OutputString()


ROUTES: Final = (
    Route(method="POST", path="/api/auth/register", handler=register, access=Access.ANYBODY,
          admit=from_this_site, limited=False, body=Registration, status=ACCEPTED,
          answers={ACCEPTED: Registered}),
    Route(method="POST", path="/api/auth/verify-email", handler=verify_email, access=Access.ANYBODY,
          admit=from_this_site, limited=False, body=Verification, answers={200: Message}),
    Route(method="POST", path="/api/auth/resend-otp", handler=resend_otp, access=Access.ANYBODY,
          admit=from_this_site, limited=False, body=CodeRequest, status=ACCEPTED,
          answers={ACCEPTED: Message}),
    Route(method="POST", path="/api/auth/login", handler=login, access=Access.ANYBODY,
          admit=from_this_site, limited=False, body=Login, answers={200: LoggedIn}, errors=(401,)),
    Route(method="POST", path="/api/auth/logout", handler=logout, access=Access.ANYBODY,
          admit=from_this_site, limited=False, answers={200: Message}),
    Route(method="POST", path="/api/auth/logout-everywhere", handler=logout_everywhere,
          answers={200: Message}),
    Route(method="GET", path="/api/auth/me", handler=me, answers={200: Account}),
    Route(method="GET", path="/api/auth/sessions", handler=list_sessions, answers={200: SessionList}),
    Route(method="DELETE", path="/api/auth/sessions/{session_id}", handler=end_session,
          patterns=SESSION_ID, answers={200: Message}, errors=(404,)),
    Route(method="POST", path="/api/auth/password", handler=change_password, body=PasswordChange,
          answers={200: LoggedIn}, errors=(409, 429)),
    Route(method="POST", path="/api/auth/forgot-password", handler=forgot_password, access=Access.ANYBODY,
          admit=from_this_site, limited=False, body=CodeRequest, status=ACCEPTED,
          answers={ACCEPTED: Message}),
    Route(method="POST", path="/api/auth/reset-password", handler=reset_password, access=Access.ANYBODY,
          admit=from_this_site, limited=False, body=PasswordReset, answers={200: Message}),
)  # fmt: skip
