"""Django, both ways. It answers exceptions itself unless `DEBUG_PROPAGATE_EXCEPTIONS` is set."""

from __future__ import annotations

import asyncio
import json

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.exceptions import BadRequest
from django.core.handlers.asgi import ASGIRequest
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.http import require_GET, require_POST

from examples.adapters import asgi, note, request_id, wsgi
from tests.examples.frameworks import common

settings.configure(
    ALLOWED_HOSTS=["*"],
    DEBUG_PROPAGATE_EXCEPTIONS=True,
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    LOGGING_CONFIG=None,
)
django.setup()


@require_GET
def ok(request):
    note(common.ALLOWED)
    return JsonResponse({"id": request_id()})


def missing(request):
    common.missing()


def limited(request):
    common.limited()


def boom(request):
    common.boom()


async def grouped(request):
    async def fail():
        common.missing()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(fail())


def teapot(request):
    """Answer by hand: Django has no exception for 401."""
    return HttpResponse(
        "Who are you?", status=401, headers={"WWW-Authenticate": "Basic"}, content_type="text/plain"
    )


def number(request):
    if not request.GET.get("n", "").isdigit():
        raise BadRequest("n is a number")
    return HttpResponse(request.GET["n"])


async def in_time(pieces):
    for piece in pieces:
        yield piece


def answering_with(request, pieces):
    """Stream as each interface wants it."""
    return StreamingHttpResponse(in_time(pieces) if isinstance(request, ASGIRequest) else pieces)


def stream(request):
    return answering_with(request, common.pieces())


def torn(request):
    return answering_with(request, common.torn())


@require_POST
def read_json(request):
    try:
        return JsonResponse(json.loads(request.body))
    except ValueError:
        raise BadRequest("Malformed JSON") from None


@require_POST
def read_form(request):
    return HttpResponse(str(len(request.POST)))


@require_POST
def read_raw(request):
    return HttpResponse(str(len(request.read())))


urlpatterns = [
    *(path(view.__name__, view) for view in (ok, missing, limited, boom, grouped, teapot)),
    *(path(view.__name__, view) for view in (number, stream, torn)),
    path("json", read_json),
    path("form", read_form),
    path("raw", read_raw),
]

asgi_app = asgi.ResilienceMiddleware(get_asgi_application(), **common.BOUNDS)
wsgi_app = wsgi.ResilienceMiddleware(get_wsgi_application(), **common.BOUNDS)
