"""Accounts: who gets in, who does not, and what either learns; on both databases."""

from __future__ import annotations

import logging
import queue
import re

import argon2
import pytest
from sqlalchemy import event

from examples.backend.domain.accounts import DEMO, Origin
from examples.backend.domain.codes import LIFETIME, MAX_ATTEMPTS, Purpose
from examples.backend.domain.letters import Letter
from examples.backend.domain.pace import STEP
from examples.backend.kit import drive
from resilience import RateLimitedError, ServiceError
from resilience.janitor.sessions import session_id_of
from tests.examples.accounts_house import ADA, EVE, HOME, PASSWORD, House, opened, opened_on, wrong

NOBODY = "nobody@example.com"


@pytest.fixture(params=["sqlite", "postgres"])
def house(request, tmp_path):
    if request.param == "postgres":
        with opened_on(request.getfixturevalue("postgres_server")) as database:
            yield House(database, tmp_path)
    else:
        with opened(f"sqlite:///{tmp_path / 'data.db'}") as database:
            yield House(database, tmp_path)


@pytest.fixture
def local(tmp_path):
    """A house on SQLite, for what does not depend on the database."""
    with opened(f"sqlite:///{tmp_path / 'data.db'}") as database:
        yield House(database, tmp_path)


def refused(attempt, *args, **kwargs):
    """Return the error that an attempt ends with."""
    with pytest.raises(ServiceError) as caught:
        attempt(*args, **kwargs)
    return caught.value


def told(error):
    """Return everything that an answer says."""
    return error.status, error.code, error.message, error.fields, error.retry_after


@pytest.fixture
def statements(local):
    """What the database was told."""
    statements = []
    event.listen(
        local.database.engine,
        "before_cursor_execute",
        lambda _connection, _cursor, statement, *_: statements.append(statement),
    )
    return statements


# --- registering and verifying ---------------------------------------------------------------------


def test_whoever_registers_opens_a_tenant_and_is_its_administrator(house):
    member = house.joined(ADA)
    assert (member.user.role, member.user.email, member.user.verified) == ("administrator", ADA, True)
    assert drive(house.administration.name(member)) == ADA
    assert house.joined(EVE).user.tenant_id != member.user.tenant_id


def test_before_the_address_is_proved_only_who_knows_the_password_is_told_so(house):
    house.register()
    assert told(refused(house.login, password="a wrong guess")) == told(refused(house.login, NOBODY))
    assert refused(house.login).status == 403
    house.verify()
    assert house.login()


def test_a_known_address_is_told_by_mail_and_by_nothing_else(house):
    house.joined(ADA)
    registration = house.register(ADA, "somebody else's password")
    assert re.fullmatch("[0-9a-f]{32}", registration)
    assert house.letters.to(ADA)[-1].subject == "You have an account already"
    assert refused(house.login, password="somebody else's password").status == 401
    assert house.login()


def test_registering_differs_in_nothing_that_can_be_seen(local):
    local.joined(ADA)
    seen = []
    for email in (ADA, NOBODY):
        before = local.passwords.hashed, len(local.letters.letters), local.clock.now()
        local.register(email)
        after = local.passwords.hashed, len(local.letters.letters), local.clock.now()
        seen.append([later - earlier for earlier, later in zip(before, after, strict=True)])
    assert seen == [[1, 1, pytest.approx(STEP)]] * 2


@pytest.mark.parametrize("purpose", Purpose)
def test_asking_for_a_code_comes_at_whole_steps_whoever_asks(local, purpose):
    local.register(ADA)
    if purpose is Purpose.RESET_PASSWORD:
        local.verify(ADA)
    sent = len(local.letters.letters)
    local.letters.takes = 0.3 * STEP
    for email, letters in ((NOBODY, 0), (ADA, 1)):
        local.clock.advance(10.0)
        asked_at = local.clock.now()
        drive(local.accounts.send_code(purpose, email, HOME))
        assert len(local.letters.letters) == sent + letters
        assert local.clock.now() - asked_at == pytest.approx(STEP)


def test_who_never_proves_the_address_is_forgotten_after_a_week(house):
    house.joined(EVE)
    house.register(ADA)
    house.clock.advance(7 * 86_400.0 - 1.0)
    drive(house.accounts.forget())
    assert drive(house.users.by_email(ADA))
    house.clock.advance(2.0)
    drive(house.accounts.forget())
    assert drive(house.users.by_email(ADA)) is None
    assert house.login(EVE)


def test_a_wrong_code_is_answered_like_one_that_was_never_sent(house):
    house.register(ADA)
    never = told(refused(house.verify, NOBODY, "000000"))
    assert told(refused(house.verify, ADA, wrong(house.letters.code(ADA)))) == never
    assert never[0] == 400
    house.clock.advance(LIFETIME)
    assert told(refused(house.verify, ADA)) == never


def test_fault_89_wrong_codes_from_everywhere_void_the_code(house):
    house.register(ADA)
    for number in range(MAX_ATTEMPTS):
        house.clock.advance(61.0)  # the limits alone would let more through
        refused(house.verify, ADA, wrong(house.letters.code(ADA)), address=str(number))
        drive(house.accounts.send_code(Purpose.VERIFY_EMAIL, ADA, str(number)))
    house.clock.advance(61.0)
    assert refused(house.verify, ADA).status == 400


def test_fault_91_a_flood_of_codes_is_limited_and_only_the_newest_is_valid(house):
    house.register(ADA)
    first = house.letters.code(ADA)
    for _ in range(3):
        drive(house.accounts.send_code(Purpose.VERIFY_EMAIL, ADA, HOME))
    with pytest.raises(RateLimitedError):
        drive(house.accounts.send_code(Purpose.VERIFY_EMAIL, ADA, "elsewhere"))
    assert len(house.letters.to(ADA)) == 4
    newest = house.letters.code(ADA)
    if first != newest:  # one in a million
        assert refused(house.verify, ADA, first).status == 400
    house.verify(ADA, newest)


# --- logging in ------------------------------------------------------------------------------------


@pytest.fixture
def everybody(local):
    """Somebody of each kind who cannot log in, and with which password."""
    ada = local.joined(ADA)
    bob = local.joined("bob@example.com", administrator=ada)
    drive(local.administration.disable(ada, bob.user.id))
    local.register("new@example.com")
    return {
        "unknown": (NOBODY, PASSWORD),
        "wrong password": (ADA, "a wrong guess"),
        "disabled": ("bob@example.com", PASSWORD),
        "disabled, wrong password": ("bob@example.com", "a wrong guess"),
        "unverified, wrong password": ("new@example.com", "a wrong guess"),
    }


def test_asvs_6_3_8_whoever_cannot_log_in_is_told_the_same(local, everybody):
    answers = {kind: told(refused(local.login, *who)) for kind, who in everybody.items()}
    assert set(map(repr, answers.values())) == {repr(answers["unknown"])}
    assert answers["unknown"][0] == 401


def test_fault_92_whoever_cannot_log_in_costs_the_same_work(local, everybody, statements):
    work = {}
    for kind, who in everybody.items():
        statements.clear()
        hashed, begun_at = local.passwords.hashed, local.clock.now()
        refused(local.login, *who)
        steps = (local.clock.now() - begun_at) / STEP
        work[kind] = (tuple(statements), local.passwords.hashed - hashed, round(steps, 6) % 1)
    assert set(work.values()) == {work["unknown"]}
    assert work["unknown"][1:] == (1, 0.0)


def test_fault_92_a_refusal_comes_at_a_whole_step_however_long_the_work_took(local):
    begun_at = local.clock.now()
    verify = local.passwords.verify

    async def slow(password, hash_):
        local.clock.advance(0.037)
        return await verify(password, hash_)

    local.passwords.verify = slow
    refused(local.login, NOBODY)
    assert local.clock.now() - begun_at == pytest.approx(STEP)


def test_asvs_6_3_8_those_who_are_locked_are_told_the_same_whether_they_exist_or_not(local):
    local.joined(ADA)
    answers = []
    for email in (ADA, NOBODY):
        local.clock.advance(3600.0)
        for _ in range(6):
            refused(local.login, email, "a wrong guess")
        answers.append(refused(local.login, email, PASSWORD))
    known, unknown = answers
    assert (known.status, known.code, known.message) == (unknown.status, unknown.code, unknown.message)
    assert known.status == 429
    assert known.retry_after == pytest.approx(unknown.retry_after, abs=2 * 6 * STEP)


def test_asvs_7_2_4_a_login_gives_a_new_token_and_ends_the_old_session(house):
    house.joined(ADA)
    first = house.login()
    second = house.login(old_token=first)
    assert first != second
    assert house.member(first) is None
    assert house.member(second).user.email == ADA


def test_asvs_7_2_3_tokens_have_256_bits_and_only_their_hash_is_stored(local, tmp_path):
    token = local.joined(ADA) and local.login()
    assert len(token) == 43
    assert token not in {local.login() for _ in range(3)}
    stored = b"".join(file.read_bytes() for file in tmp_path.glob("sessions.db*"))
    assert session_id_of(token).encode() in stored
    assert token.encode() not in stored


def test_asvs_7_3_1_a_session_that_is_not_used_ends(local):
    local.joined(ADA)
    token = local.login()
    for _ in range(100):
        local.clock.advance(99.0)
        assert local.member(token)
    local.clock.advance(100.0)
    assert local.member(token) is None


def test_asvs_7_3_2_a_session_ends_however_much_it_is_used(local):
    local.joined(ADA)
    token, begun_at = local.login(), local.clock.now()
    while local.member(token):
        local.clock.advance(90.0)
    assert local.clock.now() - begun_at == pytest.approx(43_200.0, abs=90.0)


def test_whoever_logs_in_with_an_old_hash_gets_a_new_one(house):
    house.joined(ADA)
    old = drive(house.users.by_email(ADA))
    strong = argon2.PasswordHasher(time_cost=2, memory_cost=16, parallelism=1)
    house.passwords._argon2id = strong
    assert house.passwords.is_outdated(old.password_hash)
    refused(house.login, password="a wrong guess")
    assert drive(house.users.by_email(ADA)) == old
    assert house.login()
    new = drive(house.users.by_email(ADA))
    assert not house.passwords.is_outdated(new.password_hash)
    assert new.password_changed_at == old.password_changed_at  # it is the same password
    assert house.login()


@pytest.mark.parametrize("change", ["disabled", "password"])
def test_a_login_that_something_overtakes_begins_no_session(house, change):
    """Who disables a user, or changes the password, ends the sessions that there are; none may come after."""
    ada = house.joined(ADA)
    bob = house.joined("bob@example.com", administrator=ada)
    verify = house.passwords.verify

    async def overtaken(password, hash_):
        right = await verify(password, hash_)
        if change == "disabled":
            await house.administration.disable(ada, bob.user.id)
        else:
            house.clock.advance(1.0)
            await house.users.change_password(
                bob.user, "another hash", house.clock.wall(), end_sessions=False
            )
            await house.sessions.delete_user(bob.user.id)
        return right

    house.passwords.verify = overtaken
    assert refused(house.login, "bob@example.com").status == 401
    assert drive(house.store.of_user(bob.user.id)) == []


# --- sessions --------------------------------------------------------------------------------------


def test_asvs_7_5_2_users_see_where_they_are_logged_in_and_end_each_of_it(house):
    member = house.joined(ADA)
    elsewhere = drive(house.accounts.login(ADA, PASSWORD, Origin("198.51.100.7", "a telephone"), None))
    sessions = drive(house.accounts.sessions_of(member))
    assert {(one.data["address"], one.data["device"]) for one in sessions} == {
        (HOME, "a browser"),
        ("198.51.100.7", "a telephone"),
    }
    drive(house.accounts.end_session(member, session_id_of(elsewhere)))
    assert house.member(elsewhere) is None
    assert [one.session_id for one in drive(house.accounts.sessions_of(member))] == [
        member.session.session_id
    ]


def test_asvs_8_2_2_nobody_ends_the_session_of_somebody_else(house):
    ada, eve = house.joined(ADA), house.joined(EVE)
    for session_id in (ada.session.session_id, "0" * 64):
        error = refused(drive, house.accounts.end_session(eve, session_id))
        assert (error.status, error.message) == (404, "Session not found")
    assert drive(house.accounts.sessions_of(ada))


def test_asvs_7_4_1_logging_out_ends_the_session_on_the_server_and_its_connections(local):
    member = local.joined(ADA)
    token = local.login()
    socket = Socket()
    with local.sockets.register(socket, session_id_of(token), member.user.id):
        drive(local.accounts.logout(token))
        assert socket.closed() == 1008
    assert local.member(token) is None
    drive(local.accounts.logout(token))  # once more is no error


def test_logging_out_everywhere_leaves_no_session(house):
    member = house.joined(ADA)
    tokens = [house.login(), house.login()]
    assert drive(house.accounts.logout_everywhere(member)) == 3
    assert [house.member(token) for token in tokens] == [None, None]
    assert house.login()


def test_fault_95_what_is_no_token_is_nobodys(house):
    token = house.joined(ADA) and house.login()
    for forged in ("", "forged", token[:-1], token + "x", "\ud800", "x" * 5000):
        assert house.member(forged) is None
    assert house.member(token)


class Socket:
    """Tells with which code it was closed."""

    def __init__(self):
        self._closed = queue.Queue()

    def close(self, code, reason):
        self._closed.put(code)

    def closed(self):
        return self._closed.get(timeout=10.0)


# --- invitations -----------------------------------------------------------------------------------


def test_whoever_is_invited_joins_without_a_code(house):
    ada = house.joined(ADA)
    bob = house.joined("bob@example.com", administrator=ada)
    assert (bob.user.tenant_id, bob.user.role) == (ada.user.tenant_id, "member")
    carol = house.joined("carol@example.com", administrator=ada, role="administrator")
    assert carol.user.is_administrator


def test_an_invitation_works_once_for_its_address_within_seven_days(house):
    ada = house.joined(ADA)
    drive(house.administration.invite(ada, "Bob@example.com", "member"))
    token = house.letters.invitation("Bob@example.com")
    for email, invitation in ((EVE, token), ("bob@example.com", token[:-1])):
        error = refused(house.register, email, invitation=invitation)
        assert (error.status, error.fields.keys()) == (400, {"invitation"})
    house.register("bob@example.com", invitation=token)
    assert house.member(house.login("bob@example.com")).user.tenant_id == ada.user.tenant_id
    assert refused(house.register, "bob@example.com", invitation=token).status == 400

    drive(house.administration.invite(ada, "late@example.com", "member"))
    house.clock.advance(7 * 86_400.0)
    late = house.letters.invitation("late@example.com")
    assert refused(house.register, "late@example.com", invitation=late).status == 400


def test_a_new_invitation_voids_the_one_before(house):
    ada = house.joined(ADA)
    drive(house.administration.invite(ada, "bob@example.com", "member"))
    first = house.letters.invitation("bob@example.com")
    drive(house.administration.invite(ada, "bob@example.com", "member"))
    assert refused(house.register, "bob@example.com", invitation=first).status == 400
    house.register("bob@example.com", invitation=house.letters.invitation("bob@example.com"))


def test_an_invitation_proves_the_address_against_who_has_only_registered_it(house):
    ada = house.joined(ADA)
    house.register("bob@example.com", "what Eve has chosen")
    house.joined("bob@example.com", administrator=ada)
    assert refused(house.login, "bob@example.com", "what Eve has chosen").status == 401


def test_whoever_has_an_account_is_not_moved_by_an_invitation(house):
    ada, eve = house.joined(ADA), house.joined(EVE)
    drive(house.administration.invite(ada, EVE, "member"))
    house.register(EVE, "another password of hers", house.letters.invitation(EVE))
    assert house.letters.to(EVE)[-1].subject == "You have an account already"
    assert house.member(house.login(EVE)).user.tenant_id == eve.user.tenant_id


# --- what the log says -----------------------------------------------------------------------------


@pytest.fixture
def history(local, caplog):
    """Do everything that can be done; return what the log says, and what it must not say."""
    caplog.set_level(logging.DEBUG)
    secrets_told = ["a wrong guess", PASSWORD, "the next password of hers", "and another one of hers"]
    registration = local.register(ADA)
    refused(local.verify, ADA, wrong(local.letters.code(ADA)))
    secrets_told.append(local.letters.code(ADA))
    refused(local.login)
    local.verify(ADA)
    refused(local.login, ADA, "a wrong guess")
    token = local.login()
    ada = local.member(token)
    secrets_told.append(token)
    drive(local.administration.invite(ada, "bob@example.com", "member"))
    secrets_told.append(local.letters.invitation("bob@example.com"))
    refused(local.register, EVE, invitation="not an invitation")
    local.register("bob@example.com", invitation=local.letters.invitation("bob@example.com"))
    bob = local.member(local.login("bob@example.com"))
    change = local.changes.change
    origin = Origin(HOME, "a browser")
    refused(drive, change(ada, "a wrong guess", PASSWORD, origin, end_others=False))
    secrets_told.append(drive(change(ada, PASSWORD, "the next password of hers", origin, end_others=True)))
    secrets_told.append(local.reset_code(ADA))
    refused(drive, local.changes.reset(ADA, wrong(local.letters.code(ADA)), PASSWORD, HOME))
    drive(local.changes.reset(ADA, local.letters.code(ADA), "and another one of hers", HOME))
    ada = local.member(local.login(ADA, "and another one of hers"))
    drive(local.administration.disable(ada, bob.user.id))
    refused(local.login, "bob@example.com")
    drive(local.administration.enable(ada, bob.user.id))
    address = drive(local.administration.new_webhook(ada))
    secrets_told += [address.secret, address.signing_secret]
    drive(local.accounts.logout_everywhere(ada))

    secrets_told += [ADA, "bob@example.com", registration]
    return [record.getMessage() for record in caplog.records], secrets_told


def test_asvs_16_3_1_every_attempt_is_logged_also_those_that_succeed(history):
    said, _ = history
    ada, bob, eve = (rf"{letter}\*\*\*@example\.com" for letter in "abe")
    for expected in (
        rf"registration of {ada} from [0-9a-f]{{8}}: Your code",
        rf"wrong code for {ada} from {HOME}",
        rf"login refused for the unverified {ada} from {HOME}",
        rf"verified {ada} from {HOME}",
        rf"login refused for {ada} from {HOME}",
        rf"login of {ada} from {HOME}",
        rf"{bob} was invited as member by {ada}",
        rf"wrong invitation for {eve}",
        rf"password change refused for {ada} from {HOME}",
        rf"password of {ada} changed from {HOME}",
        rf"code to reset-password for {ada} from {HOME}: sent",
        rf"password reset refused for {ada} from {HOME}",
        rf"password of {ada} reset from {HOME}",
        rf"{bob} was disabled by {ada}",
        rf"{bob} was enabled by {ada}",
        rf"webhook address number 1 was made by {ada}",
        rf"logout of {ada} everywhere: 1 sessions",
    ):
        assert any(re.fullmatch(expected, line) for line in said), expected


def test_asvs_16_2_5_nothing_secret_is_logged_and_addresses_are_masked(history):
    said, secrets_told = history
    for secret in secrets_told:
        assert not any(secret in line for line in said)


# --- the demonstration -----------------------------------------------------------------------------


def test_the_demo_account_is_ready_and_has_the_password_of_the_last_start(house):
    drive(house.tenants.ensure("demo", "demo", "a hash", 0.0))
    for password in ("of the first start", "of the second start"):
        house.clock.advance(1.0)
        drive(house.accounts.ensure_demo("demo", password))
        assert house.member(house.login(DEMO, password)).user.tenant_id == "demo"
    assert refused(house.login, DEMO, "of the first start").status == 401


def test_a_letter_is_useful_for_a_day_unless_it_says_otherwise():
    assert Letter("ada@example.com", "", "").useful_for == 86_400.0
