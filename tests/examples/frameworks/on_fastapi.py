"""FastAPI. Nothing needs to be told to it."""

# FastAPI reads the annotations at run time, so there is no `from __future__ import annotations` here.

import asyncio
from typing import Annotated, Any

from fastapi import Body, FastAPI, HTTPException, Request
from fastapi.responses import PlainTextResponse, StreamingResponse

from examples.adapters import asgi, note, request_id
from tests.examples.frameworks import common

api = FastAPI()
app = asgi.ResilienceMiddleware(api, **common.BOUNDS)


@api.get("/ok")
async def ok() -> dict[str, Any]:
    note(common.ALLOWED)
    return {"id": request_id()}


@api.get("/missing")
async def missing() -> None:
    common.missing()


@api.get("/limited")
def limited() -> None:
    common.limited()


@api.get("/boom")
def boom() -> None:
    common.boom()


@api.get("/grouped")
async def grouped() -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(missing())


@api.get("/teapot")
def teapot() -> None:
    raise HTTPException(401, "Who are you?", {"WWW-Authenticate": "Basic"})


@api.get("/number")
def number(n: int) -> int:
    return n


@api.get("/stream")
def stream() -> StreamingResponse:
    return StreamingResponse(common.pieces())


@api.get("/torn")
def torn() -> StreamingResponse:
    return StreamingResponse(common.torn())


@api.post("/json")
async def read_json(body: Annotated[Any, Body()]) -> Any:
    return body


@api.post("/form")
async def read_form(request: Request) -> PlainTextResponse:
    async with request.form() as form:
        return PlainTextResponse(str(len(form)))


@api.post("/raw")
async def read_raw(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))
