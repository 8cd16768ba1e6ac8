"""Passwords: which are taken, how they are hashed, and how they are changed."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import argon2
import pytest
from pydantic import TypeAdapter, ValidationError
from zxcvbn.frequency_lists import FREQUENCY_LISTS

from examples.backend.domain.accounts import Origin
from examples.backend.domain.codes import MAX_ATTEMPTS, Purpose
from examples.backend.domain.passwords import LONGEST, PasswordRules
from examples.backend.kit import AsyncKit, BlockingKit, drive
from examples.backend.ports.known_passwords import (
    LONGEST_ANSWER,
    BreachedPasswords,
    CommonPasswords,
    client_options,
)
from examples.backend.ports.passwords import ARGON2, Argon2Passwords
from examples.backend.ports.workers import InThisThread, OnThreads
from examples.backend.schemas.accounts import NewPassword
from resilience import CircuitBreaker, DeadlineExceeded, RateLimitedError, ServiceError, is_transient
from tests.examples.accounts_house import (
    ADA,
    CHEAP,
    EVE,
    HOME,
    PASSWORD,
    House,
    opened,
    opened_on,
    unavailable,
    wrong,
)

NEXT = "the next one of hers"
ORIGIN = Origin(HOME, "a browser")
LEAKED = "leaked by somebody"


@pytest.fixture(params=["sqlite", "postgres"])
def house(request, tmp_path):
    if request.param == "postgres":
        with opened_on(request.getfixturevalue("postgres_server")) as database:
            yield House(database, tmp_path)
    else:
        with opened(f"sqlite:///{tmp_path / 'data.db'}") as database:
            yield House(database, tmp_path)


@pytest.fixture
def passwords():
    return Argon2Passwords(InThisThread("Hashing", threads=1, queue=10), CHEAP)


rules = PasswordRules(CommonPasswords())


def refusal(password):
    """Return why a password is not taken; None if it is."""
    try:
        drive(rules.check(password))
    except ServiceError as error:
        return error.fields["password"]
    return None


def refused(work):
    """Return the error that a use case ends with."""
    with pytest.raises(ServiceError) as caught:
        drive(work)
    return caught.value


# --- which are taken -------------------------------------------------------------------------------


def test_asvs_6_2_1_eight_characters_are_needed_and_fifteen_advised():
    assert refusal("x7#kQ2p") == "too short: use at least 8 characters, better 15 or more"
    assert refusal("x7#kQ2pZ") is None
    with pytest.raises(ValidationError, match="use at least 8 characters, better 15 or more"):
        TypeAdapter(NewPassword).validate_python("x7#kQ2p")


def test_asvs_6_2_4_the_commonest_that_are_long_enough_are_not_taken():
    common = [word for word in FREQUENCY_LISTS["passwords"] if len(word) >= 8]
    assert len(common) > 3000
    assert all("too common" in refusal(word) for word in common)
    assert "too common" in refusal("PassWord")
    wide = "".join(chr(ord(letter) + 0xFEE0) for letter in "password")  # as some keyboards write it
    assert "too common" in refusal(wide)


@pytest.mark.parametrize(
    "password",
    [
        "a" * 8 + "b",
        "only letters",
        "0123 4567 8910",
        "ЖЖЖжжжжж",
        "🦆🦆🦆🦆🦆🦆🦆🦆",
        "\t\t\t\t\t\t\t\t",
        " " * 9,
    ],
)
def test_asvs_6_2_5_a_password_may_be_made_of_anything(password):
    assert refusal(password) is None


def test_asvs_6_2_8_a_password_is_checked_whole_and_as_it_came(passwords):
    for password in ("a" * 100, "ends with a space ", "MiXeD cAsE", "x" * LONGEST, "with\0a zero"):
        hash_ = drive(passwords.hash(password))
        assert drive(passwords.verify(password, hash_))
        for other in (password[:-1], password + "a", password.swapcase(), password.strip("ax ")):
            assert other == password or not drive(passwords.verify(other, hash_))


def test_one_password_typed_on_two_keyboards_is_the_same(passwords):
    assert drive(passwords.verify("cafe\u0301 cafe\u0301", drive(passwords.hash("caf\u00e9 caf\u00e9"))))


def test_asvs_6_2_9_a_thousand_characters_are_taken_and_more_are_refused_unhashed():
    assert refusal("long enough " * 6) is None
    assert refusal("x" * LONGEST) is None
    assert refusal("x" * (LONGEST + 1)) == "too long: use at most 1024 characters"


# --- those that have leaked ------------------------------------------------------------------------


@contextmanager
def range_api(answer):
    """Run a service that answers like Have I Been Pwned; yield its address and what it was asked."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, dict(self.headers)))
            status, body = answer(self.path)
            with suppress(ConnectionError):  # who asked does not wait for ever
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/range/", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def lines_for(*passwords, count=3):
    digests = [hashlib.sha1(password.encode()).hexdigest().upper() for password in passwords]
    return "\r\n".join(["0" * 35 + ":1", *(f"{digest[5:]}:{count}" for digest in digests)]).encode()


def in_a_shell(kit, url, use, within=10.0, **options):
    """Run `use` with breached passwords made as under this shell; return what it returns, and the breaker."""

    async def work():
        breaker = CircuitBreaker(name="breached", record_on=(is_transient, DeadlineExceeded), **options)
        retries = kit.retries(name="breached", circuit_breaker=breaker, initial_delay=0.001)
        breached = BreachedPasswords(kit.http_client(**client_options(url)), retries, within)
        try:
            return await use(breached), breaker.snapshot()
        finally:
            await breached.close()

    return asyncio.run(work()) if isinstance(kit, AsyncKit) else drive(work())


@pytest.fixture(params=[AsyncKit, BlockingKit], ids=["asgi", "wsgi"])
def kit(request):
    return request.param()


def test_asvs_6_2_12_a_password_that_has_leaked_is_not_taken(kit):
    with range_api(lambda _: (200, lines_for(LEAKED))) as (url, asked):

        async def use(breached):
            rules = PasswordRules(CommonPasswords(), breached)
            await rules.check(PASSWORD)
            with pytest.raises(ServiceError) as caught:
                await rules.check(LEAKED, "newPassword")
            return caught.value.fields

        fields, _ = in_a_shell(kit, url, use)
    assert "leaked" in fields["newPassword"]
    path, headers = asked[1]
    assert path == "/range/" + hashlib.sha1(LEAKED.encode()).hexdigest()[:5].upper()  # no more of it
    assert headers["Add-Padding"] == "true"


def test_padding_is_no_leak(kit):
    with range_api(lambda _: (200, lines_for(LEAKED, count=0))) as (url, _):
        assert in_a_shell(kit, url, lambda breached: breached.has(LEAKED))[0] is False


@pytest.mark.parametrize(
    "answer",
    [
        (503, b""),
        (302, b""),
        (404, b""),
        (200, b"\xff\xfe"),
        (200, b"A" * (LONGEST_ANSWER + 1)),
    ],
    ids=["unavailable", "redirect", "not found", "no text", "endless"],
)
def test_asvs_16_5_2_without_the_list_a_password_passes_and_the_log_says_so(kit, answer, caplog):
    with range_api(lambda _: answer) as (url, asked):
        assert in_a_shell(kit, url, lambda breached: breached.has(LEAKED))[0] is False
    assert "a new password was not looked up among leaked ones: " in caplog.text
    assert LEAKED not in caplog.text
    assert len(asked) == (3 if answer[0] == 503 else 1)


def test_a_list_that_is_down_opens_its_breaker_and_is_left_alone(kit):
    async def use(breached):
        return [await breached.has(LEAKED) for _ in range(4)]

    with range_api(lambda _: (503, b"")) as (url, asked):
        passed, breaker = in_a_shell(kit, url, use, failure_threshold=2)
    assert passed == [False] * 4
    assert breaker.state == "open"
    assert len(asked) <= 6  # of the first two; then nobody asks


def test_a_list_that_does_not_answer_is_not_waited_for(kit, caplog):
    with range_api(lambda _: (200, b"")) as (url, _):
        pass  # nobody listens there any more
    caplog.set_level(logging.WARNING)
    assert in_a_shell(kit, url, lambda breached: breached.has(LEAKED))[0] is False
    assert "not looked up" in caplog.text


def test_a_list_that_keeps_silent_is_waited_for_no_longer_than_that(kit, caplog):
    go_on = threading.Event()
    with range_api(lambda _: (go_on.wait(10.0) and 200, b"")) as (url, asked):
        passed, _ = in_a_shell(kit, url, lambda breached: breached.has(LEAKED), within=0.1)
        assert not go_on.is_set()
        go_on.set()
    assert (passed, len(asked)) == (False, 1)
    assert "a new password was not looked up among leaked ones: " in caplog.text


# --- hashing ---------------------------------------------------------------------------------------


def test_hashes_are_argon2id_at_owasps_minimum_and_salted(passwords):
    assert ARGON2.hash(PASSWORD).startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert drive(passwords.hash(PASSWORD)) != drive(passwords.hash(PASSWORD))
    assert passwords.is_outdated(drive(passwords.hash(PASSWORD))) is False
    assert Argon2Passwords(InThisThread("h", threads=1, queue=0)).is_outdated(CHEAP.hash(PASSWORD)) is True


def test_without_a_hash_the_answer_is_no_even_for_the_hash_that_is_compared_instead(passwords):
    assert drive(passwords.verify(PASSWORD, None)) is False


def test_a_hash_that_is_none_is_an_error_of_ours(passwords):
    with pytest.raises(argon2.exceptions.InvalidHashError):
        drive(passwords.verify(PASSWORD, "no hash"))


async def test_fault_93_hashing_is_bounded_and_who_comes_too_much_is_told_at_once():
    begun, go_on = threading.Semaphore(0), threading.Event()

    class Slow:
        def hash(self, password):
            begun.release()
            go_on.wait(10.0)
            return password

    workers = OnThreads("Password checking", threads=2, queue=3)
    passwords = Argon2Passwords(workers, CHEAP)
    passwords._argon2id = Slow()
    running = [asyncio.create_task(passwords.hash(str(number))) for number in range(5)]
    for _ in range(2):
        await asyncio.to_thread(begun.acquire)
    assert not begun.acquire(blocking=False)  # the other three wait
    with pytest.raises(ServiceError) as caught:
        await passwords.hash("one too many")
    assert (caught.value.status, caught.value.retry_after) == (503, 1.0)
    go_on.set()
    assert await asyncio.gather(*running) == [str(number) for number in range(5)]
    workers.close()


# --- changing and resetting ------------------------------------------------------------------------


def change(house, member, *, current=PASSWORD, new=NEXT, end_others=False):
    return drive(house.changes.change(member, current, new, ORIGIN, end_others=end_others))


def reset(house, email=ADA, digits=None, new=NEXT, address=HOME):
    return house.changes.reset(email, digits or house.letters.code(email), new, address)


def test_fault_94_changing_the_password_gives_a_new_session_and_ends_the_old_one(house):
    member, elsewhere = house.joined(ADA), house.login()
    new = change(house, member)
    assert house.member(new).user.email == ADA
    kept = [session.session_id for session in drive(house.accounts.sessions_of(member))]
    assert member.session.session_id not in kept
    assert house.member(elsewhere)
    assert house.login(password=NEXT)
    with pytest.raises(ServiceError, match="is wrong"):
        house.login()
    assert house.letters.to(ADA)[-1].subject == "Your password has changed"


def test_asvs_7_4_3_who_changes_the_password_may_end_all_other_sessions(house):
    member, elsewhere = house.joined(ADA), house.login()
    new = change(house, member, end_others=True)
    assert house.member(elsewhere) is None
    assert len(drive(house.accounts.sessions_of(house.member(new)))) == 1


def test_whoever_does_not_know_the_current_password_changes_nothing(house):
    member = house.joined(ADA)
    work = house.changes.change(member, "a wrong guess", NEXT, ORIGIN, end_others=True)
    assert (refused(work).status, house.login() is not None) == (400, True)
    for _ in range(5):
        refused(house.changes.change(member, "a wrong guess", NEXT, ORIGIN, end_others=True))
    with pytest.raises(RateLimitedError):
        change(house, member)


def test_a_new_password_is_held_to_the_rules_and_named_as_in_the_request(house):
    member = house.joined(ADA)
    for new in ("password", "short"):
        work = house.changes.change(member, PASSWORD, new, ORIGIN, end_others=False)
        assert refused(work).fields.keys() == {"newPassword"}
    assert house.member(house.login())


def test_of_two_changes_of_one_password_the_second_is_a_conflict(house):
    member = house.joined(ADA)
    house.clock.advance(1.0)
    change(house, member)
    verify = house.passwords.verify

    async def still_right(password, hash_):
        await verify(password, hash_)
        return True

    house.passwords.verify = still_right
    error = refused(house.changes.change(member, PASSWORD, "a third one of hers", ORIGIN, end_others=True))
    assert error.status == 409
    assert house.login(password=NEXT)


def test_a_code_by_mail_resets_the_password_once_and_ends_all_sessions(house):
    house.joined(ADA)
    token = house.login()
    house.reset_code()
    drive(reset(house))
    assert house.member(token) is None
    assert house.login(password=NEXT)
    assert refused(reset(house, new="a third one of hers")).status == 400
    assert house.letters.to(ADA)[-1].subject == "Your password has changed"


@pytest.mark.parametrize("way", ["changed", "reset"])
def test_asvs_7_4_3_sessions_that_could_not_be_ended_are_void(house, way):
    member, elsewhere = house.joined(ADA), house.login()
    house.sessions.delete_user = unavailable
    house.reset_code()
    end = {"changed": lambda: change(house, member, end_others=True), "reset": lambda: drive(reset(house))}
    with pytest.raises(ServiceError, match="sessions"):
        end[way]()
    assert house.member(elsewhere) is None
    assert house.letters.to(ADA)[-1].subject == "Your password has changed"  # its owner is told in any case
    assert house.member(house.login(password=NEXT))


def test_fault_80_a_victim_of_wrong_logins_is_let_in_again_by_mail(house):
    house.joined(ADA)
    for number in range(94):
        with pytest.raises(ServiceError):
            house.login(password="a wrong guess", address=str(number))
    house.reset_code()
    drive(reset(house))
    assert house.member(house.login(password=NEXT))


def test_fault_89_wrong_codes_to_reset_void_the_right_one(house):
    house.joined(ADA)
    house.reset_code()
    for number in range(MAX_ATTEMPTS):
        house.clock.advance(61.0)
        assert refused(reset(house, digits=wrong(house.letters.code(ADA)), address=str(number))).status == 400
    house.clock.advance(61.0)
    assert refused(reset(house)).status == 400
    assert house.login()


def test_a_code_for_the_address_does_not_reset_the_password(house):
    house.register(ADA)
    assert refused(reset(house)).status == 400
    house.verify()
    assert refused(reset(house)).status == 400


def test_nobody_resets_by_the_code_of_somebody_else_nor_without_one(house):
    house.joined(ADA)
    house.joined(EVE)
    code = house.reset_code(EVE)
    never = refused(reset(house, ADA, code))
    assert (never.status, never.fields) == (400, refused(reset(house, "nobody@example.com", code)).fields)


def test_whoever_was_disabled_meanwhile_resets_nothing(house):
    ada = house.joined(ADA)
    bob = house.joined("bob@example.com", administrator=ada)
    house.reset_code("bob@example.com")
    drive(house.administration.disable(ada, bob.user.id))
    assert refused(reset(house, "bob@example.com")).status == 400
    letters = len(house.letters.letters)
    drive(house.accounts.send_code(Purpose.RESET_PASSWORD, "bob@example.com", HOME))
    assert len(house.letters.letters) == letters
