"""One-time codes: stored hashed, counted before they are compared, good for one use."""

from __future__ import annotations

import asyncio
import sqlite3

import pytest

from examples.backend.domain.accounts import User
from examples.backend.domain.codes import LIFETIME, MAX_ATTEMPTS, OneTimeCodes
from examples.backend.ports.database import Database
from examples.backend.ports.users import SQLiteUsers

NOW = 1_736_937_000.0
ADA = "ada@example.com"

codes = OneTimeCodes(b"k" * 32)


def user_named(user_id="u1", email=ADA, password_hash="hash"):
    return User(id=user_id, email=email, email_key=email, name="Ada", password_hash=password_hash)


def wrong(digits):
    return f"{(int(digits) + 1) % 1_000_000:06}"


@pytest.fixture
def database(tmp_path):
    database = Database(tmp_path / "backend.db")
    yield database
    database.close()


@pytest.fixture
def users(database):
    return SQLiteUsers(database)


async def test_a_right_code_verifies_once(users):
    code = codes.issue(ADA, NOW)
    await users.register(user_named(), code, NOW)
    assert not (await users.by_email(ADA)).verified
    assert await users.verify(ADA, codes.hash_of(ADA, code.digits), NOW)
    assert (await users.by_email(ADA)).verified
    assert not await users.verify(ADA, codes.hash_of(ADA, code.digits), NOW)


async def test_fault_90_a_right_code_in_parallel_is_accepted_once(users):
    code = codes.issue(ADA, NOW)
    await users.register(user_named(), code, NOW)
    verdicts = await asyncio.gather(*(users.verify(ADA, code.hash, NOW) for _ in range(20)))
    assert sorted(verdicts) == [False] * 19 + [True]


async def test_a_right_code_is_accepted_once_by_two_processes(tmp_path):
    one, other = (SQLiteUsers(Database(tmp_path / "backend.db")) for _ in range(2))
    code = codes.issue(ADA, NOW)
    await one.register(user_named(), code, NOW)
    verdicts = await asyncio.gather(*(users.verify(ADA, code.hash, NOW) for users in [one, other] * 10))
    assert sum(verdicts) == 1
    for users in (one, other):
        users._database.close()


async def test_fault_89_parallel_guesses_share_the_attempts_and_void_the_code(users):
    code = codes.issue(ADA, NOW)
    await users.register(user_named(), code, NOW)
    guess = codes.hash_of(ADA, wrong(code.digits))
    guesses = await asyncio.gather(*(users.verify(ADA, guess, NOW) for _ in range(MAX_ATTEMPTS)))
    assert not any(guesses)
    assert not await users.verify(ADA, code.hash, NOW)


async def test_the_last_attempt_may_be_the_right_one(users):
    code = codes.issue(ADA, NOW)
    await users.register(user_named(), code, NOW)
    for _ in range(MAX_ATTEMPTS - 1):
        assert not await users.verify(ADA, codes.hash_of(ADA, wrong(code.digits)), NOW)
    assert await users.verify(ADA, code.hash, NOW)


async def test_a_code_ends_after_its_lifetime(users):
    code = codes.issue(ADA, NOW)
    await users.register(user_named(), code, NOW)
    assert not await users.verify(ADA, code.hash, NOW + LIFETIME)
    assert await users.verify(ADA, code.hash, NOW + LIFETIME - 0.001)


async def test_the_next_code_voids_the_last(users):
    first, second = codes.issue(ADA, NOW), codes.issue(ADA, NOW)
    await users.register(user_named(), first, NOW)
    assert await users.replace_code(ADA, second) == ADA
    assert not await users.verify(ADA, first.hash, NOW) or first.hash == second.hash
    assert await users.verify(ADA, second.hash, NOW)
    assert await users.replace_code(ADA, first) is None  # nothing is awaited any more


async def test_a_code_is_of_use_for_its_own_address_only(users):
    code = codes.issue(ADA, NOW)
    await users.register(user_named(), code, NOW)
    await users.register(user_named("u2", "eve@example.com"), codes.issue("eve@example.com", NOW), NOW)
    assert codes.hash_of("eve@example.com", code.digits) != code.hash
    assert not await users.verify("eve@example.com", code.hash, NOW)


async def test_until_it_is_verified_the_newest_registration_counts_and_then_none(users):
    await users.register(user_named(password_hash="first"), codes.issue(ADA, NOW), NOW)
    code = codes.issue(ADA, NOW)
    assert await users.register(user_named("u2", password_hash="second"), code, NOW) is None
    assert (await users.by_email(ADA)).password_hash == "second"
    assert await users.verify(ADA, code.hash, NOW)
    owner = await users.register(user_named("u3", password_hash="third"), codes.issue(ADA, NOW), NOW)
    assert owner.id == "u2"
    assert (await users.by_email(ADA)).password_hash == "second"
    assert (await users.by_id("u2")).email == ADA
    assert await users.by_id("u1") is None


async def test_nobody_proves_an_address_for_a_later_registration(users):
    await users.register(user_named("ada", password_hash="ada's"), codes.issue(ADA, NOW), NOW)
    eve = codes.issue(ADA, NOW)
    await users.register(user_named("eve", password_hash="eve's"), eve, NOW)
    assert not await users.verify(
        ADA, eve.hash, NOW, "ada"
    )  # Ada, with the code from the mail that Eve caused
    assert not (await users.by_email(ADA)).verified
    again = codes.issue(ADA, NOW)
    await users.register(user_named("ada again", password_hash="ada's"), again, NOW)
    assert await users.verify(ADA, again.hash, NOW, "ada again")
    assert (await users.by_email(ADA)).password_hash == "ada's"


async def test_only_hashes_are_stored(users, tmp_path):
    code = codes.issue(ADA, NOW)
    await users.register(user_named(), code, NOW)
    with sqlite3.connect(tmp_path / "backend.db") as db:
        ((stored,),) = db.execute("SELECT hash FROM email_codes").fetchall()
    db.close()
    assert stored == code.hash
    assert code.digits.encode() not in stored


def test_codes_are_six_digits_of_chance():
    issued = {codes.issue(ADA, NOW).digits for _ in range(200)}
    assert all(len(digits) == 6 and digits.isdecimal() for digits in issued)
    assert len(issued) > 190


def test_a_short_key_is_refused():
    with pytest.raises(ValueError, match="has 8 bytes: use at least 32"):
        OneTimeCodes(b"too weak")


async def test_a_failed_transaction_leaves_nothing_behind(database):
    def half(db):
        db.execute("INSERT INTO call_events VALUES (1, 'demo', 'c1', 'completed', '', 0)")
        raise LookupError("half-way")

    with pytest.raises(LookupError):
        await database.write(half)
    assert await database.read(lambda db: db.execute("SELECT count(*) FROM call_events").fetchone()[0]) == 0


async def test_a_transaction_that_sqlite_itself_has_undone_fails_with_its_own_error(database):
    def fill_the_disk(db):
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count = {pages}")
        try:
            for number in range(10_000):
                db.execute(
                    "INSERT INTO call_events VALUES (?, 'demo', ?, ?, '', 0)", (number, number, "x" * 1000)
                )
        finally:
            db.execute("PRAGMA max_page_count = 1000000")

    with pytest.raises(sqlite3.OperationalError, match="full"):
        await database.write(fill_the_disk)
    assert await database.write(lambda db: db.execute("SELECT count(*) FROM call_events").fetchone()[0]) == 0


async def test_migrations_run_once(tmp_path):
    for _ in range(2):
        database = Database(tmp_path / "backend.db")
        (version,) = await database.read(lambda db: tuple(db.execute("PRAGMA user_version").fetchone()))
        assert version == 1
        database.close()
