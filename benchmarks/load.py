"""The example backend under load: latency of a thousand connections, and memory over ten minutes.

    python -m benchmarks.load                        both shells, at half of what they can do, for a minute
    python -m benchmarks.load --memory               memory, at a lower rate, for ten
    python -m benchmarks.load --app wsgi --workers 2 --real

It prints Markdown tables; docs/backend-figures.md keeps them and says how they are read. The backend runs as
a process of its own, on loopback and with its default settings but for two: this program is a trusted proxy,
which gives each user a network address, and the provider may be asked as often as one likes. The client is
this process, so with two cores each has one; how busy the client was is printed, and a figure with a client
near 100 % says little about the server.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import platform
import random
import re
import resource
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, process_time
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.growth import growth
from benchmarks.open_loop import Ask, as_fast_as_possible, at_rate, connected, errors_of
from tests.examples.backend_process import PASSWORD, Running, fresh_address, fresh_email, fresh_sid

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.growth import Growth
    from benchmarks.open_loop import Answer, Connection

SHARE_OF_CAPACITY = 0.5
CALLERS = 64
"""Connections with which the capacity is measured."""
WINDOW = 900.0
"""Seconds of the API's limit, which allows a user 100 requests."""
ALLOWANCE = 90
"""Requests of one user in them."""
FILLING = 960.0
"""Seconds until all windows of 15 minutes are as full as they get: only then does memory tell of leaks."""
MIX = {"me": 45, "list": 30, "recording": 14, "health": 10, "login": 1}
"""Of a hundred requests. A login costs a password hash, some 25 ms of a core."""
PATHS = {"me": "/api/auth/me", "list": "/api/recordings", "recording": "/api/recordings/{}"}
SETTINGS = {"telephony_rate": 1_000_000}
"""So many recordings are brought at first that the provider's limit of 200 a minute would be felt."""
CODE = re.compile(r"^To: (\S+)$.*^Your code is (\d{6})$", re.MULTILINE | re.DOTALL)


class User(NamedTuple):
    """Somebody with an account and one recording."""

    email: str
    address: str
    """The network address that all requests come from."""
    token: str
    call_sid: str


def wire(method: str, path: str, address: str, *, token: str = "", body: Any = None) -> bytes:
    """Return a request as it goes over the wire."""
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"X-Forwarded-For: {address}"]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    if content:
        lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    return "\r\n".join([*lines, "", ""]).encode() + content


# --- users ---------------------------------------------------------------------------------------


async def users_of(server: Running, number: int) -> list[User]:
    """Open so many accounts over HTTP, each with a recording, and log in."""
    connections = await connected(*where(server), 8)
    addresses = {fresh_email(): fresh_address() for _ in range(number)}

    async def each(step: Callable[[Connection, str], Any]) -> list[Any]:
        waiting = iter(addresses)

        async def take(connection: Connection) -> dict[str, Any]:
            return {email: await step(connection, email) for email in waiting}

        done: dict[str, Any] = {}
        for some in await asyncio.gather(*map(take, connections)):
            done |= some
        return [done[email] for email in addresses]

    async def post(connection: Connection, path: str, **body: str) -> Any:
        request = wire("POST", f"/api/auth/{path}", addresses[body["email"]], body=body)
        status, answer = await connection.ask(request)
        if status not in {200, 202}:
            raise RuntimeError(f"{path} was answered {status}: {answer!r}")
        return json.loads(answer)

    await each(lambda connection, email: post(connection, "register", email=email, password=PASSWORD))
    mails = (file.read_text() for file in (server.var / "outbox").glob("*.eml"))
    codes = dict(match.groups() for mail in mails if (match := CODE.search(mail)))

    async def enter(connection: Connection, email: str) -> User:
        await post(connection, "verify-email", email=email, code=codes[email])
        token = (await post(connection, "login", email=email, password=PASSWORD))["token"]
        sid, address = fresh_sid(), addresses[email]
        status, answer = await connection.ask(wire("GET", f"/api/recordings/{sid}", address, token=token))
        if status != 200:
            raise RuntimeError(f"a recording was answered {status}: {answer!r}")
        return User(email, address, token, sid)

    users = await each(enter)
    for connection in connections:
        connection.close()
    return users


def asks_of(users: Sequence[User]) -> Callable[[], Ask]:
    """Return what says what to ask next; the users take turns."""
    chance = random.Random(7)
    kinds, weights = list(MIX), list(MIX.values())
    turns, to_log_in = itertools.cycle(users), itertools.cycle(users)

    def next_ask() -> Ask:
        user = next(turns)
        kind = chance.choices(kinds, weights)[0]
        match kind:
            case "login":
                user = next(to_log_in)
                account = {"email": user.email, "password": PASSWORD}
                return Ask(kind, wire("POST", "/api/auth/login", user.address, body=account))
            case "health":
                return Ask(kind, wire("GET", "/health/ready", user.address))
            case _:
                path = PATHS[kind].format(user.call_sid)
                return Ask(kind, wire("GET", path, user.address, token=user.token))

    return next_ask


# --- load ----------------------------------------------------------------------------------------


class Measured(NamedTuple):
    """One run at a constant rate."""

    app: str
    capacity: float
    rate: float
    answers: list[Answer]
    held: int
    """Connections that were open all the time."""
    busy: float
    """The client's share of one core."""


async def load(server: Running, options: argparse.Namespace) -> Measured:
    """Find out what a backend can do, and then ask for half of it."""
    users = await users_of(server, options.users)
    asks = asks_of(users)
    capacity = await capacity_of(server, asks, options.warm_up)
    affordable = (len(users) * ALLOWANCE - capacity * options.warm_up) / options.seconds
    rate = min(options.rate or SHARE_OF_CAPACITY * capacity, affordable)
    connections = await connected(*where(server), options.connections)
    used = process_time()
    begin = monotonic()
    answers = await at_rate(connections, asks, rate, options.seconds)
    busy = (process_time() - used) / (monotonic() - begin)
    held = sum(each.made == 1 and each.is_open for each in connections)
    for connection in connections:
        connection.close()
    return Measured(server.app, capacity, rate, answers, held, busy)


async def capacity_of(server: Running, next_ask: Callable[[], Ask], seconds: float) -> float:
    """Return how many requests of the mix a backend answers in a second when it always has some to do."""
    connections = await connected(*where(server), CALLERS)
    answers = await as_fast_as_possible(connections, next_ask, seconds)
    for connection in connections:
        connection.close()
    if errors := errors_of(answers):
        raise RuntimeError(f"while the capacity was measured: {dict(errors)}")
    return len(answers) / seconds


def percentile(sorted_latencies: Sequence[float], share: float) -> float:
    """Return the latency that so large a share did not exceed (nearest rank)."""
    return sorted_latencies[min(len(sorted_latencies) - 1, int(share * len(sorted_latencies)))]


def print_load(measured: Measured, connections: int) -> None:
    """Print a row for the whole, and one for each kind of request."""
    by_kind: dict[str, list[Answer]] = {"all": measured.answers}
    for answer in measured.answers:
        by_kind.setdefault(answer.kind, []).append(answer)
    for kind in ("all", *(kind for kind in MIX if kind in by_kind)):
        latencies = sorted(each.latency for each in by_kind[kind])
        shown = (f"{percentile(latencies, share) * 1000:.1f} ms" for share in (0.5, 0.99, 0.999, 1.0))
        errors = len([each for each in by_kind[kind] if not each.outcome.startswith("2")])
        print(f"| {measured.app} | {kind} | {len(latencies)} | {' | '.join(shown)} | {errors} |", flush=True)
    late = sorted(each.late for each in measured.answers)
    errors = ", ".join(f"{kind} {times}" for kind, times in errors_of(measured.answers).items()) or "none"
    print(
        f"\n{measured.app}: capacity {measured.capacity:.0f}/s, asked {measured.rate:.0f}/s; "
        f"{measured.held} of {connections} connections held throughout; errors: {errors}; "
        f"client {measured.busy:.0%} of a core, late by {percentile(late, 0.99) * 1000:.1f} ms at p99\n",
        flush=True,
    )


# --- memory --------------------------------------------------------------------------------------


def resident(process: int) -> float:
    """Return how many MiB a backend's processes hold in memory; not counting the fake provider beside it."""
    family, total = [process], 0.0
    for pid in family:
        folder = Path("/proc", str(pid))
        try:
            if b".fakes." in (folder / "cmdline").read_bytes():
                continue
            family += map(int, (folder / "task" / str(pid) / "children").read_text().split())
            total += int((folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
        except FileNotFoundError:  # it has just ended
            continue
    return total


async def memory(server: Running, options: argparse.Namespace) -> tuple[Growth, Counter[str]]:
    """Ask at a constant rate; return how memory grew, and what went wrong."""
    users = await users_of(server, options.users)
    connections = await connected(*where(server), options.connections)
    samples: list[tuple[float, float]] = []

    async def watch() -> None:
        await asyncio.sleep(options.warm_up)
        begin = monotonic()
        while True:
            samples.append((monotonic() - begin, resident(server.process.pid)))
            await asyncio.sleep(options.seconds / 600)

    watching = asyncio.create_task(watch())
    answers = await at_rate(connections, asks_of(users), options.rate, options.warm_up + options.seconds)
    watching.cancel()
    for connection in connections:
        connection.close()
    return growth(samples), errors_of(answers)


def print_memory(app: str, grown: Growth, errors: Counter[str], options: argparse.Namespace) -> None:
    """Print a row."""
    print(
        f"| {app} | {options.rate * options.seconds:,.0f} | {grown.first:.1f} MiB | {grown.last:.1f} MiB "
        f"| {grown.slope:+.2f} MiB/h | {grown.low:+.2f} to {grown.high:+.2f} | {errors.total()} |",
        flush=True,
    )


# --- the program ---------------------------------------------------------------------------------


def where(server: Running) -> tuple[str, int]:
    """Return the host and port of a backend."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    return host, int(port)


@contextmanager
def backend(app: str, options: argparse.Namespace) -> Iterator[Running]:
    """Run a backend for the length of the block."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Running(Path(folder, "var"), app, options.workers, real=options.real, **SETTINGS) as server,
    ):
        yield server


def options_of(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("--app", choices=["asgi", "wsgi"], help="one shell only")
    parser.add_argument("--workers", type=int, default=1, help="processes (default: %(default)s)")
    parser.add_argument("--real", action="store_true", help="on PostgreSQL, Redis, an S3 and a mail server")
    parser.add_argument("--memory", action="store_true", help="watch the memory instead of the latency")
    parser.add_argument("--connections", type=int, help="held open (default: 1000; with --memory 200)")
    parser.add_argument("--seconds", type=float, help="how long (default: 60; with --memory 600)")
    parser.add_argument("--rate", type=float, help="a second (default: half the capacity; with --memory 50)")
    parser.add_argument("--warm-up", type=float, help="seconds before (default: 5, for the capacity; 960)")
    parser.add_argument("--users", type=int, default=500, help="who take turns (default: %(default)s)")
    options = parser.parse_args(arguments)
    options.seconds = options.seconds or (600.0 if options.memory else 60.0)
    options.rate = options.rate or (50.0 if options.memory else 0.0)
    options.connections = options.connections or (200 if options.memory else 1000)
    options.warm_up = options.warm_up or (FILLING if options.memory else 5.0)
    if options.rate * min(options.seconds, WINDOW) > options.users * ALLOWANCE:
        parser.error(f"{options.users} users may ask {ALLOWANCE} times each: give more --users")
    return options


def main(arguments: Sequence[str]) -> None:
    """Measure, and print."""
    options = options_of(arguments)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    print(f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} cores\n")
    if options.memory:
        print("| shell | requests | at first | at last | slope | 95 % interval, MiB/h | errors |")
        print("|---|--:|--:|--:|--:|--:|--:|")
    else:
        print("| shell | requests | number | p50 | p99 | p99.9 | longest | errors |")
        print("|---|---|--:|--:|--:|--:|--:|--:|")
    for app in [options.app] if options.app else ["asgi", "wsgi"]:
        with backend(app, options) as server:
            if options.memory:
                print_memory(app, *asyncio.run(memory(server, options)), options)
            else:
                print_load(asyncio.run(load(server, options)), options.connections)


if __name__ == "__main__":
    main(sys.argv[1:])
