"""Whether the time of a refused login tells who has an account.

    python -m benchmarks.login_times

Four kinds of logins are refused, each round all four, in an order drawn anew: of an unknown user, with a
wrong password, of a disabled user with a wrong and with the right one. Two times are taken of each: that of
the work (the look-up in SQLite, the hashing), and that of the answer, which comes a whole tenth of a second
after the request. For the answers, some requests wait at the same time, as they do in life.

Two kinds are compared by the two-sample Kolmogorov-Smirnov statistic, the largest distance between the shares
of answers that have come by any instant: 0 if the samples are alike, 1 if one instant parts them. Of samples
of one distribution, 1 in 20 pairs is farther apart than `critical`.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import math
import random
import statistics
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import argon2

from examples.backend.domain.accounts import Accounts, Origin, User
from examples.backend.domain.codes import OneTimeCodes
from examples.backend.domain.pace import Pace
from examples.backend.domain.passwords import PasswordRules
from examples.backend.kit import drive
from examples.backend.ports.database import Database, migrate
from examples.backend.ports.known_passwords import CommonPasswords
from examples.backend.ports.passwords import ARGON2, Argon2Passwords
from examples.backend.ports.tenants import DatabaseTenants
from examples.backend.ports.users import DatabaseUsers
from examples.backend.ports.workers import InThisThread
from resilience import ServiceError
from resilience.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Times = dict[str, list[float]]

CHEAP: Final = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
"""Hides nothing: what is not the hashing makes up most of its time."""
RIGHT: Final = "the right password"
KINDS: Final = {
    "unknown": ("nobody@example.com", "a wrong guess"),
    "wrong password": ("ada@example.com", "a wrong guess"),
    "disabled": ("bob@example.com", "a wrong guess"),
    "disabled, right password": ("bob@example.com", RIGHT),
}
AT_THE_SAME_TIME: Final = {ARGON2: 2, CHEAP: 16}
"""Requests; more of those that are hashed as in production than there are cores would measure the queue."""


class Nothing:
    """In place of what is not measured."""

    async def login(self, _email: str, _address: str) -> None:
        """Let a login pass."""


class Logins:
    """Logins that are refused, over a database of their own.

    Args:
        folder: Where that is.
        argon2id: How passwords are hashed.
    """

    def __init__(self, folder: Path, argon2id: argon2.PasswordHasher) -> None:
        url = f"sqlite:///{folder / 'data.db'}"
        migrate(url)
        self._at_the_same_time = AT_THE_SAME_TIME[argon2id]
        self._database = Database(url, InThisThread("The database", threads=64, queue=64), connections=64)
        self._users = DatabaseUsers(self._database)
        self._passwords = Argon2Passwords(InThisThread("Hashing", threads=64, queue=64), argon2id)
        drive(self._fill())

    async def _fill(self) -> None:
        tenants = DatabaseTenants(self._database)
        await tenants.ensure("tenant", "tenant", "tenant", 0.0)
        hash_ = await self._passwords.hash(RIGHT)
        for name in ("ada", "bob"):
            email = f"{name}@example.com"
            user = User(
                id=name, email=email, email_key=email, name="", password_hash=hash_, tenant_id="tenant",
                verified=True,
            )  # fmt: skip
            await self._users.ensure(user, 0.0)
        await tenants.switch("tenant", "bob", 0.0)

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def work(self, rounds: int, chance: random.Random) -> Times:
        """Return the times of the work, without the wait that follows it."""

        async def no_wait(_seconds: float) -> None:
            return

        accounts = self._accounts(Pace(no_wait))
        times: Times = {kind: [] for kind in KINDS}
        for kind in _in_turn(rounds, chance):
            times[kind].append(_refusal(accounts, kind))
        return times

    def answers(self, rounds: int, chance: random.Random) -> Times:
        """Return the times until the answers."""

        async def wait(seconds: float) -> None:
            SYSTEM_CLOCK.sleep(seconds)

        accounts = self._accounts(Pace(wait))
        times: Times = {kind: [] for kind in KINDS}
        with ThreadPoolExecutor(self._at_the_same_time) as threads:
            kinds = list(_in_turn(rounds, chance))
            for kind, seconds in zip(
                kinds, threads.map(lambda kind: _refusal(accounts, kind), kinds), strict=True
            ):
                times[kind].append(seconds)
        return times

    def _accounts(self, pace: Pace) -> Accounts:
        nothing: Any = Nothing()
        return Accounts(
            users=self._users,
            passwords=self._passwords,
            rules=PasswordRules(CommonPasswords()),
            sessions=nothing,
            codes=OneTimeCodes(b"k" * 32),
            mail=nothing,
            limits=nothing,
            pace=pace,
        )


class Distance(NamedTuple):
    """How far two kinds are apart."""

    kinds: tuple[str, str]
    statistic: float
    critical: float


def distances(times: Times) -> list[Distance]:
    """Return how far each two kinds are apart."""
    return [
        Distance((one, other), kolmogorov_smirnov(times[one], times[other]), critical(len(times[one])))
        for one, other in itertools.combinations(times, 2)
    ]


def kolmogorov_smirnov(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the largest distance between the two shares of what is not above any value.

    Example:
        >>> kolmogorov_smirnov([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.5, 4.5])
        0.25
    """
    steps = sorted([(value, 1 / len(one)) for value in one] + [(value, -1 / len(other)) for value in other])
    shares = itertools.accumulate(step for _, step in steps)
    last_of_its_value = [
        share
        for (value, _), (following, _), share in zip(
            steps, [*steps[1:], (math.inf, 0.0)], shares, strict=True
        )
        if value != following
    ]
    return round(max(map(abs, last_of_its_value)), 6)


def critical(samples: int) -> float:
    """Return what 1 in 20 pairs of such samples of one distribution exceed (Smirnov, 1948)."""
    return 1.358 * math.sqrt(2 / samples)


def _in_turn(rounds: int, chance: random.Random) -> Iterator[str]:
    for _ in range(rounds):
        yield from chance.sample(list(KINDS), len(KINDS))


def _refusal(accounts: Accounts, kind: str) -> float:
    begun_at = perf_counter()
    try:
        drive(accounts.login(*KINDS[kind], Origin("192.0.2.1"), None))
    except ServiceError:
        return perf_counter() - begun_at
    raise AssertionError(f"{kind} was let in")


def measured(rounds: int, argon2id: argon2.PasswordHasher, what: str, chance: random.Random) -> Times:
    """Return the times of so many logins of each kind; `what` is a method of `Logins`."""
    with tempfile.TemporaryDirectory() as folder:
        logins = Logins(Path(folder), argon2id)
        try:
            times: Times = getattr(logins, what)(rounds, chance)
        finally:
            logins.close()
        return times


def row(title: str, times: Times) -> str:
    """Return a row of the table."""
    medians = [statistics.median(samples) * 1e3 for samples in times.values()]
    worst = max(distances(times), key=lambda distance: distance.statistic)
    samples = len(times["unknown"])
    cells = [
        title,
        f"{samples:,}",
        f"{min(medians):.3f} to {max(medians):.3f} ms",
        f"{worst.statistic:.4f}",
        f"{worst.critical:.4f}",
        " / ".join(worst.kinds),
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.login_times")
    parser.add_argument("--samples", type=int, default=10_000, help="of each kind (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    chance = random.Random(options.seed)
    rows = {
        "the work, hashed as in production": (options.samples // 10, ARGON2, "work"),
        "the work, hardly hashed": (options.samples, CHEAP, "work"),
        "the answer, hashed as in production": (options.samples // 10, ARGON2, "answers"),
        "the answer, hardly hashed": (options.samples, CHEAP, "answers"),
    }
    print("| what | samples of each | medians | largest distance | critical | between |")
    print("|---|--:|--:|--:|--:|---|")
    for title, (rounds, argon2id, what) in rows.items():
        print(row(title, measured(rounds, argon2id, what, chance)), flush=True)


if __name__ == "__main__":
    main()
