"""Tenants: who belongs to one, who runs it, and what others see of it; on both databases."""

from __future__ import annotations

import asyncio
import base64

import pytest
from sqlalchemy import select

from examples.backend.domain.tenants import PAGE, SigningSecrets, Switched
from examples.backend.domain.tokens import hash_of, new_token
from examples.backend.kit import drive
from examples.backend.ports.database import EVERY, Database
from examples.backend.ports.tables import invitations, tenants
from examples.backend.ports.tenants import DatabaseTenants
from examples.backend.ports.workers import OnThreads
from resilience import ServiceError
from tests.examples.accounts_house import ADA, EVE, House, opened, opened_on, unavailable

BOB, CAROL = "bob@example.com", "carol@example.com"


@pytest.fixture(params=["sqlite", "postgres"])
def house(request, tmp_path):
    if request.param == "postgres":
        with opened_on(request.getfixturevalue("postgres_server")) as database:
            yield House(database, tmp_path)
    else:
        with opened(f"sqlite:///{tmp_path / 'data.db'}") as database:
            yield House(database, tmp_path)


@pytest.fixture
def ada(house):
    """An administrator."""
    return house.joined(ADA)


@pytest.fixture
def bob(house, ada):
    """A member of her tenant."""
    return house.joined(BOB, administrator=ada)


@pytest.fixture
def eve(house):
    """The administrator of another tenant."""
    return house.joined(EVE)


def refused(work):
    with pytest.raises(ServiceError) as caught:
        drive(work)
    return caught.value


def emails(page):
    return [user.email for user in page.users]


def test_asvs_8_4_1_users_are_shown_to_their_tenant_only(house, ada, bob, eve):
    assert emails(drive(house.administration.users(ada))) == [ADA, BOB]
    assert emails(drive(house.administration.users(bob))) == [ADA, BOB]
    assert emails(drive(house.administration.users(eve))) == [EVE]


def test_many_users_come_in_pages(house, ada):
    added = sorted(f"user{number:03}@example.com" for number in range(PAGE))
    for email in added:
        house.clock.advance(3600.0)
        house.joined(email, administrator=ada)
    first = drive(house.administration.users(ada))
    assert (emails(first), first.after) == ([ADA, *added[:-1]], added[-2])
    last = drive(house.administration.users(ada, first.after))
    assert (emails(last), last.after) == (added[-1:], None)


def test_asvs_7_4_2_disabling_a_user_ends_all_sessions_at_once_and_for_good(house, ada, bob):
    tokens = [house.login(BOB) for _ in range(2)]
    assert drive(house.administration.disable(ada, bob.user.id)).disabled
    assert [house.member(token) for token in tokens] == [None, None]
    with pytest.raises(ServiceError, match="is wrong"):
        house.login(BOB)
    drive(house.administration.enable(ada, bob.user.id))
    assert [house.member(token) for token in tokens] == [None, None]
    assert house.member(house.login(BOB))


def test_asvs_7_4_2_nobody_comes_back_by_a_session_that_could_not_be_ended(house, ada, bob):
    token = house.login(BOB)
    house.sessions.delete_user = unavailable
    with pytest.raises(ServiceError, match="sessions"):
        drive(house.administration.disable(ada, bob.user.id))
    assert house.member(token) is None
    drive(house.administration.enable(ada, bob.user.id))
    assert house.member(token) is None
    new = house.login(BOB)
    drive(house.administration.enable(ada, bob.user.id))  # again, which changes nothing
    bob = house.member(new)
    assert [session.session_id for session in drive(house.accounts.sessions_of(bob))] == [
        bob.session.session_id
    ]


def test_whoever_was_disabled_is_nobody_even_with_a_session(house, ada, bob):
    token = house.login(BOB)
    drive(house.tenants.switch(ada.user.tenant_id, bob.user.id, 1.0))  # as if the sessions were still there
    assert house.member(token) is None


def test_the_last_administrator_cannot_be_disabled(house, ada, bob):
    error = refused(house.administration.disable(ada, ada.user.id))
    assert (error.status, error.message) == (409, "The last administrator of a tenant cannot be disabled")
    carol = house.joined(CAROL, administrator=ada, role="administrator")
    drive(house.administration.disable(ada, ada.user.id))
    assert refused(house.administration.disable(carol, carol.user.id)).status == 409
    assert house.member(house.login(CAROL))


async def test_two_administrators_who_disable_each_other_leave_one(house, ada):
    carol = house.joined(CAROL, administrator=ada, role="administrator")
    url = house.database.engine.url.render_as_string(hide_password=False)
    database = Database(url, OnThreads("The database", threads=2, queue=10))
    parallel = DatabaseTenants(database)
    for _ in range(5):
        outcomes = await asyncio.gather(
            *(parallel.switch(ada.user.tenant_id, one.user.id, 1.0) for one in (ada, carol))
        )
        assert sorted(outcome.name for outcome in outcomes) == ["DONE", "LAST_ADMINISTRATOR"]
        for one in (ada, carol):
            assert await parallel.switch(ada.user.tenant_id, one.user.id, None) is Switched.DONE
    database.close()


def test_asvs_8_2_2_another_tenants_users_are_not_found(house, ada, bob, eve):
    for switch in (house.administration.disable, house.administration.enable):
        errors = [refused(switch(eve, user_id)) for user_id in (bob.user.id, "0" * 32)]
        assert {(error.status, error.message) for error in errors} == {(404, "User not found")}
    assert not drive(house.users.by_id(bob.user.id)).disabled
    assert drive(house.tenants.user_of(eve.user.tenant_id, bob.user.id)) is None


def test_invitations_are_answered_alike_whoever_they_are_for(house, ada, eve):
    assert drive(house.administration.invite(ada, EVE, "member")) is None
    assert drive(house.administration.invite(ada, "nobody@example.com", "member")) is None
    for number in range(18):
        drive(house.administration.invite(ada, f"user{number}@example.com", "member"))
    assert refused(house.administration.invite(ada, "one.too.many@example.com", "member")).status == 429


def test_only_the_hash_of_an_invitation_is_stored_and_the_expired_are_forgotten(house, ada):
    def stored():
        rows = house.database.read(
            lambda db: db.execute(select(invitations.c.hash)).scalars().all(), tenant=EVERY
        )
        return list(drive(rows))

    drive(house.administration.invite(ada, BOB, "member"))
    assert stored() == [hash_of(house.letters.invitation(BOB))]
    house.clock.advance(7 * 86_400.0)
    drive(house.administration.invite(ada, CAROL, "member"))
    assert stored() == [hash_of(house.letters.invitation(CAROL))]


def test_an_invitation_proves_the_address_that_it_was_sent_to(house, ada):
    """And not another one that is merely looked up by the same key; domain names tell them apart."""
    invited, written = "carol@strasse.example", "carol@stra\u00dfe.example"
    drive(house.administration.invite(ada, invited, "member"))
    house.register(written, invitation=house.letters.invitation(invited))
    assert house.member(house.login(invited)).user.email == invited
    assert house.letters.to(written) == []


def test_who_is_disabled_invites_nobody_any_more(house, ada):
    bob = house.joined(BOB, administrator=ada, role="administrator")
    drive(house.administration.invite(bob, CAROL, "administrator"))
    drive(house.administration.disable(ada, bob.user.id))
    invitation = house.letters.invitation(CAROL)
    with pytest.raises(ServiceError) as refusal:
        house.register(CAROL, invitation=invitation)
    assert refusal.value.fields is not None
    assert "invitation" in refusal.value.fields
    drive(house.administration.enable(ada, bob.user.id))
    house.register(CAROL, invitation=invitation)


def test_a_new_webhook_address_voids_the_one_before_and_its_signing_secret(house, ada, eve):
    first, second = (drive(house.administration.new_webhook(ada)) for _ in range(2))
    assert first.secret != second.secret
    assert first.signing_secret != second.signing_secret
    assert drive(house.tenants.by_webhook(hash_of(first.secret))) is None
    assert drive(house.tenants.by_webhook(hash_of(second.secret))) == ada.user.tenant_id
    assert drive(house.administration.signing_secret(ada.user.tenant_id)) == second.signing_secret
    hers = drive(house.administration.new_webhook(eve))
    assert hers.signing_secret not in {first.signing_secret, second.signing_secret}


def test_nothing_that_is_stored_leads_back_to_the_webhooks_secrets(house, ada):
    address = drive(house.administration.new_webhook(ada))
    row = drive(house.database.read(lambda db: db.execute(select(tenants)).one(), tenant=EVERY))
    assert hash_of(address.secret) in row
    assert not {address.secret, address.signing_secret} & set(map(str, row))


def test_a_tenant_that_has_no_address_yet_has_none_that_can_be_guessed(house, ada):
    assert drive(house.tenants.by_webhook(hash_of(ada.user.tenant_id))) is None


def test_signing_secrets_have_the_form_of_standard_webhooks():
    secret = SigningSecrets(b"k" * 32).of("a tenant", 1)
    assert secret.startswith("whsec_")
    assert len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 32
    assert SigningSecrets(b"l" * 32).of("a tenant", 1) != secret


def test_tokens_have_256_bits():
    assert len(new_token()) == 43
    assert len({new_token() for _ in range(100)}) == 100


def test_a_user_that_vanishes_while_it_is_disabled_is_not_found(house, ada):
    class Vanished(DatabaseTenants):
        async def user_of(self, tenant_id, user_id):
            return None

    house.administration._tenants = Vanished(house.database)
    assert refused(house.administration.enable(ada, ada.user.id)).status == 404
