"""Falcon. It makes a 500 of whatever it does not know, so it is told to let it go up to the wrapper."""

from __future__ import annotations

import falcon

from examples.adapters import note, request_id, wsgi
from tests.examples.frameworks import common


class Get:
    """A route that answers GET with one function."""

    def __init__(self, answer):
        self.answer = answer

    def on_get(self, request, response):
        self.answer(request, response)


class Post(Get):
    def on_post(self, request, response):
        self.answer(request, response)

    on_get = None


def ok(request, response):
    note(common.ALLOWED)
    response.media = {"id": request_id()}


def teapot(request, response):
    raise falcon.HTTPUnauthorized(description="Who are you?", challenges=["Basic"])


def number(request, response):
    response.text = str(request.get_param_as_int("n", required=True))


def stream(request, response):
    response.content_type = "text/plain"
    response.stream = common.pieces()


def torn(request, response):
    response.content_type = "text/plain"
    response.stream = common.torn()


def read_json(request, response):
    response.media = request.get_media()


def read_form(request, response):
    response.text = str(sum(1 for _ in request.get_media()))


def read_raw(request, response):
    response.text = str(len(request.bounded_stream.read()))


def let_go(request, response, error, parameters):
    raise error


api = falcon.App()
api.add_error_handler(Exception, let_go)
for view in (ok, teapot, number, stream, torn):
    api.add_route(f"/{view.__name__}", Get(view))
for failing in (common.missing, common.limited, common.boom, common.grouped):
    api.add_route(f"/{failing.__name__}", Get(lambda request, response, fail=failing: fail()))
for name, view in {"json": read_json, "form": read_form, "raw": read_raw}.items():
    api.add_route(f"/{name}", Post(view))

app = wsgi.ResilienceMiddleware(api, **common.BOUNDS)
