"""Litestar. It makes a 500 of whatever it does not know, so it is told to let it go up to the wrapper."""

# Litestar reads the annotations at run time, so there is no `from __future__ import annotations` here.

import asyncio
from typing import Any, NoReturn

from litestar import Litestar, Request, Response, get, post
from litestar.exceptions import HTTPException, NotAuthorizedException
from litestar.exceptions.responses import create_exception_response
from litestar.params import FromQuery, JSONBody
from litestar.response import Stream

from examples.adapters import asgi, note, request_id
from tests.examples.frameworks import common


def let_go(request: Request, error: Exception) -> Response:
    """Answer what is the framework's own; let everything else go up."""
    if isinstance(error, HTTPException):
        return create_exception_response(request, error)
    raise error


@get("/ok")
async def ok() -> dict[str, Any]:
    note(common.ALLOWED)
    return {"id": request_id()}


@get("/missing")
async def missing() -> None:
    common.missing()


@get("/limited", sync_to_thread=True)
def limited() -> None:
    common.limited()


@get("/boom", sync_to_thread=False)
def boom() -> None:
    common.boom()


@get("/grouped")
async def grouped() -> None:
    async def fail() -> None:
        common.missing()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(fail())


@get("/teapot")
async def teapot() -> NoReturn:
    raise NotAuthorizedException("Who are you?", headers={"WWW-Authenticate": "Basic"})


@get("/number")
async def number(n: FromQuery[int]) -> int:
    return n


@get("/stream")
async def stream() -> Stream:
    return Stream(common.pieces())


@get("/torn")
async def torn() -> Stream:
    return Stream(common.torn())


@post("/json", status_code=200)
async def read_json(data: JSONBody[Any]) -> Any:
    return data


@post("/form", status_code=200)
async def read_form(request: Request) -> str:
    return str(len(await request.form()))


@post("/raw", status_code=200)
async def read_raw(request: Request) -> str:
    return str(len(await request.body()))


app = asgi.ResilienceMiddleware(
    Litestar(
        [ok, missing, limited, boom, grouped, teapot, number, stream, torn, read_json, read_form, read_raw],
        exception_handlers={Exception: let_go},
        logging_config=None,
        openapi_config=None,
    ),
    **common.BOUNDS,
)
