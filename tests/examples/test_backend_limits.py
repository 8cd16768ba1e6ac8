"""The limits of accounts: who they stop, and whom they leave alone."""

from __future__ import annotations

import secrets
from functools import partial

import pytest

from examples.backend.domain.limits import Limits
from examples.backend.kit import BlockingKit, drive
from resilience.errors import RateLimitedError
from resilience.stores import StoreUnavailable
from resilience.testing import FakeClock
from tests.limiter.servers import Server

MINUTE = 60.0
HOUR = 3600.0


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def decisions():
    return []


@pytest.fixture
def store(clock):
    return Server(clock)


@pytest.fixture
def limits(store, decisions):
    kit = BlockingKit()
    return Limits(partial(kit.limiter, store=store), kit.acquire_all, decisions.append)


def refusal(attempt):
    """Return what refused `attempt`, or None if nothing did."""
    try:
        drive(attempt)
    except RateLimitedError as error:
        return error.decision.limiter
    return None


def test_asvs_6_3_1_guessing_one_password_from_one_address_ends_after_six(limits, clock):
    assert [refusal(limits.login("ada", "1")) for _ in range(7)] == [None] * 6 + ["login"]
    assert refusal(limits.login("ada", "2")) is None
    clock.advance(15 * MINUTE)
    assert refusal(limits.login("ada", "1")) is None


def test_asvs_6_3_1_spraying_from_one_address_ends_after_fifty(limits):
    attempts = [refusal(limits.login(f"user{number}", "1")) for number in range(51)]
    assert attempts == [None] * 50 + ["login-address"]
    assert refusal(limits.login("ada", "2")) is None


def test_asvs_6_3_1_guessing_one_password_from_many_addresses_ends_after_a_hundred(limits):
    attempts = [refusal(limits.login("ada", str(number))) for number in range(101)]
    assert attempts == [None] * 100 + ["login-email"]
    assert refusal(limits.login("eve", "0")) is None


def test_fault_80_knocking_at_one_door_does_not_lock_its_owner_out(limits, clock):
    for _ in range(60):
        for _ in range(100):
            refusal(limits.login("ada", "attacker"))
        clock.advance(MINUTE)
    assert refusal(limits.login("ada", "home")) is None


def test_fault_80_a_lock_from_many_addresses_ends_and_leaves_the_code_by_mail(limits, clock):
    for number in range(100):
        refusal(limits.login("ada", str(number)))
    assert refusal(limits.login("ada", "home")) == "login-email"
    assert refusal(limits.code("reset-password", "ada", "home")) is None
    assert refusal(limits.verification("reset-password", "ada", "home")) is None
    clock.advance(1.05 * HOUR)  # a quota of a hundred is counted in parts of the hour, in their disfavour
    assert refusal(limits.login("ada", "home")) is None


def test_a_refused_attempt_is_charged_nowhere(limits):
    for _ in range(50):
        refusal(limits.login("ada", "1"))
    for number in range(44):  # the six that were let in, and these, are the address's fifty
        assert refusal(limits.login(f"user{number}", "1")) is None
    assert refusal(limits.login("user", "1")) == "login-address"


def test_each_decision_is_told_the_refusals_too(limits, decisions):
    for _ in range(7):
        refusal(limits.login("ada", "1"))
    assert [decision.allowed for decision in decisions] == [True] * 6 + [False]
    assert [decision.remaining for decision in decisions] == [5, 4, 3, 2, 1, 0, 0]


def test_fault_91_a_flood_of_codes_to_one_address_is_bounded_by_the_day(limits, clock):
    sent = 0
    for minute in range(24 * 60):
        for sender in range(10):
            sent += refusal(limits.code("verify-email", "ada", f"{minute % 7}.{sender}")) is None
        clock.advance(MINUTE)
    assert sent == 20
    assert refusal(limits.code("reset-password", "ada", "home")) is None  # each purpose for itself


def test_fault_91_a_flood_of_codes_from_one_sender_is_bounded(limits):
    attempts = [refusal(limits.code("verify-email", f"user{number}", "1")) for number in range(21)]
    assert attempts == [None] * 20 + ["resend-address"]


def test_fault_91_a_flood_of_registrations_of_one_address_is_bounded_by_the_day(limits, clock):
    """Each sends a mail, to its owner or for the code."""
    sent = 0
    for minute in range(24 * 60):
        for sender in range(10):
            sent += refusal(limits.registration("ada", f"{minute % 7}.{sender}")) is None
        clock.advance(MINUTE)
    assert sent == 20


def test_fault_80_one_sender_cannot_keep_an_address_from_being_registered(limits, clock):
    for _ in range(12 * 60):
        refusal(limits.registration("ada", "attacker"))
        clock.advance(MINUTE)
    assert refusal(limits.registration("ada", "home")) is None


def test_fault_80_one_sender_cannot_use_up_the_codes_of_an_address(limits, clock):
    for _ in range(12 * 60):
        refusal(limits.code("reset-password", "ada", "attacker"))
        clock.advance(MINUTE)
    assert refusal(limits.code("reset-password", "ada", "home")) is None


def test_asvs_6_6_3_trying_one_code_on_many_accounts_ends_after_fifty(limits):
    attempts = [refusal(limits.verification("reset-password", f"u{number}", "1")) for number in range(51)]
    assert attempts == [None] * 50 + ["verification-address"]


def test_invitations_are_limited_by_tenant_and_by_whom_they_are_for(limits):
    attempts = [refusal(limits.invitation("tenant", f"user{number}")) for number in range(21)]
    assert attempts == [None] * 20 + ["invitation-tenant"]
    attempts = [refusal(limits.invitation(f"tenant{number}", "ada")) for number in range(6)]
    assert attempts == [None] * 5 + ["invitation-email"]


@pytest.mark.parametrize(
    ("attempt", "number", "window"),
    [
        (lambda limits: limits.registration(secrets.token_hex(), "1"), 5, 15 * MINUTE),
        (lambda limits: limits.verification("verify-email", "ada", "1"), 5, 5 * MINUTE),
        (lambda limits: limits.password("ada"), 6, 15 * MINUTE),
    ],
    ids=["registration", "verification", "password"],
)
def test_the_quotas_are_these_in_any_window(limits, clock, attempt, number, window):
    admitted_at = []
    for _ in range(200):
        if refusal(attempt(limits)) is None:
            admitted_at.append(clock.now())
        clock.advance(window / 32)
    windows = zip(admitted_at, admitted_at[number:], strict=False)
    assert all(later - earlier >= window for earlier, later in windows)
    assert len(admitted_at) == number * 7  # at the beginning of each of the seven windows


def test_codes_come_three_in_two_minutes(limits, clock):
    assert [refusal(limits.code("verify-email", "ada", "1")) for _ in range(4)] == [None] * 3 + ["resend"]
    clock.advance(2 * MINUTE)
    attempts = [refusal(limits.code("verify-email", "ada", "1")) for _ in range(3)]
    assert attempts == [None, None, "resend-pair"]  # five a day to this address


def test_the_api_and_the_webhooks_have_large_quotas(limits):
    assert [refusal(limits.api("user:1")) for _ in range(101)] == [None] * 100 + ["api"]
    deliveries = [refusal(limits.webhook("telephony", "demo")) for _ in range(1001)]
    assert deliveries.count(None) == 1000
    assert refusal(limits.webhook("telephony", "other")) is None


@pytest.mark.parametrize(
    "attempt",
    [
        lambda limits: limits.login("ada", "1"),
        lambda limits: limits.registration("ada", "1"),
        lambda limits: limits.verification("verify-email", "ada", "1"),
        lambda limits: limits.code("verify-email", "ada", "1"),
        lambda limits: limits.password("ada"),
        lambda limits: limits.invitation("tenant", "ada"),
    ],
    ids=["login", "registration", "verification", "code", "password", "invitation"],
)
def test_asvs_16_5_3_nobody_is_let_in_while_guesses_cannot_be_counted(limits, store, attempt):
    store.is_away = True
    with pytest.raises(StoreUnavailable):
        drive(attempt(limits))


def test_asvs_16_5_2_who_is_in_goes_on_meanwhile_and_webhooks_are_taken(limits, store):
    store.is_away = True
    assert [refusal(limits.api("user:1")) for _ in range(200)] == [None] * 200
    assert refusal(limits.webhook("telephony", "demo")) is None
