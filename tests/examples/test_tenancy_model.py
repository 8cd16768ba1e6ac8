"""Two tenants do what they like with the same calls, in any order; each sees what a model says, and no more.

The whole backend runs in this process under the WSGI shell, without a network but to the fake provider; its
workers work when they are told to.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from datetime import UTC, datetime

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from standardwebhooks import Webhook
from werkzeug.test import Client

from examples.backend.assembly import Backend
from examples.backend.domain.accounts import Origin, User
from examples.backend.domain.live import Listener
from examples.backend.domain.tokens import hash_of
from examples.backend.kit import BlockingKit, drive
from examples.backend.settings import Settings
from examples.backend.wsgi import create_app
from resilience.janitor.sessions import session_id_of
from tests.examples.accounts_house import opened_on
from tests.examples.backend_process import fresh_sid
from tests.examples.recordings_house import start_provider, stop_provider

NEVER = "nosuchcall"
"""The id of a call that there never was."""


class House:
    """The backend, and what all examples share."""

    def __init__(self, var, provider, **more):
        options = {"telephony_url": provider.address, "telephony_rate": 1_000_000, "webhook_tenants": ()}
        configured = Settings(var=var, public_url="http://localhost", **options, **more)
        self.backend = Backend(configured, BlockingKit())
        self.backend.limits.api = self.admit  # it is not what is tried here, and would end the play early
        drive(self.backend.live.start())
        self.http = Client(create_app(self.backend), use_cookies=False)

    @staticmethod
    async def admit(_client):
        """Admit everybody."""

    def ask(self, token, method, path, **options):
        """Return the status and the content of an answer."""
        headers = options.pop("headers", {}) | ({"Authorization": f"Bearer {token}"} if token else {})
        with self.http.open(path, method=method, headers=headers, **options) as answer:
            content = answer.get_data()
        is_json = content and (answer.mimetype or "").endswith("json")
        return answer.status_code, json.loads(content) if is_json else content

    def close(self):
        """Let go of connections and files; nothing runs by itself."""
        drive(self.backend.bringing.close())
        drive(self.backend.sessions.close())
        self.backend.database.close()

    def work(self):
        """Have the workers do all that is due, and the events be told."""
        while drive(self.backend.bringing.worker.work()):
            pass
        drive(self.backend.live.look())


class Tenant:
    """A tenant with one user, who is logged in and listens."""

    def __init__(self, house):
        self._house = house
        self.id, self.secret = secrets.token_hex(16), secrets.token_urlsafe(16)
        backend, now = house.backend, 1.0
        drive(backend.tenants.ensure(self.id, "a tenant", hash_of(self.secret), now))
        email = f"{self.id}@example.com"
        user = User(
            id=secrets.token_hex(16),
            email=email,
            email_key=email,
            name="",
            password_hash="none",
            tenant_id=self.id,
            verified=True,
        )
        drive(backend.accounts._users.ensure(user, now))
        user = drive(backend.accounts._users.by_email(email))
        self.user_id = user.id
        self.token = drive(backend.accounts.begin_session(user, Origin("192.0.2.1")))
        self.session_id = session_id_of(self.token)
        self._mailbox = backend.kit.mailbox()
        listener = Listener(user.id, self.id, self.session_id)
        self.listening = drive(backend.live.subscribe(listener, self._mailbox, None))

    def ask(self, method, path, **options):
        """Return the status and the content of an answer to this tenant's user."""
        return self._house.ask(self.token, method, path, **options)

    def announce(self, call):
        """Have the provider tell of a call at this tenant's address."""
        told = {"CallSid": call, "Status": "completed", "DateUpdated": secrets.token_hex(8)}
        return self._house.ask("", "POST", f"/api/webhooks/{self.secret}/telephony", json=told)

    def announce_deletion(self, call):
        """Tell, signed, that a recording shall be deleted."""
        secret = drive(self._house.backend.administration.signing_secret(self.id))
        body = json.dumps({"type": "recording.delete", "data": {"callSid": call}})
        delivery, now = secrets.token_hex(8), datetime.now(UTC)
        headers = {
            "webhook-id": delivery,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Webhook(secret).sign(delivery, now, body),
        }
        path = f"/api/webhooks/{self.secret}/signed"
        return self._house.ask("", "POST", path, data=body, headers=headers)

    def told(self):
        """Return the ids of the calls that events have told of since this was asked last."""
        events = iter(self.listening.take, None)
        return {event.body["callSid"] for event in events}

    def leave(self):
        """Listen no more."""
        self.listening.close()
        self._mailbox.served()


class TwoTenants(RuleBasedStateMachine):
    """What two tenants can do, beside a model of whose each call is."""

    house: House
    tenant = st.sampled_from([0, 1])
    call = st.sampled_from(range(3))

    def __init__(self):
        super().__init__()
        self.tenants = Tenant(self.house), Tenant(self.house)
        self.sids = [fresh_sid(), fresh_sid(), f"unknown{secrets.token_hex(8)}"]
        """Two that the provider knows, and one that it does not."""
        self.owners = {}
        """Whose a call is, by its number."""
        self.deleted = set()

    def teardown(self):
        for tenant in self.tenants:
            tenant.leave()

    def owned(self, tenant):
        """Return the ids of the calls that a tenant shall see."""
        seen = (call for call, owner in self.owners.items() if owner == tenant and call not in self.deleted)
        return {self.sids[call] for call in seen}

    def never(self, tenant, method, path):
        """Return what is answered about a call that there never was."""
        return nameless(self.tenants[tenant].ask(method, path.format(NEVER)))

    @rule(tenant=tenant, call=call, path=st.sampled_from(["/api/recordings/{}", "/api/recordings/{}/sound"]))
    def fetch(self, tenant, call, path):
        status, content = self.tenants[tenant].ask("GET", path.format(self.sids[call]))
        is_unknown = call == len(self.sids) - 1
        if self.owners.get(call, tenant) != tenant or call in self.deleted or is_unknown:
            assert nameless((status, content)) == self.never(tenant, "GET", path)
        else:
            assert status == 200
            self.owners[call] = tenant

    @rule(tenant=tenant, call=call)
    def announce(self, tenant, call):
        assert self.tenants[tenant].announce(self.sids[call]) == (200, {"accepted": True})
        self.owners.setdefault(call, tenant)

    @rule(tenant=tenant, call=call)
    def delete(self, tenant, call):
        path = "/api/recordings/{}"
        outcome = self.tenants[tenant].ask("DELETE", path.format(self.sids[call]))
        if self.owners.get(call) == tenant:
            assert outcome == (204, b"")
            self.deleted.add(call)
        else:
            assert nameless(outcome) == self.never(tenant, "DELETE", path)

    @rule(tenant=tenant, call=call)
    def announce_deletion(self, tenant, call):
        assert self.tenants[tenant].announce_deletion(self.sids[call]) == (200, {"accepted": True})
        if self.owners.get(call) == tenant:
            self.deleted.add(call)

    @rule(tenant=tenant, call=call)
    def hand_on(self, tenant, call):
        path = "/api/recordings/{}/download-url"
        status, content = self.tenants[tenant].ask("POST", path.format(self.sids[call]))
        if self.sids[call] not in self.owned(tenant):
            assert nameless((status, content)) == self.never(tenant, "POST", path)
        elif status == 200:  # else it is expected, and not stored yet
            address = content["url"].removeprefix("http://localhost")
            assert self.house.ask("", "GET", address)[0] == 200
            for other in self.sids:
                opened = self.house.ask("", "GET", address.replace(self.sids[call], other))
                assert (opened[0] == 200) is (other == self.sids[call])

    @rule(tenant=tenant)
    def reach_for_others_sessions_and_users(self, tenant):
        one, other = self.tenants[tenant], self.tenants[1 - tenant]
        assert one.ask("DELETE", f"/api/auth/sessions/{other.session_id}")[0] == 404
        assert one.ask("POST", f"/api/tenant/users/{other.user_id}/disable")[0] == 404
        assert other.ask("GET", "/api/auth/me")[0] == 200

    @rule()
    def work(self):
        self.house.work()
        for tenant, each in enumerate(self.tenants):
            assert each.told() <= {self.sids[call] for call, owner in self.owners.items() if owner == tenant}

    @rule(tenant=tenant)
    def look(self, tenant):
        status, content = self.tenants[tenant].ask("GET", "/api/recordings?limit=100")
        assert status == 200
        assert {call["callSid"] for call in content["recordings"]} == self.owned(tenant)


def nameless(outcome):
    """Return an answer without what is another in each."""
    status, content = outcome
    return status, {name: content[name] for name in ("error", "code")}


@pytest.fixture(scope="module")
def provider():
    provider = start_provider()
    yield provider
    stop_provider(provider)


@pytest.fixture(params=["sqlite", "postgres"])
def house(request, tmp_path, provider):
    """The backend on either database."""
    with contextlib.ExitStack() as stack:
        more = {}
        if request.param == "postgres":
            database = stack.enter_context(opened_on(request.getfixturevalue("postgres_server")))
            url = database.engine.url.set(drivername="postgresql")
            more["database_url"] = url.render_as_string(hide_password=False)
        house = House(tmp_path / "var", provider, **more)
        stack.callback(house.close)
        yield house


def test_asvs_8_4_1_two_tenants_who_do_what_they_like(house):
    machine = type("Machine", (TwoTenants,), {"house": house})
    run_state_machine_as_test(machine, settings=settings(max_examples=20, stateful_step_count=30))
