"""Tickets: what opens a WebSocket or a download, and what does not (ASVS 4.4.3, 4.4.4)."""

from __future__ import annotations

import base64
import dataclasses
import json
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import OctKey

from examples.backend.domain.tickets import LIFETIME, Purpose, Ticket, Tickets
from examples.backend.kit import drive
from examples.backend.ports.database import EVERY, Database, migrate
from examples.backend.ports.tickets import SKEW, DatabaseUsedTickets, JoseSeal
from examples.backend.ports.workers import InThisThread
from resilience import ServiceError
from resilience.testing import FakeClock

SECRET = bytes(range(32))
ADA = SimpleNamespace(
    user=SimpleNamespace(id="ada", tenant_id="tenant a"), session=SimpleNamespace(session_id="session a")
)


class Used:
    def __init__(self):
        self.ids = set()

    async def use(self, ticket_id, until):
        new = ticket_id not in self.ids
        self.ids.add(ticket_id)
        return new


class Sessions:
    def __init__(self):
        self.over = set()

    async def ended(self, session_ids):
        return [session_id for session_id in session_ids if session_id in self.over]


class Office:
    def __init__(self):
        self.clock, self.sessions, self.used = FakeClock(), Sessions(), Used()
        self.seal = JoseSeal(SECRET, self.clock)
        self.tickets = Tickets(seal=self.seal, used=self.used, sessions=self.sessions, clock=self.clock)

    def redeem(self, text, purpose=Purpose.LIVE, thing=""):
        return drive(self.tickets.redeem(text, purpose, thing))

    def refused(self, text, purpose=Purpose.LIVE, thing=""):
        with pytest.raises(ServiceError) as refused:
            self.redeem(text, purpose, thing)
        assert refused.value.status == 401
        return refused.value.code


@pytest.fixture
def office():
    return Office()


def test_asvs_4_4_3_a_ticket_says_whose_it_is(office):
    ticket = office.redeem(office.tickets.issue(ADA, Purpose.LIVE))

    assert (ticket.user_id, ticket.tenant_id, ticket.session_id) == ("ada", "tenant a", "session a")


def test_asvs_4_4_4_a_ticket_ends_with_its_session(office):
    text = office.tickets.issue(ADA, Purpose.LIVE)
    office.sessions.over.add("session a")

    assert office.refused(text) == "INVALID_TOKEN"
    assert office.used.ids == set()


def test_one_that_opens_a_socket_works_once(office):
    text = office.tickets.issue(ADA, Purpose.LIVE)
    office.redeem(text)

    assert office.refused(text) == "INVALID_TOKEN"
    office.redeem(office.tickets.issue(ADA, Purpose.LIVE))


def test_one_for_a_download_works_until_it_ends(office):
    text = office.tickets.issue(ADA, Purpose.DOWNLOAD, "call 1")
    for _ in range(2):
        assert office.redeem(text, Purpose.DOWNLOAD, "call 1").thing == "call 1"


def test_a_ticket_opens_nothing_else(office):
    download = office.tickets.issue(ADA, Purpose.DOWNLOAD, "call 1")
    live = office.tickets.issue(ADA, Purpose.LIVE)

    assert office.refused(download, Purpose.DOWNLOAD, "call 2") == "INVALID_TOKEN"
    assert office.refused(download, Purpose.LIVE, "call 1") == "INVALID_TOKEN"
    assert office.refused(live, Purpose.DOWNLOAD, "") == "INVALID_TOKEN"


def test_a_ticket_ends_after_a_minute_and_the_difference_of_clocks(office):
    text = office.tickets.issue(ADA, Purpose.DOWNLOAD, "call 1")
    office.clock.advance(LIFETIME + SKEW - 1)
    office.redeem(text, Purpose.DOWNLOAD, "call 1")
    office.clock.advance(2)

    assert office.refused(text, Purpose.DOWNLOAD, "call 1") == "TOKEN_EXPIRED"


def test_another_process_may_be_a_little_behind_and_not_much(office):
    text = office.tickets.issue(ADA, Purpose.DOWNLOAD, "call 1")
    office.clock.step_wall(-SKEW)
    office.redeem(text, Purpose.DOWNLOAD, "call 1")
    office.clock.step_wall(-2)

    assert office.refused(text, Purpose.DOWNLOAD, "call 1") == "INVALID_TOKEN"


# --- what is no ticket -----------------------------------------------------------------------------


def part(content):
    return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()


def claims(office, **changed):
    text = office.tickets.issue(ADA, Purpose.LIVE)
    body = text.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))) | changed


@pytest.mark.parametrize("algorithm", ["none", "None", "HS512", "RS256", "HS256,none"])
def test_the_algorithm_is_ours_to_say(office, algorithm):
    forged = f"{part({'alg': algorithm, 'typ': 'JWT'})}.{part(claims(office))}."

    assert office.refused(forged) == "INVALID_TOKEN"
    assert office.refused(forged + office.tickets.issue(ADA, Purpose.LIVE).split(".")[2]) == "INVALID_TOKEN"


@pytest.mark.parametrize("key", [b"x" * 32, SECRET], ids=["any other", "not the one for this purpose"])
def test_another_key_signs_no_ticket(office, key):
    key = OctKey.import_key(key)

    assert office.refused(jwt.encode({"alg": "HS256"}, claims(office), key)) == "INVALID_TOKEN"


def test_a_signature_of_another_kind_with_our_own_key_is_none(office):
    key = office.seal._keys[Purpose.LIVE]
    text = jwt.encode({"alg": "HS512"}, claims(office), key, algorithms=["HS512"])

    assert office.refused(text) == "INVALID_TOKEN"


@pytest.mark.parametrize("missing", ["exp", "iat", "aud", "jti", "sub", "tenant", "session", "thing"])
def test_whatever_we_have_signed_without_the_rest_is_no_ticket(office, missing):
    known = claims(office)
    del known[missing]
    text = jwt.encode({"alg": "HS256"}, known, office.seal._keys[Purpose.LIVE])

    assert office.refused(text) == "INVALID_TOKEN"


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "a.b.c",
        "é",
        "x" * 5000,
        "." * 1000,
        "\0",
        f"{part({'alg': 'HS256'})}..",
        f"{part([])}.{part({})}.AA",
        base64.urlsafe_b64encode(b"[" * 700).decode(),
        f"{base64.urlsafe_b64encode(b'[' * 600).decode()}.AA.AA",
    ],
)
def test_what_is_no_ticket_is_refused_as_such(office, text):
    assert office.refused(text) == "INVALID_TOKEN"


@given(
    st.text(max_size=60) | st.lists(st.text("AQab_-=.", max_size=30), min_size=3, max_size=3).map(".".join)
)
def test_whatever_is_sent_is_refused_and_breaks_nothing(text):
    assert Office().refused(text) == "INVALID_TOKEN"


@given(place=st.integers(0, 10_000), bit=st.integers(0, 5))
def test_no_character_of_a_ticket_may_be_changed(place, bit):
    office = Office()
    text = office.tickets.issue(ADA, Purpose.LIVE)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    place %= len(text)
    if text[place] == ".":
        changed = text[:place] + text[place + 1 :]
    else:
        other = alphabet[alphabet.index(text[place]) ^ (1 << bit)]
        changed = text[:place] + other + text[place + 1 :]
    if place == len(text) - 1 and bit < 2:  # 43 characters have two bits more than 256, which say nothing
        assert office.redeem(changed) == office.seal.open(text, Purpose.LIVE)
    else:
        assert office.refused(changed) == "INVALID_TOKEN"


# --- the table of used ones ------------------------------------------------------------------------


@pytest.fixture
def database(tmp_path):
    url = f"sqlite:///{tmp_path / 'data.db'}"
    migrate(url)
    database = Database(url, InThisThread("The database", threads=4, queue=10))
    yield database
    database.close()


def test_a_ticket_is_used_once_whatever_the_process(database):
    here, there = DatabaseUsedTickets(database), DatabaseUsedTickets(database)

    assert drive(here.use("t1", 1000.0)) is True
    assert drive(there.use("t1", 1000.0)) is False
    assert drive(there.use("t2", 1000.0)) is True


def test_used_tickets_are_forgotten_when_nobody_would_take_them_any_more(database):
    used = DatabaseUsedTickets(database)
    drive(used.use("t1", 1000.0))
    drive(used.forget(1000.0 + 2 * SKEW))
    assert drive(used.use("t1", 1000.0)) is False
    drive(used.forget(1000.1 + 2 * SKEW))

    assert drive(used.use("t1", 1000.0)) is True


def test_a_ticket_is_what_was_sealed(office):
    ticket = Ticket(
        id="x", purpose=Purpose.DOWNLOAD, thing="é", user_id="u", tenant_id=EVERY, session_id="s",
        issued_at=float(int(office.clock.wall())), expires_at=float(int(office.clock.wall()) + 60),
    )  # fmt: skip

    assert dataclasses.replace(office.seal.open(office.seal.close(ticket), Purpose.DOWNLOAD)) == ticket
