"""The example backend from outside: what operators see, and who is an operator."""

from __future__ import annotations

import json
import re

from tests.examples.backend_process import assert_error, everywhere, login, wait_until


@everywhere
def test_monitoring_tells_about_every_policy(server, user):
    user.get("/api/auth/me")
    assert server.monitoring("health")["checks"].keys() >= {"database", "breaker:telephony", "janitor"}
    cleanup = server.monitoring("cleanup-stats")
    assert cleanup["is_running"] is True
    assert re.fullmatch(r"\d+MB", cleanup["memory"])
    breakers = {breaker["name"]: breaker for breaker in server.monitoring("breakers")["breakers"]}
    assert breakers.keys() >= {"telephony", "object-store"}
    assert breakers["object-store"]["state"] == "closed"
    assert server.monitoring("retry-stats").keys() >= {"total_retries", "retry_success_rate", "policies"}


@everywhere
def test_the_limits_are_shown_without_saying_whose_they_are(server, client):
    login(client, "private@example.com")
    text = json.dumps(wait_until(lambda: server.monitoring("rate-limit-stats")))
    assert "login" in text
    assert "private" not in text
    assert client.headers["X-Forwarded-For"] not in text


@everywhere
def test_monitoring_is_for_this_machine_only(client):
    assert_error(client.get("/api/monitoring/health"), 403, "FORBIDDEN")
    assert client.get("/health/live").json() == {"status": "pass"}
