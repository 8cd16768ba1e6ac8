"""The example backend from outside: what the provider tells it, and what others do in its name."""

from __future__ import annotations

from tests.examples.backend_process import assert_error, everywhere, fresh_sid


@everywhere
def test_a_webhook_is_taken_in_both_forms_and_repeated_without_harm(client):
    callback = {
        "CallSid": fresh_sid(),
        "Status": "completed",
        "DateUpdated": "2025-01-15 16:05:00",
        "Legs": "2",
    }
    for _ in range(2):
        assert client.post("/api/webhooks/demo/telephony", json=callback).json() == {"accepted": True}
    taken = client.post("/api/webhooks/demo/telephony", data=callback)
    assert taken.status_code == 200
    assert taken.headers["X-RateLimit-Limit"] == "1000"


def test_the_thousand_and_first_delivery_is_refused_and_the_secret_is_not_in_the_log(server, user):
    url = user.post("/api/tenant/webhook-url").json()["url"].removeprefix(server.url)
    callback = {"CallSid": fresh_sid(), "Status": "completed"}
    answers = [user.post(url, json=callback) for _ in range(1001)]
    assert [answer.status_code for answer in answers] == [200] * 1000 + [429]
    assert_error(answers[-1], 429, "RATE_LIMIT_EXCEEDED")
    assert "refused telephony, " in server.log()
    assert url.split("/")[-2] not in server.log()


def test_a_webhook_that_makes_no_sense_is_refused(client):
    answer = client.post("/api/webhooks/demo/telephony", json={"CallSid": "x", "Status": "singing"})
    assert assert_error(answer, 400, "VALIDATION_ERROR")["fields"].keys() == {"Status"}
    assert client.post("/api/webhooks/demo/telephony", content=b"\xff").status_code == 400


@everywhere
def test_a_webhook_for_nobody_is_not_found(client):
    assert_error(client.post("/api/webhooks/guessed/telephony", json={}), 404, "NOT_FOUND")
