"""Mail: a folder, a mail server that is not always well, and the queue before it."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import smtplib
import socket
from email import message_from_bytes, policy

import httpx2
import pytest
from sqlalchemy import select

from examples.backend.domain.letters import Letter
from examples.backend.fakes.process import started
from examples.backend.kit import AsyncKit, BlockingKit, drive
from examples.backend.ports import mail_queue
from examples.backend.ports.database import EVERY, Database
from examples.backend.ports.mail import Outbox, SMTPServer, is_final, is_unwell
from examples.backend.ports.mail_queue import LEASE, MailQueue
from examples.backend.ports.tables import mails
from examples.backend.ports.workers import InThisThread, OnThreads
from examples.backend.settings import Settings
from resilience import CircuitBreaker, CircuitOpenError, DeadlineExceeded
from resilience.testing import FakeClock
from tests.examples.accounts_house import ADA, EVE, opened, opened_on

CODE = Letter(ADA, "Your code", "Your code is 123456\n", useful_for=600.0)


@pytest.fixture(scope="module")
def outbox(tmp_path_factory):
    return tmp_path_factory.mktemp("mail") / "outbox"


@pytest.fixture(scope="module")
def addresses(outbox):
    with started("mail", "--folder", str(outbox)) as line:
        yield line.split()


@pytest.fixture
def control(addresses, outbox):
    for file in outbox.glob("*"):
        file.unlink()
    with httpx2.Client(base_url=addresses[1]) as client:
        yield client
        client.delete("/_control/faults")


@pytest.fixture
def settings(addresses, control):
    host, _, port = addresses[0].removeprefix("smtp://").partition(":")
    return Settings(smtp_host=host, smtp_port=int(port))


@pytest.fixture(params=["sqlite", "postgres"])
def database(request, tmp_path):
    if request.param == "postgres":
        with opened_on(request.getfixturevalue("postgres_server")) as database:
            yield database
    else:
        with opened(f"sqlite:///{tmp_path / 'data.db'}") as database:
            yield database


def arrived(folder):
    """Return the messages that have arrived, the oldest first."""
    files = sorted(folder.glob("*.eml"))
    return [message_from_bytes(file.read_bytes(), policy=policy.default) for file in files]


# --- the folder ------------------------------------------------------------------------------------


def test_a_folder_has_the_message_before_the_answer_is_sent(tmp_path):
    outbox = Outbox(tmp_path / "outbox", InThisThread("The disk", threads=1, queue=1), "us@example.com")
    drive(outbox.send(CODE))
    drive(outbox.send(CODE._replace(to="bücher@example.com")))
    first, second = arrived(tmp_path / "outbox")
    assert (first["From"], first["To"], first["Subject"]) == ("us@example.com", ADA, "Your code")
    assert first.get_content() == "Your code is 123456\n"
    assert second["To"] == "bücher@example.com"
    assert not [file for file in (tmp_path / "outbox").iterdir() if file.stat().st_mode & 0o077 & 0o111]


# --- the server ------------------------------------------------------------------------------------


def handed_over(kit, settings, letter=CODE, **options):
    """Hand a message over as under this shell; return what went wrong, if anything, and the breaker."""

    async def work():
        breaker = CircuitBreaker(name="mail", record_on=(is_unwell, DeadlineExceeded), **options)
        retries = kit.retries(name="mail", circuit_breaker=breaker, retry_on=is_unwell, initial_delay=0.001)
        workers = kit.workers("The mail server", threads=1, queue=1)
        try:
            await SMTPServer(settings, workers, retries).deliver(letter, "5e55")
        except OSError as error:  # of which SMTPException is one
            return error, breaker.snapshot()
        finally:
            workers.close()
        return None, breaker.snapshot()

    return asyncio.run(work()) if isinstance(kit, AsyncKit) else drive(work())


@pytest.fixture(params=[AsyncKit, BlockingKit], ids=["asgi", "wsgi"])
def kit(request):
    return request.param()


def test_a_server_gets_the_message(kit, settings, outbox):
    error, _ = handed_over(kit, settings, CODE._replace(to="bücher@example.com"))
    assert error is None
    (message,) = arrived(outbox)
    assert message["To"] == "bücher@example.com"
    assert message["From"] == "no-reply@example.com"
    assert message["Message-ID"] == "<5e55@example.com>"


@pytest.mark.parametrize("fault", [{"status": 421}, {"reset": True}])
def test_a_server_that_is_unwell_is_tried_again(kit, settings, control, outbox, fault):
    control.post("/_control/faults", json={**fault, "next": 2})
    error, breaker = handed_over(kit, settings)
    assert error is None
    assert len(arrived(outbox)) == 1
    assert breaker.failures == 1  # the first attempt alone counts


@pytest.mark.parametrize(
    ("fault", "final"),
    [
        ({"on": "RCPT", "status": 451}, False),
        ({"on": "RCPT", "status": 452}, False),
        ({"on": "RCPT", "status": 550}, True),
        ({"on": "DATA", "status": 554}, True),
        ({"on": "DATA", "status": 451}, False),
    ],
)
def test_what_a_server_says_of_one_message_is_not_retried_at_once(
    kit, settings, control, outbox, fault, final
):
    control.post("/_control/faults", json=fault)
    error, breaker = handed_over(kit, settings)
    assert (is_final(error), is_unwell(error)) == (final, False)
    assert breaker.failures == 0
    assert sum(control.get("/_control/subjects").json().get(ADA, {}).values()) >= 1
    assert not arrived(outbox)


def test_an_answer_that_is_lost_brings_the_message_twice_with_one_id(kit, settings, control, outbox):
    control.post("/_control/faults", json={"on": "DATA", "late": True, "reset": True, "next": 1})
    assert handed_over(kit, settings)[0] is None
    assert [message["Message-ID"] for message in arrived(outbox)] == ["<5e55@example.com>"] * 2


def test_how_a_server_parts_does_not_matter(kit, settings, outbox, monkeypatch):
    def parts_badly(_connection):
        raise smtplib.SMTPServerDisconnected

    monkeypatch.setattr(smtplib.SMTP, "quit", parts_badly)
    assert handed_over(kit, settings)[0] is None
    assert len(arrived(outbox)) == 1


def test_a_server_that_is_down_opens_its_breaker(kit, settings):
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    down = dataclasses.replace(settings, smtp_port=port)
    error, breaker = handed_over(kit, down, failure_threshold=1)
    assert isinstance(error, ConnectionRefusedError)
    assert breaker.state == "open"


@pytest.mark.parametrize("security", ["tls", "starttls"])
def test_a_server_that_cannot_keep_a_secret_is_told_none(kit, settings, outbox, security):
    error, _ = handed_over(kit, dataclasses.replace(settings, smtp_security=security, smtp_user="us"))
    assert isinstance(error, OSError)
    assert not is_final(error)
    assert not arrived(outbox)


def test_a_password_that_is_wrong_is_ours_to_mend_and_loses_no_message(kit, settings):
    error, _ = handed_over(kit, dataclasses.replace(settings, smtp_user="us", smtp_password="wrong"))
    assert isinstance(error, smtplib.SMTPException)
    assert not is_unwell(error)


@pytest.mark.parametrize(
    ("error", "final", "unwell"),
    [
        (smtplib.SMTPAuthenticationError(535, b""), False, False),
        (smtplib.SMTPSenderRefused(550, b"", "us"), False, False),
        (smtplib.SMTPConnectError(421, b""), False, True),
        (smtplib.SMTPRecipientsRefused({ADA: (421, b"")}), False, True),
        (smtplib.SMTPServerDisconnected(), False, True),
        (smtplib.SMTPNotSupportedError(), False, False),
        (smtplib.SMTPException(), False, False),
        (ConnectionResetError(), False, True),
        (ValueError(), False, False),
    ],
)
def test_each_refusal_is_what_it_is(error, final, unwell):
    assert (is_final(error), is_unwell(error)) == (final, unwell)


# --- the queue -------------------------------------------------------------------------------------


class FakeServer:
    """Takes messages, or raises what it is told to, in order."""

    def __init__(self, *errors):
        self.errors = list(errors)
        self.taken = []

    async def deliver(self, letter, message_id):
        if self.errors and (error := self.errors.pop(0)):
            raise error
        self.taken.append((letter, message_id))


@pytest.fixture
def clock():
    return FakeClock()


def queue_of(database, clock, *errors):
    server = FakeServer(*errors)
    return MailQueue(database, b"k" * 32, server, clock), server


def rows(database):
    return drive(database.read(lambda db: db.execute(select(mails)).all(), tenant=EVERY))


def test_what_is_sent_is_handed_over_in_order_and_forgotten(database, clock):
    queue, server = queue_of(database, clock)
    letters = [CODE._replace(text=f"number {number}") for number in range(3)]
    for letter in letters:
        clock.advance(0.1)
        drive(queue.send(letter))
    assert server.taken == []
    drive(queue.deliver())
    assert [letter for letter, _ in server.taken] == letters
    assert rows(database) == []


def test_what_waits_can_be_read_by_nobody(database, clock):
    queue, _ = queue_of(database, clock)
    drive(queue.send(CODE))
    stored = " ".join(map(str, rows(database)[0]))
    for secret in ("123456", ADA, "Your code"):
        assert secret not in stored


def test_what_a_server_cannot_take_now_is_tried_less_and_less_often(database, clock, caplog):
    queue, server = queue_of(database, clock, *[smtplib.SMTPDataError(451, b"later")] * 4)
    drive(queue.send(CODE._replace(useful_for=86_400.0)))
    pauses = []
    for _ in range(4):
        drive(queue.deliver())
        due = rows(database)[0].not_before
        pauses.append(round(due - clock.wall()))
        clock.advance(due - clock.wall() - 0.001)
        drive(queue.deliver())
        clock.advance(0.002)
    assert pauses == [5, 10, 20, 40]
    drive(queue.deliver())
    assert len(server.taken) == 1
    assert "is tried again in 5 s: SMTPDataError 451" in caplog.text
    assert ADA not in caplog.text


def test_a_pause_is_never_longer_than_ten_minutes(database, clock):
    queue, _ = queue_of(database, clock, *[smtplib.SMTPDataError(451, b"later")] * 20)
    drive(queue.send(CODE._replace(useful_for=86_400.0)))
    for _ in range(20):
        drive(queue.deliver())
        clock.advance(600.0)
    assert rows(database)[0].not_before - clock.wall() <= 0.0


@pytest.mark.parametrize("error", [smtplib.SMTPDataError(554, b"no"), None])
def test_what_a_server_will_never_take_or_is_of_no_use_any_more_is_given_up(database, clock, caplog, error):
    queue, server = queue_of(database, clock, error or OSError("down"))
    drive(queue.send(CODE if error else CODE._replace(useful_for=4.0)))
    drive(queue.send(CODE._replace(to=EVE)))
    drive(queue.deliver())
    assert rows(database) == []
    assert [letter.to for letter, _ in server.taken] == [EVE]
    assert "was given up, attempt 1" in caplog.text


def test_what_was_sealed_with_another_key_keeps_nothing_up_and_is_given_up_in_time(database, clock, caplog):
    other = MailQueue(database, b"o" * 32, FakeServer(), clock)
    drive(other.send(CODE._replace(useful_for=8.0)))
    queue, server = queue_of(database, clock)
    clock.advance(0.1)
    drive(queue.send(CODE._replace(to=EVE)))
    drive(queue.deliver())
    assert [letter.to for letter, _ in server.taken] == [EVE]
    assert "is tried again in 5 s" in caplog.text
    clock.advance(5.0)
    drive(queue.deliver())
    assert rows(database) == []
    assert "was given up, attempt 2" in caplog.text


def test_while_the_breaker_is_open_nothing_is_tried_nor_counted(database, clock):
    open_ = CircuitOpenError("mail", 7.0)
    queue, server = queue_of(database, clock, open_)
    for _ in range(2):
        drive(queue.send(CODE))
    drive(queue.deliver())
    first, second = sorted(rows(database), key=lambda row: row.not_before, reverse=True)
    assert round(first.not_before - clock.wall()) == 7
    assert (first.attempts, second.attempts, server.taken) == (0, 0, [])


def test_what_a_postman_took_who_died_is_taken_by_another_one(database, clock):
    queue, server = queue_of(database, clock, KeyboardInterrupt())
    drive(queue.send(CODE))
    with pytest.raises(KeyboardInterrupt):
        drive(queue.deliver())
    drive(queue.deliver())
    assert server.taken == []
    clock.advance(LEASE)
    drive(queue.deliver())
    assert [letter for letter, _ in server.taken] == [CODE]


async def test_many_postmen_take_each_message_once(database, clock, monkeypatch):
    monkeypatch.setattr(mail_queue.MailQueue, "_is_due", seems_due)
    url = database.engine.url.render_as_string(hide_password=False)
    parallel = Database(url, OnThreads("The database", threads=8, queue=100))
    queues = [queue_of(parallel, clock) for _ in range(8)]
    for number in range(30):
        await queues[0][0].send(CODE._replace(text=str(number)))
    for _ in range(5):  # what one is just taking, another one leaves alone, and may go home
        await asyncio.gather(*(queue.deliver() for queue, _ in queues))
    taken = list(itertools.chain(*(server.taken for _, server in queues)))
    assert sorted(int(letter.text) for letter, _ in taken) == list(range(30))
    parallel.close()


async def seems_due(_queue, _now):
    return True


def test_a_postman_who_comes_too_late_for_the_last_message_goes_home(database, clock, monkeypatch):
    queue, server = queue_of(database, clock, KeyboardInterrupt())
    drive(queue.send(CODE))
    with pytest.raises(KeyboardInterrupt):
        drive(queue.deliver())  # it is taken, and not delivered yet
    monkeypatch.setattr(mail_queue.MailQueue, "_is_due", seems_due)
    drive(queue.deliver())
    assert server.taken == []
