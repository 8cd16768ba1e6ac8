"""Chaos: recordings, while everything that they depend on fails and the processes that bring them are killed.

    python -m tests.examples.chaos --recordings 500 --app asgi

Several processes of the backend bring recordings from the fake provider to the S3 stand-in. Meanwhile

- the provider and the store fail in every way that they document, by chance and seed: statuses, Retry-After,
  resets, silence, bodies that break off, drag on, end too early or are of another type, expired addresses,
  uploads that fail after they were stored, lockouts, clocks that are said to be wrong;
- webhooks come twice and in disorder, and some not at all;
- a process is killed by SIGKILL every few seconds, and started again at once.

In the end every recording has to be there, once, as the provider has it. The seed fixes which requests fail
and which webhooks are lost; what the processes are at when they are killed depends on the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import os
import random
import re
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx2

from examples.backend.fakes.process import started
from examples.backend.fakes.telephony import recording_of

ROOT = Path(__file__).parent.parent.parent
PROVIDER = [
    "429", "500", "502", "503", "504", "expired", "wrong-type", "wrong-length", "torn", "slow", "reset",
    "hang",
]  # fmt: skip
STORE = [
    "slow-down", "unavailable", "internal-error", "rate", "skew", "lockout", "reset", "hang", "late-error",
    "late-reset",
]  # fmt: skip
BUDGET = 5
"""Retries that a process may make of each dependency before any of its calls has succeeded."""
EARNED = 0.1
"""Retries that a success earns."""
LONGEST = 600.0
"""Seconds after which it is given up."""
KILL_EVERY = 4.0
"""Seconds from one kill to the next, about: a process gets to work, and does not get far."""
RETRY = re.compile(r"retries ([\w-]+): (?:(attempt) \d+ failed, another|(succeeded) with attempt)")
"""How the log tells of a retry, and of a call that it saved. A killed process has told of all its own."""
SETTINGS = {
    "recording_deadline": 2.0,
    "recording_workers": 8,
    "recording_poll": 0.2,
    "reconciliation_interval": 2.0,
    "telephony_timeout": 0.5,
    "telephony_recovery": 0.3,
    "telephony_rate": 100_000,
    "storage_lockout": 1.0,
}
"""As in production but for time, of which there is less."""


@dataclasses.dataclass(kw_only=True)
class Outcome:
    """What came of it."""

    recordings: int
    seconds: float
    lives: int
    """Of processes: how often one was started."""
    killed: int
    states: dict[str, int]
    lost: list[str]
    """Not stored, or not in the store."""
    doubled: list[str]
    """Stored in more than one object, or more than once."""
    wrong: list[str]
    """Stored, but not what the provider has."""
    webhooks: dict[str, int]
    failures: dict[str, dict[str, int]]
    """How many requests went wrong, by dependency and kind."""
    requests: list[int]
    """To the provider, for each recording."""
    uploads: list[int]
    """Likewise to the store."""
    retries: dict[str, tuple[int, int]]
    """How many retries were made, and how many calls they saved, by dependency."""

    def unearned(self, name):
        """Return how many retries were not earned back, and how many the budget allows at most."""
        made, saved = self.retries[name]
        succeeded = sum(self.requests if name == "telephony" else self.uploads)
        return made - saved, BUDGET * self.lives + EARNED * succeeded


class Process:
    """A backend process, at one address through all its lives."""

    def __init__(self, app, port, var, settings):
        self.url = f"http://127.0.0.1:{port}"
        self.lives = 0
        environ = {name: value for name, value in os.environ.items() if not name.startswith("BACKEND_")}
        self._environ = environ | {f"BACKEND_{name.upper()}": str(value) for name, value in settings.items()}
        self._environ |= {"BACKEND_VAR": str(var), "BACKEND_SECRET": "x" * 32}
        self._command = [sys.executable, "-m", "examples.backend", "--app", app, "--port", str(port)]
        self._log = (var.parent / f"{port}.log").open("a")
        self.start()

    def start(self):
        self.lives += 1
        self._process = subprocess.Popen(
            self._command,
            cwd=ROOT,
            env=self._environ,
            stdout=subprocess.DEVNULL,
            stderr=self._log,
            start_new_session=True,  # killed with all that belong to it
        )

    def wait_until_ready(self):
        ends_at = time.monotonic() + 30.0
        while time.monotonic() < ends_at:
            with contextlib.suppress(httpx2.TransportError):
                if httpx2.get(f"{self.url}/health/ready", timeout=5.0).status_code == 200:
                    return
            time.sleep(0.05)
        raise TimeoutError(f"{self.url} does not get ready")

    def kill(self):
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def close(self):
        if self._process.poll() is None:
            self.kill()
        self._log.close()


def run(
    recordings=500,
    *,
    app="asgi",
    processes=2,
    seed=1,
    rate=0.15,
    lost=0.1,
    every=KILL_EVERY,
    most_kills=1000,
    folder=None,
    say=print,
):
    """Bring so many recordings under chaos; return the outcome.

    Args:
        recordings: How many.
        app: Under which shell.
        processes: How many processes bring them.
        seed: What chance depends on.
        rate: Which share of requests goes wrong.
        lost: Which share of calls no webhook tells of.
        every: Seconds between two kills, about.
        most_kills: After how many it is enough.
        folder: Where everything is written.
        say: Is told how it goes.
    """
    chance = random.Random(seed)
    with contextlib.ExitStack() as stack:
        folder = folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        var = folder / "var"
        provider = stack.enter_context(_controlled("telephony"))
        store = stack.enter_context(_controlled("storage"))
        settings = SETTINGS | {
            "telephony_url": provider.base_url,
            "webhook_tenants": "demo",
            "storage_url": store.base_url,
            "storage_key": "demo-key",
            "storage_secret": "demo-secret",
        }
        crew = []
        for port in _free_ports(processes):
            crew.append(Process(app, port, var, settings))
            stack.callback(crew[-1].close)
            crew[-1].wait_until_ready()
        began = time.monotonic()
        _teach_number(crew[0], provider, var)
        provider.post("/_control/faults", json={"rate": rate, "seed": seed, "kinds": PROVIDER})
        store.post("/_control/faults", json={"rate": rate, "seed": seed, "kinds": STORE})
        sids = _place_calls(recordings, crew, provider, lost, seed)
        _kill_until_done(crew, var, recordings + 1, chance, every, most_kills, say)
        outcome = _outcome(sids, crew, provider, store, var)
        outcome.seconds = time.monotonic() - began
        return outcome


@contextlib.contextmanager
def _controlled(fake):
    with started(fake) as address, httpx2.Client(base_url=address, timeout=60.0) as client:
        yield client


def _free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _place_calls(count, crew, provider, lost, seed):
    """Have calls end, some of whose webhooks are lost; return their ids."""
    sids = []
    spread = count / 25.0  # a busy account: 25 calls end in a second
    for number, process in enumerate(crew):
        webhook = {
            "url": f"{process.url}/api/webhooks/demo/telephony",
            "copies": 2,
            "spread": spread,
            "lost": lost,
            "seed": seed + number,
            "form": bool(number % 2),
        }
        share = count // len(crew) + (number < count % len(crew))
        calls = {"count": share, "ready_after": 1.0, "webhook": webhook}
        sids += provider.post("/_control/calls", json=calls).json()["sids"]
    return sids


def _teach_number(process, provider, var):
    """Have one call brought in peace: it shows whose the number is, so that lost calls find their tenant."""
    url = f"{process.url}/api/webhooks/demo/telephony"
    (sid,) = provider.post("/_control/calls", json={"webhook": {"url": url}}).json()["sids"]
    while sid not in _calls(var) or _calls(var)[sid][0] != "stored":
        time.sleep(0.05)


def _kill_until_done(crew, var, count, chance, every, most_kills, say):
    """Kill a process every now and then, until all is stored; then let those that are up come to rest."""
    began = time.monotonic()
    kill_at = began + every
    killed = 0
    while True:
        now = time.monotonic()
        states = [state for state, _ in _calls(var).values()]
        if states.count("stored") >= count:
            return
        if now > began + LONGEST:
            say(f"given up: {states.count('stored')} of {count} are stored")
            return
        if now > kill_at and killed < most_kills:
            killed += 1
            kill_at = now + every * chance.uniform(0.5, 1.5)
            victim = chance.choice(crew)
            victim.kill()
            victim.start()
            say(f"{now - began:5.1f} s: {states.count('stored')} stored, {len(states)} known; killed one")
        time.sleep(0.1)


def _calls(var):
    """Return what has become of the calls: {sid: (state, object key)}."""
    with contextlib.closing(sqlite3.connect(var / "data.db", timeout=10.0)) as db:
        rows = db.execute("SELECT call_sid, state, object_key FROM calls").fetchall()
    return {sid: (state, key) for sid, state, key in rows}


def _outcome(sids, crew, provider, store, var):
    calls = _calls(var)
    objects = store.get("/_control/objects").json()
    of_call = {sid: [key for key in objects if f"/{sid}/" in key] for sid in sids}
    subjects = provider.get("/_control/subjects").json()
    uploads = store.get("/_control/subjects").json()
    states = [calls.get(sid, ("unknown", None))[0] for sid in sids]
    told = RETRY.findall("".join(file.read_text() for file in var.parent.glob("*.log")))
    retries = {}
    for name in ("telephony", "object-store"):
        made = sum(who == name and bool(attempt) for who, attempt, _ in told)
        saved = sum(who == name and bool(succeeded) for who, _, succeeded in told)
        retries[name] = made, saved
    return Outcome(
        recordings=len(sids),
        seconds=0.0,
        lives=sum(process.lives for process in crew),
        killed=sum(process.lives - 1 for process in crew),
        states={state: states.count(state) for state in sorted(set(states))},
        lost=[sid for sid in sids if calls.get(sid, ("", None))[1] not in objects],
        doubled=[sid for sid in sids if len(of_call[sid]) > 1 or _times_stored(sid, var) > 1],
        wrong=[sid for sid in sids for key in of_call[sid] if objects[key] != _true(sid)],
        webhooks=provider.get("/_control/deliveries").json(),
        failures={
            "provider": provider.get("/_control/faults").json(),
            "store": store.get("/_control/faults").json(),
        },
        requests=[sum(subjects.get(sid, {}).values()) for sid in sids],
        uploads=[sum(sum(uploads.get(key, {}).values()) for key in of_call[sid]) for sid in sids],
        retries=retries,
    )


def _times_stored(sid, var):
    """Return how often it was told that the call's recording is stored."""
    with contextlib.closing(sqlite3.connect(var / "data.db", timeout=10.0)) as db:
        told = "SELECT count(*) FROM live_events WHERE body LIKE ? AND body LIKE '%\"stored\"%'"
        return db.execute(told, (f"%{sid}%",)).fetchone()[0]


def _true(sid):
    sound = recording_of(sid)
    return {"size": len(sound), "sha256": hashlib.sha256(sound).hexdigest()}


def table(outcome):
    """Return the outcome in words and figures."""
    failures = {name: sum(kinds.values()) for name, kinds in outcome.failures.items()}
    asked = sorted(outcome.requests)
    rows = [
        ("recordings", outcome.recordings),
        ("lost, doubled, different", f"{len(outcome.lost)}, {len(outcome.doubled)}, {len(outcome.wrong)}"),
        ("seconds", f"{outcome.seconds:.0f}"),
        ("processes killed", outcome.killed),
        ("requests that went wrong at the provider", failures["provider"]),
        ("requests that went wrong at the store", failures["store"]),
        ("calls that no webhook told of", outcome.webhooks["lost"]),
        ("deliveries accepted", outcome.webhooks["accepted"]),
        ("provider requests a recording: mean, median, most",
         f"{statistics.mean(asked):.2f}, {statistics.median(asked):.0f}, {asked[-1]}"),
        ("store requests a recording: mean, most",
         f"{statistics.mean(outcome.uploads):.2f}, {max(outcome.uploads)}"),
    ]  # fmt: skip
    for name in outcome.retries:
        unearned, allowed = outcome.unearned(name)
        rows.append((f"retries of {name}: made, not earned back, allowed",
                     f"{outcome.retries[name][0]}, {unearned}, {allowed:.0f}"))  # fmt: skip
    return "\n".join(f"| {name} | {figure} |" for name, figure in rows)


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.examples.chaos")
    parser.add_argument("--recordings", type=int, default=500)
    parser.add_argument("--app", choices=["asgi", "wsgi"], default="asgi")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    outcome = run(options.recordings, app=options.app, processes=options.processes, seed=options.seed)
    print(table(outcome))
    print(outcome.states, outcome.webhooks, outcome.failures, sep="\n")
    sys.exit(bool(outcome.lost or outcome.doubled or outcome.wrong))


if __name__ == "__main__":
    main()
