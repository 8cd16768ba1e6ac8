"""The shell: FastAPI turns HTTP into use cases and back. What it decides is HTTP, nothing else.

The adapter is outermost and gives every error the library's form, so errors simply go up: no route catches
any. Routes that have a limit of their own are not charged to the API's, and monitoring to none.
"""

# FastAPI reads the annotations at run time, so there is no `from __future__ import annotations` here.

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl

from fastapi import APIRouter, Depends, FastAPI, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from examples.adapters.asgi import ResilienceMiddleware
from examples.backend.assembly import Backend
from examples.backend.domain.accounts import User
from examples.backend.domain.recordings import NotReady
from examples.backend.monitoring import Monitoring
from examples.backend.schemas import (
    Login,
    Registration,
    Resend,
    StatusCallback,
    Verification,
    not_ready_body,
    recording_body,
    user_body,
)
from resilience import authentication_error, service_unavailable_error
from resilience.http import client_address, client_key

ACCEPTED: Final = 202
UNAVAILABLE: Final = 503
PRIVATE: Final = {"Cache-Control": "no-store", "Vary": "Cookie, Authorization"}
"""Headers that have no cache keep the answer, nor give it to anybody else."""


def create_app(backend: Backend) -> ResilienceMiddleware:
    """Return the backend as an ASGI application; it starts and closes the backend with its lifespan."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await backend.start()
        try:
            yield
        finally:
            await backend.close()

    development = backend.settings.environment == "development"
    app = FastAPI(
        title="Example backend",
        lifespan=lifespan,
        max_body_size=backend.settings.max_body,
        openapi_url="/openapi.json" if development else None,
    )
    app.state.backend = backend
    app.state.monitoring = Monitoring(backend)
    del app.exception_handlers[RequestValidationError]  # the adapter has an answer for every error
    for routes in (auth, recordings, webhooks, probes, monitoring):
        app.include_router(routes)
    return ResilienceMiddleware(Interruptible(app, backend), development=development)


class Interruptible:
    """Has a request that is cut off by the end of the process answered: 503, come back in a moment.

    uvicorn cancels what still runs when its grace is over, and would make a bare 500 of it.
    """

    def __init__(self, app: FastAPI, backend: Backend) -> None:
        self._app = app
        self._backend = backend

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            if not self._backend.draining:
                raise
            raise service_unavailable_error("The service", retry_after=1.0) from None


# --- who asks ------------------------------------------------------------------------------------


def get_backend(request: Request) -> Backend:
    """Return the backend that this application serves."""
    backend: Backend = request.app.state.backend
    return backend


TheBackend = Annotated[Backend, Depends(get_backend)]


def get_address(request: Request, backend: TheBackend) -> str:
    """Return the client's network address, in the form that limits count by."""
    peer = request.client.host if request.client else None
    return client_key(client_address(peer, request.headers, backend.settings.trusted_proxies))


Address = Annotated[str, Depends(get_address)]


def get_token(request: Request, backend: TheBackend) -> str | None:
    """Return the session token that came with the request, as a bearer token or in the cookie."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    return request.cookies.get(cookie_name(backend))


Token = Annotated[str | None, Depends(get_token)]


async def get_user(backend: TheBackend, address: Address, token: Token) -> User:
    """Return who is logged in, and charge the request to their limit, or else to the address's."""
    user = None if token is None else await backend.accounts.user_of(token)
    await backend.limits.api(f"user:{user.id}" if user else f"address:{address}")
    if user is None:
        raise authentication_error()
    return user


LoggedIn = Annotated[User, Depends(get_user)]


# --- accounts ------------------------------------------------------------------------------------

auth = APIRouter(prefix="/api/auth")


@auth.post("/register", status_code=ACCEPTED)
async def register(body: Registration, backend: TheBackend, address: Address) -> dict[str, str]:
    """Open an account. The answer is the same whether or not the address has one."""
    registration = await backend.accounts.register(body.email, body.password, body.name, address)
    return {"message": "If this address is free, a code is on its way to it", "registration": registration}


@auth.post("/verify-email")
async def verify_email(body: Verification, backend: TheBackend) -> dict[str, str]:
    """Prove an address by the code that was sent to it."""
    await backend.accounts.verify_email(body.email, body.code, body.registration)
    return {"message": "The address is verified: you can log in"}


@auth.post("/resend-otp", status_code=ACCEPTED)
async def resend_otp(body: Resend, backend: TheBackend) -> dict[str, str]:
    """Send a new code. The answer is the same whether or not the address awaits one."""
    await backend.accounts.resend_code(body.email)
    return {"message": "If this address awaits a code, a new one is on its way to it"}


@auth.post("/login")
async def login(
    body: Login, backend: TheBackend, address: Address, old_token: Token, response: Response
) -> dict[str, str]:
    """Begin a session; its token is in the answer for programs, and in a cookie for browsers."""
    token = await backend.accounts.login(body.email, body.password, address, old_token)
    set_cookie(response, backend, token)
    return {"token": token}


@auth.post("/logout")
async def logout(backend: TheBackend, token: Token, response: Response) -> dict[str, str]:
    """End the session. It costs nothing of any limit: one can always log out."""
    if token is not None:
        await backend.accounts.logout(token)
    set_cookie(response, backend, None)
    return {"message": "You are logged out"}


@auth.get("/me")
async def me(user: LoggedIn, response: Response) -> dict[str, Any]:
    """Return the own account."""
    response.headers.update(PRIVATE)
    return user_body(user)


def cookie_name(backend: Backend) -> str:
    """Return the cookie's name; browsers take `__Host-` only over https, from this very host."""
    return "__Host-session" if backend.settings.secure_cookies else "session"


def set_cookie(response: Response, backend: Backend, token: str | None) -> None:
    """Have the browser keep `token`, or forget the one it has."""
    response.set_cookie(
        cookie_name(backend),
        token or "",
        max_age=int(backend.settings.session_lifetime) if token else 0,
        path="/",
        secure=backend.settings.secure_cookies,
        httponly=True,
        samesite="lax",
    )
    response.headers.update(PRIVATE)


# --- recordings ----------------------------------------------------------------------------------

recordings = APIRouter(prefix="/api/recordings")

CallSid = Annotated[str, Path(pattern="^[A-Za-z0-9]{1,64}$")]


@recordings.get("/{call_sid}")
async def show_recording(call_sid: CallSid, backend: TheBackend, _: LoggedIn) -> Response:
    """Bring the recording of a call into the store, and tell about it."""
    recording = await backend.recordings.fetch(call_sid)
    if isinstance(recording, NotReady):
        return come_back(recording)
    return JSONResponse(recording_body(recording), headers=PRIVATE)


@recordings.get("/{call_sid}/sound")
async def play_recording(call_sid: CallSid, backend: TheBackend, _: LoggedIn) -> Response:
    """Bring the recording of a call into the store, and play it."""
    recording = await backend.recordings.fetch(call_sid)
    if isinstance(recording, NotReady):
        return come_back(recording)
    headers = {
        **PRIVATE,
        "Content-Length": str(recording.sound.size),
        "Content-Disposition": f'attachment; filename="{recording.call.sid}"',
        "X-Content-Type-Options": "nosniff",
    }
    sound = await backend.recordings.sound(recording)
    return StreamingResponse(sound, media_type=recording.sound.content_type, headers=headers)


def come_back(pending: NotReady) -> Response:
    """Answer that the recording may still come: 202, since nothing has failed."""
    return JSONResponse(
        not_ready_body(pending), status_code=ACCEPTED, headers={"Retry-After": f"{pending.retry_after:.0f}"}
    )


# --- webhooks ------------------------------------------------------------------------------------

webhooks = APIRouter(prefix="/api/webhooks")


async def admitted(tenant: str, backend: TheBackend) -> str:
    """Return the tenant, charged for one delivery."""
    await backend.webhooks.admit(tenant)
    return tenant


async def get_callback(request: Request, _: Annotated[str, Depends(admitted)]) -> StatusCallback:
    """Return what the provider sent: JSON, or a form as browsers send it."""
    raw = await request.body()
    if request.headers.get("Content-Type", "").startswith("application/x-www-form-urlencoded"):
        return StatusCallback.model_validate(dict(parse_qsl(raw.decode("utf-8", "replace"))))
    return StatusCallback.model_validate_json(raw)


@webhooks.post("/{tenant}/telephony")
async def take_callback(
    tenant: Annotated[str, Depends(admitted)],
    callback: Annotated[StatusCallback, Depends(get_callback)],
    backend: TheBackend,
) -> dict[str, bool]:
    """Note that something about a call has changed. A repetition is answered like the first delivery."""
    await backend.webhooks.take(tenant, callback.call_sid, callback.status, callback.date_updated)
    return {"accepted": True}


# --- monitoring ----------------------------------------------------------------------------------

probes = APIRouter(prefix="/health")


@probes.get("/live")
async def live() -> dict[str, str]:
    """Say that the event loop turns; depends on nothing."""
    return {"status": "pass"}


@probes.get("/ready")
async def ready(backend: TheBackend) -> Response:
    """Say whether requests should be sent here: not any more once the process is about to end."""
    if backend.draining:
        return health({"status": "fail", "output": "shutting down"}, UNAVAILABLE)
    return health({"status": "pass"})


def operators_only(request: Request) -> None:
    """Let nobody else see the monitoring."""
    guard: Monitoring = request.app.state.monitoring
    guard.require_operator(request.client.host if request.client else None, request.headers)


def get_monitoring(request: Request, _: Annotated[None, Depends(operators_only)]) -> Monitoring:
    """Return the reports."""
    reports: Monitoring = request.app.state.monitoring
    return reports


Reports = Annotated[Monitoring, Depends(get_monitoring)]

monitoring = APIRouter(prefix="/api/monitoring")


@monitoring.get("/health")
async def show_health(reports: Reports) -> Response:
    """Return the health of each part: 200 also with warnings, since most of the work is still done."""
    return health(await reports.health())


@monitoring.get("/cleanup-stats")
async def show_cleanup_stats(reports: Reports) -> dict[str, Any]:
    """Return what the janitor has done."""
    return reports.cleanup_stats()


@monitoring.get("/retry-stats")
async def show_retry_stats(reports: Reports) -> dict[str, Any]:
    """Return what was retried, in all and by dependency."""
    return reports.retry_stats()


@monitoring.get("/rate-limit-stats")
async def show_rate_limit_stats(reports: Reports) -> dict[str, Any]:
    """Return what each limiter counts, with hashed keys."""
    return await reports.rate_limit_stats()


@monitoring.get("/breakers")
async def show_breakers(reports: Reports) -> dict[str, Any]:
    """Return the state of each circuit breaker."""
    return reports.breakers()


def health(body: dict[str, Any], status: int = 200) -> Response:
    """Answer in the format for health checks (draft-inadarei-api-health-check-06)."""
    return JSONResponse(
        body, status, media_type="application/health+json", headers={"Cache-Control": "no-store"}
    )
