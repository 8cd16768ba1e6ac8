"""Accounts and tenants without HTTP: the use cases over a real database, with a clock that stands still."""

from __future__ import annotations

import re
import secrets
from contextlib import contextmanager
from functools import partial

import argon2
import psycopg
from sqlalchemy import make_url

from examples.backend.domain.accounts import Accounts, Origin
from examples.backend.domain.codes import OneTimeCodes, Purpose
from examples.backend.domain.limits import Limits
from examples.backend.domain.pace import Pace
from examples.backend.domain.passwords import PasswordChanges, PasswordRules
from examples.backend.domain.tenants import Administration, SigningSecrets
from examples.backend.kit import BlockingKit, drive
from examples.backend.ports.database import Database, migrate
from examples.backend.ports.known_passwords import CommonPasswords
from examples.backend.ports.passwords import Argon2Passwords
from examples.backend.ports.sessions import ClosingSessions
from examples.backend.ports.tenants import DatabaseTenants
from examples.backend.ports.users import DatabaseUsers
from examples.backend.ports.workers import InThisThread
from resilience import service_unavailable_error
from resilience.janitor.sockets import SocketRegistry
from resilience.stores.memory import MemoryStore
from resilience.testing import FakeClock

ADA, EVE = "ada@example.com", "eve@example.com"
PASSWORD = "correct horse battery"
HOME = "192.0.2.1"
CHEAP = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


class CountingPasswords(Argon2Passwords):
    """Counts how often something is hashed."""

    hashed = 0

    async def hash(self, password):
        self.hashed += 1
        return await super().hash(password)

    async def verify(self, password, hash_):
        self.hashed += 1
        return await super().verify(password, hash_)


class Letterbox:
    """Keeps the letters that are sent."""

    takes = 0.0
    """Seconds that sending one takes."""

    def __init__(self, clock):
        self.letters = []
        self._clock = clock

    async def send(self, letter):
        self._clock.advance(self.takes)
        self.letters.append(letter)

    def to(self, email):
        return [letter for letter in self.letters if letter.to == email]

    def code(self, email):
        """Return the last code that was sent to somebody."""
        found = (re.search(r"^Your code is (\d{6})$", one.text, re.MULTILINE) for one in self.to(email))
        return [match[1] for match in found if match][-1]

    def invitation(self, email):
        """Return the last invitation that was sent to somebody."""
        return re.search(r"^    (\S{43})$", self.to(email)[-1].text, re.MULTILINE)[1]


class House:
    """Everything that accounts need.

    Args:
        database: Where the users are.
        folder: Where the sessions are.
        breached: Passwords that have leaked.
    """

    def __init__(self, database, folder, breached=None):
        kit = BlockingKit()
        self.clock = clock = FakeClock()
        self.database = database
        self.letters = Letterbox(clock)
        self.answered_at = []
        self.users = DatabaseUsers(database)
        self.tenants = DatabaseTenants(database)
        self.passwords = CountingPasswords(InThisThread("Hashing", threads=8, queue=50), CHEAP)
        self.sockets = SocketRegistry()
        self.store = kit.sqlite_sessions(folder / "sessions.db", clock=clock, idle_timeout=100.0)
        self.sessions = ClosingSessions(self.store, kit.janitor(self.store, sockets=self.sockets))
        counts = MemoryStore(clock=clock)
        self.limits = Limits(partial(kit.limiter, store=counts), kit.acquire_all, lambda _: None)
        common = {
            "users": self.users,
            "passwords": self.passwords,
            "rules": PasswordRules(CommonPasswords(), breached),
            "sessions": self.sessions,
            "codes": OneTimeCodes(b"k" * 32),
            "mail": self.letters,
            "limits": self.limits,
            "pace": Pace(self._sleep, clock),
            "clock": clock,
        }
        self.accounts = Accounts(**common)
        self.changes = PasswordChanges(**common)
        self.administration = Administration(
            tenants=self.tenants,
            sessions=self.sessions,
            signing=SigningSecrets(b"s" * 32),
            mail=self.letters,
            limits=self.limits,
            clock=clock,
        )

    async def _sleep(self, seconds):
        self.clock.advance(seconds)
        self.answered_at.append(round(self.clock.now(), 9))

    def register(self, email=ADA, password=PASSWORD, invitation=None, address=None):
        return drive(self.accounts.register(email, password, "", address or secrets.token_hex(4), invitation))

    def verify(self, email=ADA, digits=None, registration=None, address=HOME):
        digits = digits or self.letters.code(email)
        drive(self.accounts.verify_email(email, digits, registration, address))

    def login(self, email=ADA, password=PASSWORD, old_token=None, address=HOME):
        return drive(self.accounts.login(email, password, Origin(address, "a browser"), old_token))

    def member(self, token):
        return drive(self.accounts.member_of(token))

    def joined(self, email=ADA, administrator=None, role="member"):
        """Open an account, in the tenant of an administrator if one is given, and log in."""
        if administrator is None:
            self.register(email)
            self.verify(email)
        else:
            drive(self.administration.invite(administrator, email, role))
            self.register(email, invitation=self.letters.invitation(email))
        return self.member(self.login(email))

    def reset_code(self, email=ADA, address=HOME):
        drive(self.accounts.send_code(Purpose.RESET_PASSWORD, email, address))
        return self.letters.code(email)


async def unavailable(*_args):
    """Fail, as sessions do whose store is away."""
    raise service_unavailable_error("The store of sessions")


def wrong(digits):
    """Return a code that is not this one."""
    return f"{(int(digits) + 1) % 1_000_000:06}"


@contextmanager
def opened(url):
    """Yield the database at a URL, with its tables."""
    migrate(url)
    database = Database(url, InThisThread("The database", threads=8, queue=50))
    yield database
    database.close()


@contextmanager
def opened_on(server):
    """Yield a new database on a PostgreSQL server, as a role that row-level security holds for."""
    name, role = f"accounts_{secrets.token_hex(6)}", f"app_{secrets.token_hex(6)}"
    with psycopg.connect(server.url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'app'")
    url = make_url(server.url).set(database=name)
    migrate(url.render_as_string(hide_password=False))
    with psycopg.connect(server.url, dbname=name, autocommit=True) as admin:
        admin.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}")
        admin.execute(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}")
    application = url.set(username=role, password="app").render_as_string(hide_password=False)
    database = Database(application, InThisThread("The database", threads=8, queue=50))
    yield database
    database.close()
    with psycopg.connect(server.url, autocommit=True) as admin:
        admin.execute(f"DROP DATABASE {name}")
        admin.execute(f"DROP ROLE {role}")
