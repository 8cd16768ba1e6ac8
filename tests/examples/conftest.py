"""Backends that run, for the black-box tests; and what brings recordings, put together in this process."""

from __future__ import annotations

import contextlib

import pytest

from tests.examples.backend_process import SHELLS, Running, logged_in
from tests.examples.recordings_house import KITS, House, start_provider, stop_provider

KINDS = {
    "": {},
    "real": {"workers": 2, "real": True},
    "https": {"public_url": "https://backend.example.com"},
    "brief": {"session_idle": 1.0, "session_lifetime": 3.0, "recording_max_size": 10_000},
}
"""What follows the shell's name, and how such a backend is started."""


@pytest.fixture(scope="session")
def backends(tmp_path_factory):
    """Return a function that returns the running backend of a kind; it starts when it is first asked for."""
    running = {}
    with contextlib.ExitStack() as stack:

        def backend(kind):
            if kind not in running:
                app, _, way = kind.partition("-")
                var = tmp_path_factory.mktemp(kind) / "var"
                server = Running(var, app, telephony_recovery=0.3, **KINDS[way])
                running[kind] = stack.enter_context(server)
            return running[kind]

        yield backend


@pytest.fixture(params=SHELLS)
def server(request, backends):
    """A backend that tests share: each brings its own users, and leaves the provider well."""
    server = backends(request.param)
    yield server
    server.heal()


@pytest.fixture
def client(server):
    """Somebody who is not logged in."""
    with server.client() as client:
        yield client


@pytest.fixture
def user(server):
    """Somebody who is logged in, the administrator of a tenant of their own."""
    with logged_in(server) as client:
        yield client


@pytest.fixture(params=SHELLS)
def app(request):
    """The name of a shell, for tests that start a backend of their own."""
    return request.param


@pytest.fixture
def fake():
    """The fake provider, in threads of this process."""
    server = start_provider()
    yield server
    stop_provider(server)


@pytest.fixture(params=KITS)
async def house_with(request, fake, tmp_path):
    """Return a function that returns a house with these options, under each kit."""
    made = []

    def make(**options):
        made.append(House(fake, tmp_path, **{"kit": request.param} | options))
        return made[-1]

    yield make
    for house in made:
        await house.close()


@pytest.fixture
def house(house_with):
    """What brings recordings, under each kit."""
    return house_with()
