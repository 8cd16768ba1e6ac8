"""Starlette. It answers unhandled exceptions outside of its middleware, so the wrapper goes around it."""

from __future__ import annotations

import asyncio
import json

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route

from examples.adapters import asgi, note, request_id
from tests.examples.frameworks import common


async def ok(request):
    note(common.ALLOWED)
    return JSONResponse({"id": request_id()})


async def missing(request):
    common.missing()


def limited(request):
    common.limited()


async def boom(request):
    common.boom()


async def grouped(request):
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(missing(request))


async def teapot(request):
    raise HTTPException(401, "Who are you?", {"WWW-Authenticate": "Basic"})


async def number(request):
    if not request.query_params.get("n", "").isdigit():
        raise HTTPException(400, "n is a number")
    return PlainTextResponse(request.query_params["n"])


async def stream(request):
    return StreamingResponse(common.pieces())


async def torn(request):
    return StreamingResponse(common.torn())


async def read_json(request):
    try:
        return JSONResponse(await request.json())
    except json.JSONDecodeError:
        raise HTTPException(400, "Malformed JSON") from None


async def read_form(request):
    async with request.form() as form:
        return PlainTextResponse(str(len(form)))


async def read_raw(request):
    return PlainTextResponse(str(len(await request.body())))


app = asgi.ResilienceMiddleware(
    Starlette(
        routes=[
            *(Route(f"/{view.__name__}", view) for view in (ok, missing, limited, boom, grouped, teapot)),
            *(Route(f"/{view.__name__}", view) for view in (number, stream, torn)),
            Route("/json", read_json, methods=["POST"]),
            Route("/form", read_form, methods=["POST"]),
            Route("/raw", read_raw, methods=["POST"]),
        ]
    ),
    **common.BOUNDS,
)
