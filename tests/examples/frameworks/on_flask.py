"""Flask. It answers exceptions itself unless `PROPAGATE_EXCEPTIONS` is set."""

from __future__ import annotations

from flask import Flask, abort, request
from werkzeug.datastructures import WWWAuthenticate

from examples.adapters import note, request_id, wsgi
from tests.examples.frameworks import common

flask = Flask(__name__)
flask.config["PROPAGATE_EXCEPTIONS"] = True
app = wsgi.ResilienceMiddleware(flask, **common.BOUNDS)


@flask.get("/ok")
def ok():
    note(common.ALLOWED)
    return {"id": request_id()}


@flask.get("/missing")
def missing():
    common.missing()


@flask.get("/limited")
def limited():
    common.limited()


@flask.get("/boom")
def boom():
    common.boom()


@flask.get("/grouped")
def grouped():
    common.grouped()


@flask.get("/teapot")
def teapot():
    abort(401, description="Who are you?", www_authenticate=WWWAuthenticate("basic"))


@flask.get("/number")
def number():
    return request.args["n"]


@flask.get("/stream")
def stream():
    return common.pieces()


@flask.get("/torn")
def torn():
    return common.torn()


@flask.post("/json")
def read_json():
    return request.get_json()


@flask.post("/form")
def read_form():
    return str(len(request.form))


@flask.post("/raw")
def read_raw():
    return str(len(request.get_data()))
