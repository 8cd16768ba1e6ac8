"""Contention: clients that all want to change one row at once, and how they stay out of each other's way.

The model is that of Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015) and of the
simulator that he published with it. A client reads the version of a row and writes it back by optimistic
concurrency; where another was faster it waits for its backoff, and begins again. One message takes
|N(10, 2)| ms. Clients begin together and change the row once each. A delay's number counts from 1, so the
first ceiling is 2 · 5 ms.

Here it is run twice, with one seed: once with the delays of `resilience._core.backoff`, and once with the
formulas as they were published. What differs between the two is the schedule alone. They differ by design in
one place: the decorrelated delay is drawn inside the cap here, and capped after it is drawn there.
"""

from __future__ import annotations

from functools import partial
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Final, NamedTuple

from experiments import at_most, compared, within
from resilience._core.backoff import Backoff
from resilience.simulation.charts import Line, Panel, svg

if TYPE_CHECKING:
    from collections.abc import Callable

    from experiments import Mark, Progress

    Delays = Callable[[int], float]
    """One client's delays: takes the number of the failure, from 1, and returns seconds."""

    Schedule = Callable[[Random], Delays]
    """Begins the delays of one client."""

TITLE: Final = "Contention with five jitters"

MISSED: Final = (
    "decorrelated, 200 clients: until all are done",
    "decorrelated: greatest difference from published",
)
"""Marks that the long form is known to miss: the cap is inside the draw here, by design."""

BASE: Final = 0.005
"""Seconds."""

CAP: Final = 2.0
"""Seconds."""

JITTERS: Final = ("no backoff", "none", "equal", "full", "decorrelated")
"""By the names of `Backoff`; "none" is exponential backoff without jitter, "Exponential" of the article."""


SHARE: Final = 0.05
"""By how much of the published figure ours may differ."""

SAID: Final = 100
"""Clients, of which the article says that full jitter more than halves their calls."""


# --- schedules -----------------------------------------------------------------------------------


def ours(jitter: str, random: Random) -> Delays:
    """Begin the delays of the library."""
    if jitter == "no backoff":
        return lambda _: 0.0
    backoff = Backoff(BASE, CAP, 2.0, jitter)
    previous: float | None = None

    def delay(failure: int) -> float:
        nonlocal previous
        previous = backoff.delay(failure + 1, previous, random.random)
        return previous

    return delay


def published(jitter: str, random: Random) -> Delays:
    """Begin the delays of the article."""
    slept = BASE

    def ceiling(failure: int) -> float:
        return float(min(CAP, BASE * 2.0**failure))

    def decorrelated(_: int) -> float:
        nonlocal slept
        slept = min(CAP, random.uniform(BASE, 3 * slept))
        return slept

    formulas: dict[str, Delays] = {
        "no backoff": lambda _: 0.0,
        "none": ceiling,
        "equal": lambda failure: ceiling(failure) / 2 + random.uniform(0, ceiling(failure) / 2),
        "full": lambda failure: random.uniform(0, ceiling(failure)),
        "decorrelated": decorrelated,
    }
    return formulas[jitter]


# --- the model -----------------------------------------------------------------------------------


class Contention(NamedTuple):
    """What it took until all clients had changed the row; means over many runs."""

    seconds: float
    """Until the last client knows that it has."""
    calls: float
    """Writes, of all clients."""


def contend(clients: int, schedule: Schedule, random: Random) -> Contention:
    """Let `clients` change one row once each, and return what it took."""
    order = count()  # of messages that arrive at one instant
    version = calls = 0
    seconds = 0.0
    delays = [schedule(random) for _ in range(clients)]
    failures = [0] * clients
    arrivals: list[tuple[float, int, int, int | None]] = []
    """What arrives at the row: when, in which order, whose; a version to be replaced, or None for a read."""

    def travel() -> float:
        return abs(random.gauss(0.010, 0.002))

    for client in range(clients):
        heappush(arrivals, (travel(), next(order), client, None))
    while arrivals:
        now, _, client, seen = heappop(arrivals)
        answered = now + travel()
        if seen is None:
            heappush(arrivals, (answered + travel(), next(order), client, version))
            continue
        calls += 1
        if seen == version:
            version += 1
            seconds = max(seconds, answered)
            continue
        failures[client] += 1
        again = answered + travel() + delays[client](failures[client])
        heappush(arrivals, (again, next(order), client, None))
    return Contention(seconds, calls)


def mean(clients: int, schedule: Schedule, runs: int) -> Contention:
    """Return the means over so many runs, each with a seed of its own."""
    each = [contend(clients, schedule, Random(f"{run} of {clients}")) for run in range(runs)]
    return Contention(sum(one.seconds for one in each) / runs, sum(one.calls for one in each) / runs)


# --- the experiment ------------------------------------------------------------------------------

_measured: dict[tuple[str, int, int, str], Contention] = {}
"""By jitter, clients, runs and whose delays: what the marks and the figure share."""


def _mean(jitter: str, clients: int, runs: int, whose: Callable[[str, Random], Delays]) -> Contention:
    key = (jitter, clients, runs, whose.__name__)
    if key not in _measured:
        _measured[key] = mean(clients, partial(whose, jitter), runs)
    return _measured[key]


def _form(long: bool) -> tuple[tuple[int, ...], int]:
    """Return the numbers of clients, and of runs."""
    return ((10, 20, 50, 100, 150, 200), 100) if long else ((10, 100), 20)


def run(long: bool, progress: Progress) -> list[Mark]:
    """Return what the library's delays come to, beside the published ones, and what is said of those."""
    sizes, runs = _form(long)
    marks: list[Mark] = []
    for number, jitter in enumerate(JITTERS):
        differences: list[float] = []
        for place, clients in enumerate(sizes):
            progress((number + place / len(sizes)) / len(JITTERS))
            mine, theirs = (_mean(jitter, clients, runs, whose) for whose in (ours, published))
            differences += [abs(one / other - 1) for one, other in zip(mine, theirs, strict=True)]
            if clients == sizes[-1]:
                what = f"{jitter}, {clients} clients"
                marks += [
                    within(f"{what}: until all are done", mine.seconds, theirs.seconds, SHARE, " s"),
                    within(f"{what}: calls", mine.calls, theirs.calls, SHARE, digits=0),
                ]
        most = 100 * max(differences)
        marks.append(at_most(f"{jitter}: greatest difference from published", most, 100 * SHARE, " %"))
    without, full, equal, decorrelated = (
        _mean(jitter, SAID, runs, ours) for jitter in ("none", "full", "equal", "decorrelated")
    )
    return [
        *marks,
        at_most(f"{SAID} clients: calls, full jitter to none", full.calls / without.calls, 0.5),
        at_most(f"{SAID} clients: time, full jitter to none", full.seconds / without.seconds, 1.0),
        at_most(f"{SAID} clients: calls, full jitter to equal", full.calls / equal.calls, 1.0),
        at_most(f"{SAID} clients: time, full jitter to equal", full.seconds / equal.seconds, 1.0),
        at_most(f"{SAID} clients: calls, full jitter to decorrelated", full.calls / decorrelated.calls, 1.0),
        compared(f"{SAID} clients: time, full jitter to decorrelated", full.seconds / decorrelated.seconds),
    ]


def figure(long: bool, progress: Progress) -> str:
    """Draw time and calls over the number of clients."""
    progress(0.0)
    sizes, runs = _form(long)
    means = {
        jitter: [(float(clients), _mean(jitter, clients, runs, ours)) for clients in sizes]
        for jitter in JITTERS
    }
    return svg(
        TITLE,
        [
            Panel(
                title="seconds until all clients are done",
                lines=[Line(name, [(x, one.seconds) for x, one in points]) for name, points in means.items()],
            ),
            Panel(
                title="calls of all clients",
                lines=[Line(name, [(x, one.calls) for x, one in points]) for name, points in means.items()],
                x_label="clients",
            ),
        ],
    )
