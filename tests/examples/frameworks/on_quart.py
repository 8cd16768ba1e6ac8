"""Quart. It answers exceptions itself unless `PROPAGATE_EXCEPTIONS` is set."""

from __future__ import annotations

import asyncio

from quart import Quart, abort, request
from werkzeug.datastructures import WWWAuthenticate

from examples.adapters import asgi, note, request_id
from tests.examples.frameworks import common

quart = Quart(__name__)
quart.config["PROPAGATE_EXCEPTIONS"] = True
app = asgi.ResilienceMiddleware(quart, **common.BOUNDS)


@quart.get("/ok")
async def ok():
    note(common.ALLOWED)
    return {"id": request_id()}


@quart.get("/missing")
async def missing():
    common.missing()


@quart.get("/limited")
def limited():
    common.limited()


@quart.get("/boom")
async def boom():
    common.boom()


@quart.get("/grouped")
async def grouped():
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(missing())


@quart.get("/teapot")
async def teapot():
    abort(401, description="Who are you?", www_authenticate=WWWAuthenticate("basic"))


@quart.get("/number")
async def number():
    return request.args["n"]


@quart.get("/stream")
async def stream():
    return common.pieces()


@quart.get("/torn")
async def torn():
    return common.torn()


@quart.post("/json")
async def read_json():
    return await request.get_json()


@quart.post("/form")
async def read_form():
    return str(len(await request.form))


@quart.post("/raw")
async def read_raw():
    return str(len(await request.get_data()))
