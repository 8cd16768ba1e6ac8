"""One-time codes: stored hashed, counted before they are compared, good for one use."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from sqlalchemy import delete, text, update

from examples.backend.domain import codes as codes_module
from examples.backend.domain.accounts import User
from examples.backend.domain.codes import COUNTED_FOR, LIFETIME, MAX_ATTEMPTS, OneTimeCodes, Purpose
from examples.backend.kit import drive
from examples.backend.ports.database import Database, migrate
from examples.backend.ports.tables import users as table
from examples.backend.ports.users import DatabaseUsers, _one_at_a_time
from examples.backend.ports.workers import OnThreads
from tests.examples.accounts_house import ADA, EVE, HOME, House, opened, opened_on, wrong
from tests.examples.backend_process import wait_until

NOW = 1_736_937_000.0
VERIFY, RESET = Purpose.VERIFY_EMAIL, Purpose.RESET_PASSWORD

codes = OneTimeCodes(b"k" * 32)


def issue(email=ADA, now=NOW, purpose=VERIFY):
    return codes.issue(purpose, email, now)


def guess_at(code, email=ADA):
    return codes.hash_of(code.purpose, email, wrong(code.digits))


def user_named(user_id="u1", email=ADA, password_hash="hash"):
    return User(
        id=user_id,
        tenant_id=f"tenant of {user_id}",
        email=email,
        email_key=email,
        name="Ada",
        password_hash=password_hash,
    )


@pytest.fixture(params=["sqlite", "postgres"])
def database(request, tmp_path):
    if request.param == "postgres":
        with opened_on(request.getfixturevalue("postgres_server")) as database:
            yield database
    else:
        with opened(f"sqlite:///{tmp_path / 'data.db'}") as database:
            yield database


@pytest.fixture
def parallel(database):
    """Users whose methods run on several threads at the same time."""
    url = database.engine.url.render_as_string(hide_password=False)
    database = Database(url, OnThreads("The database", threads=8, queue=100))
    yield DatabaseUsers(database)
    database.close()


@pytest.fixture
def users(database):
    return DatabaseUsers(database)


async def test_asvs_6_5_1_a_right_code_works_once(users):
    code = issue()
    await users.register(user_named(), code)
    assert not (await users.by_email(ADA)).verified
    assert await users.verify(ADA, code.hash, NOW)
    assert (await users.by_email(ADA)).verified
    assert not await users.verify(ADA, code.hash, NOW)


async def test_fault_90_a_right_code_in_parallel_is_accepted_once(parallel):
    code = issue()
    await parallel.register(user_named(), code)
    verdicts = await asyncio.gather(*(parallel.verify(ADA, code.hash, NOW) for _ in range(20)))
    assert sorted(verdicts) == [False] * 19 + [True]


async def test_fault_90_a_right_code_to_reset_a_password_is_accepted_once(parallel):
    proof = issue()
    await parallel.register(user_named(), proof)
    await parallel.verify(ADA, proof.hash, NOW)
    code = issue(purpose=RESET)
    await parallel.replace_code(ADA, code)
    verdicts = await asyncio.gather(
        *(parallel.reset_password(ADA, code.hash, NOW, f"hash {number}") for number in range(20))
    )
    (changed,) = filter(None, verdicts)
    assert (await parallel.by_email(ADA)).password_hash == changed.password_hash


async def test_fault_89_guesses_in_parallel_and_across_codes_share_the_attempts(parallel):
    first, second = issue(), issue()
    await parallel.register(user_named(), first)

    async def guess_and_ask_anew(number):
        if number % 2:
            await parallel.replace_code(ADA, second)
        return await parallel.verify(ADA, b"a guess", NOW)

    assert not any(await asyncio.gather(*(guess_and_ask_anew(number) for number in range(20))))
    await parallel.replace_code(ADA, second)
    assert not await parallel.verify(ADA, second.hash, NOW)


async def test_asvs_6_6_3_a_new_code_buys_no_guesses(users):
    code = issue()
    await users.register(user_named(), code)
    for number in range(MAX_ATTEMPTS):
        assert not await users.verify(ADA, guess_at(code), NOW)
        code = issue(now=NOW + number)
        assert await users.replace_code(ADA, code) == ADA
    assert not await users.verify(ADA, code.hash, NOW + MAX_ATTEMPTS)


async def test_fault_89_registering_anew_buys_no_guesses(users):
    code = issue()
    await users.register(user_named(), code)
    for number in range(MAX_ATTEMPTS):
        assert not await users.verify(ADA, guess_at(code), NOW)
        code = issue(now=NOW + number)
        await users.register(user_named(f"u{number}"), code)
    assert not await users.verify(ADA, code.hash, NOW + MAX_ATTEMPTS)
    later = issue(now=NOW + COUNTED_FOR)
    await users.register(user_named("later"), later)
    assert await users.verify(ADA, later.hash, NOW + COUNTED_FOR)


async def test_an_hour_later_the_next_code_begins_the_count_anew(users):
    code = issue()
    await users.register(user_named(), code)
    for _ in range(MAX_ATTEMPTS):
        assert not await users.verify(ADA, guess_at(code), NOW)
    too_early, in_time = issue(now=NOW + COUNTED_FOR - 1), issue(now=NOW + COUNTED_FOR)
    await users.replace_code(ADA, too_early)
    assert not await users.verify(ADA, too_early.hash, NOW + COUNTED_FOR - 1)
    await users.replace_code(ADA, in_time)
    assert await users.verify(ADA, in_time.hash, NOW + COUNTED_FOR)


async def test_guesses_are_counted_for_each_purpose(users):
    code = issue()
    await users.register(user_named(), code)
    assert await users.replace_code(ADA, issue(purpose=RESET)) is None  # nobody's address yet
    assert await users.verify(ADA, code.hash, NOW)
    reset = issue(purpose=RESET)
    assert await users.replace_code(ADA, reset) == ADA
    assert not await users.verify(ADA, reset.hash, NOW)
    assert (await users.reset_password(ADA, reset.hash, NOW, "new")).password_hash == "new"


async def test_the_last_attempt_may_be_the_right_one(users):
    code = issue()
    await users.register(user_named(), code)
    for _ in range(MAX_ATTEMPTS - 1):
        assert not await users.verify(ADA, guess_at(code), NOW)
    assert await users.verify(ADA, code.hash, NOW)


async def test_asvs_6_5_5_a_code_ends_after_ten_minutes(users):
    code = issue()
    assert LIFETIME <= 600.0
    await users.register(user_named(), code)
    assert not await users.verify(ADA, code.hash, NOW + LIFETIME)
    assert await users.verify(ADA, code.hash, NOW + LIFETIME - 0.001)


async def test_asvs_6_6_2_the_next_code_voids_the_last(users):
    first, second = issue(), issue()
    await users.register(user_named(), first)
    assert await users.replace_code(ADA, second) == ADA
    assert not await users.verify(ADA, first.hash, NOW) or first.hash == second.hash
    assert await users.verify(ADA, second.hash, NOW)
    assert await users.replace_code(ADA, first) is None  # nothing is awaited any more


async def test_asvs_6_6_2_a_code_is_of_use_for_its_own_address_and_purpose_only(users):
    code = issue()
    await users.register(user_named(), code)
    await users.register(user_named("u2", EVE), issue(EVE))
    hashes = {codes.hash_of(purpose, email, code.digits) for purpose in Purpose for email in (ADA, EVE)}
    assert len(hashes) == 4
    assert not await users.verify(EVE, code.hash, NOW)


async def test_until_it_is_verified_the_newest_registration_counts_and_then_none(users):
    await users.register(user_named(password_hash="first"), issue())
    code = issue()
    assert await users.register(user_named("u2", password_hash="second"), code) is None
    assert (await users.by_email(ADA)).password_hash == "second"
    assert await users.verify(ADA, code.hash, NOW)
    owner = await users.register(user_named("u3", password_hash="third"), issue())
    assert owner.id == "u2"
    assert (await users.by_email(ADA)).password_hash == "second"
    assert (await users.by_id("u2")).email == ADA
    assert await users.by_id("u1") is None


async def test_of_registrations_in_parallel_one_counts_and_none_fails(parallel):
    issued = [issue() for _ in range(10)]
    owners = await asyncio.gather(
        *(parallel.register(user_named(f"u{number}"), code) for number, code in enumerate(issued))
    )
    assert owners == [None] * 10
    user = await parallel.by_email(ADA)
    assert await parallel.verify(ADA, issued[int(user.id[1:])].hash, NOW)


async def test_asvs_6_6_2_nobody_proves_an_address_for_a_later_registration(users):
    await users.register(user_named("ada", password_hash="ada's"), issue())
    eve = issue()
    await users.register(user_named("eve", password_hash="eve's"), eve)
    # Ada types the code from the mail that Eve has caused.
    assert not await users.verify(ADA, eve.hash, NOW, "ada")
    assert not (await users.by_email(ADA)).verified
    again = issue()
    await users.register(user_named("ada again", password_hash="ada's"), again)
    assert await users.verify(ADA, again.hash, NOW, "ada again")
    assert (await users.by_email(ADA)).password_hash == "ada's"


async def test_asvs_6_5_2_only_hashes_are_stored_that_need_a_key(tmp_path):
    code = issue()
    with opened(f"sqlite:///{tmp_path / 'data.db'}") as database:
        await DatabaseUsers(database).register(user_named(), code)
    with sqlite3.connect(tmp_path / "data.db") as db:
        ((stored,),) = db.execute("SELECT hash FROM codes").fetchall()
    db.close()
    assert stored == code.hash
    assert code.digits.encode() not in stored
    assert OneTimeCodes(b"another key" * 3).hash_of(VERIFY, ADA, code.digits) != stored


def test_asvs_6_5_3_codes_come_from_the_generator_for_secrets(monkeypatch):
    asked = []
    monkeypatch.setattr(codes_module.secrets, "randbelow", lambda below: asked.append(below) or 7)
    assert issue().digits == "000007"
    assert asked == [1_000_000]


def test_asvs_6_5_4_codes_are_six_digits_of_chance():
    issued = {issue().digits for _ in range(200)}
    assert all(len(digits) == 6 and digits.isdecimal() for digits in issued)
    assert len(issued) > 190


def test_a_short_key_is_refused():
    with pytest.raises(ValueError, match="has 8 bytes: use at least 32"):
        OneTimeCodes(b"too weak")


def test_migrations_run_once(tmp_path):
    for _ in range(2):
        migrate(f"sqlite:///{tmp_path / 'data.db'}")


@contextlib.contextmanager
def transaction(house, server):
    """Yield a connection in a transaction of its own, for all tenants, and what waits until another waits."""
    with (
        house.database.engine.connect() as connection,
        psycopg.connect(server.url, autocommit=True) as admin,
    ):
        name = house.database.engine.url.database
        waiting = f"SELECT 1 FROM pg_stat_activity WHERE datname = '{name}' AND wait_event_type = 'Lock'"
        connection.execute(text("SELECT set_config('app.tenant', '*', true)"))
        yield connection, lambda: wait_until(lambda: admin.execute(waiting).fetchone())


def test_who_is_just_proving_the_address_is_not_replaced(postgres_server, tmp_path):
    with opened_on(postgres_server) as database:
        house = House(database, tmp_path)
        first = house.register(ADA)
        house.clock.advance(COUNTED_FOR)  # no guess is counted any more, whose row others would wait for
        with transaction(house, postgres_server) as (proving, wait), ThreadPoolExecutor(1) as another:
            proving.execute(update(table).values(verified_at=1.0))
            registered = another.submit(house.register, ADA)
            wait()
            proving.commit()
        assert registered.result() != first
        assert drive(house.users.by_email(ADA)).id == first


def test_who_is_just_being_replaced_gets_no_code(postgres_server, tmp_path):
    with opened_on(postgres_server) as database:
        house = House(database, tmp_path)
        house.register(ADA)
        with transaction(house, postgres_server) as (replacing, wait), ThreadPoolExecutor(1) as another:
            _one_at_a_time(replacing, ADA)
            replacing.execute(delete(table))
            asked = another.submit(drive, house.accounts.send_code(Purpose.VERIFY_EMAIL, ADA, HOME))
            wait()
            replacing.commit()
        assert asked.result() is None
        assert len(house.letters.to(ADA)) == 1
