"""Accounts: sign up, prove the address, log in and out."""

from __future__ import annotations

from http.cookies import SimpleCookie
from typing import TYPE_CHECKING, Any, Final

from examples.backend.api.dispatch import cookie_name
from examples.backend.api.http import Access, Reply, Route
from examples.backend.schemas.accounts import Login, Registration, Resend, Verification, user_body

if TYPE_CHECKING:
    from examples.backend.api.http import Request
    from examples.backend.assembly import Backend

ACCEPTED: Final = 202


async def register(backend: Backend, request: Request) -> Reply:
    """Open an account. The answer is the same whether or not the address has one."""
    body: Registration = request.content
    registration = await backend.accounts.register(body.email, body.password, body.name, request.address)
    message = "If this address is free, a code is on its way to it"
    return Reply(status=ACCEPTED, content={"message": message, "registration": registration})


async def verify_email(backend: Backend, request: Request) -> Reply:
    """Prove an address by the code that was sent to it."""
    body: Verification = request.content
    await backend.accounts.verify_email(body.email, body.code, body.registration)
    return Reply(content={"message": "The address is verified: you can log in"})


async def resend_otp(backend: Backend, request: Request) -> Reply:
    """Send a new code. The answer is the same whether or not the address awaits one."""
    body: Resend = request.content
    await backend.accounts.resend_code(body.email)
    message = "If this address awaits a code, a new one is on its way to it"
    return Reply(status=ACCEPTED, content={"message": message})


async def login(backend: Backend, request: Request) -> Reply:
    """Begin a session; its token is in the answer for programs, and in a cookie for browsers."""
    body: Login = request.content
    token = await backend.accounts.login(body.email, body.password, request.address, request.token)
    return Reply(content={"token": token}, cookies=[session_cookie(backend, token)])


async def logout(backend: Backend, request: Request) -> Reply:
    """End the session. It costs nothing of any limit: one can always log out."""
    if request.token is not None:
        await backend.accounts.logout(request.token)
    return Reply(content={"message": "You are logged out"}, cookies=[session_cookie(backend, None)])


async def me(_backend: Backend, request: Request) -> Reply:
    """Return the own account."""
    return Reply(content=user_body(request.member.user))


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
    Route(method="POST", path="/api/auth/register", handler=register, access=Access.ANYBODY, limited=False,
          body=Registration, status=ACCEPTED),
    Route(method="POST", path="/api/auth/verify-email", handler=verify_email, access=Access.ANYBODY,
          limited=False, body=Verification),
    Route(method="POST", path="/api/auth/resend-otp", handler=resend_otp, access=Access.ANYBODY,
          limited=False, body=Resend, status=ACCEPTED),
    Route(method="POST", path="/api/auth/login", handler=login, access=Access.ANYBODY, limited=False,
          body=Login, errors=(401, 403)),
    Route(method="POST", path="/api/auth/logout", handler=logout, access=Access.ANYBODY, limited=False),
    Route(method="GET", path="/api/auth/me", handler=me),
)  # fmt: skip
