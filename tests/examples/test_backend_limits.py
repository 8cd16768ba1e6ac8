"""The limits of logging in: who they stop, and whom they leave alone."""

from __future__ import annotations

import pytest

from examples.backend.domain.limits import Limits
from resilience.errors import RateLimitedError
from resilience.stores.memory import MemoryStore
from resilience.testing import FakeClock

MINUTE = 60.0
HOUR = 3600.0


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def decisions():
    return []


@pytest.fixture
def limits(clock, decisions):
    return Limits(MemoryStore(clock=clock), decisions.append)


async def refusal(attempt):
    """Return what refused `attempt`, or None if nothing did."""
    try:
        await attempt
    except RateLimitedError as error:
        return error.decision.limiter
    return None


async def test_guessing_one_password_from_one_address_ends_after_six(limits, clock):
    assert [await refusal(limits.login("ada", "1")) for _ in range(7)] == [None] * 6 + ["login"]
    assert await refusal(limits.login("ada", "2")) is None
    clock.advance(15 * MINUTE)
    assert await refusal(limits.login("ada", "1")) is None


async def test_spraying_from_one_address_ends_after_fifty(limits):
    attempts = [await refusal(limits.login(f"user{number}", "1")) for number in range(51)]
    assert attempts == [None] * 50 + ["login-address"]
    assert await refusal(limits.login("ada", "2")) is None


async def test_guessing_one_password_from_many_addresses_ends_after_a_hundred(limits):
    attempts = [await refusal(limits.login("ada", str(number))) for number in range(101)]
    assert attempts == [None] * 100 + ["login-email"]
    assert await refusal(limits.login("eve", "0")) is None


async def test_fault_80_knocking_at_one_door_does_not_lock_its_owner_out(limits, clock):
    for _ in range(60):
        for _ in range(100):
            await refusal(limits.login("ada", "attacker"))
        clock.advance(MINUTE)
    assert await refusal(limits.login("ada", "home")) is None


async def test_a_refused_attempt_is_charged_nowhere(limits, decisions):
    for _ in range(50):
        await refusal(limits.login("ada", "1"))
    for number in range(44):  # the six that were let in, and these, are the address's fifty
        assert await refusal(limits.login(f"user{number}", "1")) is None
    assert await refusal(limits.login("user", "1")) == "login-address"


async def test_each_decision_is_told_the_refusals_too(limits, decisions):
    for _ in range(7):
        await refusal(limits.login("ada", "1"))
    assert [decision.allowed for decision in decisions] == [True] * 6 + [False]
    assert [decision.remaining for decision in decisions] == [5, 4, 3, 2, 1, 0, 0]


@pytest.mark.parametrize(
    ("attempt", "number", "window"),
    [
        (lambda limits: limits.registration("1"), 5, 15 * MINUTE),
        (lambda limits: limits.verification("ada"), 5, 5 * MINUTE),
        (lambda limits: limits.resend("ada"), 3, 2 * MINUTE),
    ],
    ids=["registration", "verification", "resend"],
)
async def test_the_quotas_are_these_in_any_window(limits, clock, attempt, number, window):
    admitted_at = []
    for _ in range(200):
        if await refusal(attempt(limits)) is None:
            admitted_at.append(clock.now())
        clock.advance(window / 32)
    windows = zip(admitted_at, admitted_at[number:], strict=False)
    assert all(later - earlier >= window for earlier, later in windows)
    assert len(admitted_at) == number * 7  # at the beginning of each of the seven windows


async def test_the_api_and_the_webhooks_have_large_quotas(limits):
    assert [await refusal(limits.api("user:1")) for _ in range(101)] == [None] * 100 + ["api"]
    deliveries = [await refusal(limits.webhook("telephony", "demo")) for _ in range(1001)]
    assert deliveries.count(None) == 1000
    assert await refusal(limits.webhook("telephony", "other")) is None
