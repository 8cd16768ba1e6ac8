"""The mail server that delivers nothing."""

from __future__ import annotations

import smtplib
from email.message import EmailMessage
from email.policy import EmailPolicy

import httpx2
import pytest

from examples.backend.fakes.process import started


@pytest.fixture(scope="module")
def outbox(tmp_path_factory):
    return tmp_path_factory.mktemp("mail") / "outbox"


@pytest.fixture(scope="module")
def addresses(outbox):
    with started("mail", "--folder", str(outbox)) as line:
        yield line.split()


@pytest.fixture
def control(addresses):
    with httpx2.Client(base_url=addresses[1]) as client:
        yield client
        client.delete("/_control/faults")


@pytest.fixture
def send(addresses, outbox):
    host, _, port = addresses[0].removeprefix("smtp://").partition(":")

    def send(to="ada@example.com", text="Your code is 123456"):
        message = EmailMessage(EmailPolicy(utf8=True))
        message["From"], message["To"], message["Subject"] = "no-reply@example.com", to, "Grüße"
        message.set_content(text)
        with smtplib.SMTP(host, int(port), timeout=10.0) as client:
            client.send_message(message)

    for file in outbox.glob("*"):
        file.unlink()
    return send


def test_a_message_is_written_as_the_outbox_would(send, outbox, control):
    send("ada@example.com")
    send("bücher@example.com")
    first, second = sorted(outbox.glob("*.eml"))
    assert b"\nTo: ada@example.com\n" in first.read_bytes()
    assert "\nTo: bücher@example.com\n" in second.read_text()
    assert "\nYour code is 123456\n" in first.read_text()
    assert control.get("/_control/subjects").json()["ada@example.com"] == {"RCPT": 1, "DATA": 1}


@pytest.mark.parametrize("status", [451, 452, 550])
def test_a_recipient_is_refused(send, outbox, control, status):
    control.post("/_control/faults", json={"on": "RCPT", "status": status, "next": 1})
    with pytest.raises(smtplib.SMTPRecipientsRefused) as refusal:
        send()
    assert refusal.value.recipients["ada@example.com"][0] == status
    assert not list(outbox.iterdir())
    send()


@pytest.mark.parametrize(("kind", "status"), [("spam", 554), ("closing", 421)])
def test_a_message_is_refused(send, outbox, control, kind, status):
    control.post("/_control/faults", json={"on": "DATA", "kinds": [kind]})
    with pytest.raises(smtplib.SMTPDataError) as refusal:
        send()
    assert refusal.value.smtp_code == status
    assert not list(outbox.iterdir())


@pytest.mark.parametrize(("kind", "messages"), [("reset", 0), ("late-reset", 1)])
def test_the_server_hangs_up_before_or_after_it_takes_a_message(send, outbox, control, kind, messages):
    control.post("/_control/faults", json={"on": "DATA", "kinds": [kind]})
    with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionError)):
        send()
    assert len(list(outbox.glob("*.eml"))) == messages
