"""Mail: into a folder, or to a mail server.

The folder is for a bare machine: one file a message, for a delivery agent to pick up, and for you to read. It
cannot be down, so a message is in it before the answer is sent.

A mail server can be. There a message is first put into a table, `mail_queue`, and whoever asked for it is
answered; what stands here hands one message over, in one attempt.
"""

from __future__ import annotations

import contextlib
import itertools
import smtplib
import ssl
import time
from email.message import EmailMessage
from email.policy import EmailPolicy
from email.utils import formatdate
from typing import TYPE_CHECKING, Final

from resilience import deadline, is_transient, remaining

if TYPE_CHECKING:
    from pathlib import Path

    from examples.backend.domain.letters import Letter
    from examples.backend.kit import Retries
    from examples.backend.ports.workers import Workers
    from examples.backend.settings import Settings

INTERNATIONAL: Final = EmailPolicy(utf8=True)
"""Addresses may have letters of any script."""
WITHIN: Final = 15.0
"""Seconds for handing over one message, retries included."""
SILENCE: Final = 5.0
"""Seconds that the server may keep silent."""
CLOSING: Final = 421
PERMANENT: Final = range(500, 600)


class Outbox:
    """Answers `examples.backend.domain.accounts.Mail` by a folder.

    Args:
        folder: Where the messages go. Their names sort by the time they were sent.
        workers: The threads that write.
        sender: The address that messages come from.
    """

    def __init__(self, folder: Path, workers: Workers, sender: str) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._workers = workers
        self._sender = sender
        self._numbers = itertools.count(1)

    async def send(self, letter: Letter) -> None:
        """Write the message to the folder."""
        await self._workers.run(self._write, bytes(message_of(letter, self._sender)))

    def _write(self, message: bytes) -> None:
        name = f"{time.time_ns()}-{next(self._numbers)}"
        unfinished = self._folder / f".{name}"
        unfinished.write_bytes(message)
        unfinished.rename(self._folder / f"{name}.eml")  # a reader never sees half a message


class SMTPServer:
    """Hands messages to a mail server, one connection and one message an attempt.

    Where the connection breaks after the message was sent and before the server said that it has it, the
    next attempt may bring it a second time. That is better than none, and a second code is the same code.

    Args:
        settings: Where the server is, and how it wants to be spoken to.
        workers: Who waits for it.
        retries: How it is tried again while it is unwell, with the breaker that guards it.
    """

    def __init__(self, settings: Settings, workers: Workers, retries: Retries) -> None:
        self._settings = settings
        self._workers = workers
        self._retries = retries

    async def deliver(self, letter: Letter, message_id: str) -> None:
        """Hand the message over; by its id a reader may know one that comes twice.

        Raises:
            Exception: It was not; `is_final` tells whether it is worth another try, later.
        """
        sender = self._settings.mail_from
        message = message_of(letter, sender)
        message["Message-ID"] = f"<{message_id}@{sender.rpartition('@')[2]}>"
        with deadline(WITHIN):
            await self._retries.execute(self._attempt, message)

    async def _attempt(self, message: EmailMessage) -> None:
        await self._workers.run(self._hand_over, message, min(SILENCE, remaining() or SILENCE))

    def _hand_over(self, message: EmailMessage, silence: float) -> None:
        settings = self._settings
        with contextlib.closing(self._connect(silence)) as server:
            if settings.smtp_security == "starttls":
                server.starttls(context=ssl.create_default_context())
            if settings.smtp_user:
                server.login(settings.smtp_user, settings.smtp_password)
            server.send_message(message)
            with contextlib.suppress(OSError):  # the server has the message: how it parts changes nothing
                server.quit()

    def _connect(self, silence: float) -> smtplib.SMTP:
        host, port = self._settings.smtp_host, self._settings.smtp_port
        if self._settings.smtp_security == "tls":
            return smtplib.SMTP_SSL(host, port, timeout=silence, context=ssl.create_default_context())
        return smtplib.SMTP(host, port, timeout=silence)


def message_of(letter: Letter, sender: str) -> EmailMessage:
    """Return a letter as mail has it."""
    message = EmailMessage(INTERNATIONAL)
    message["From"] = sender
    message["To"] = letter.to
    message["Subject"] = letter.subject
    message["Date"] = formatdate()
    message.set_content(letter.text)
    return message


def is_unwell(error: BaseException) -> bool:
    """Return whether the mail server as a whole does not work, so that the next moment may be better."""
    if isinstance(error, smtplib.SMTPServerDisconnected):
        return True
    if isinstance(error, smtplib.SMTPException):
        return CLOSING in _codes(error)
    return is_transient(error)


def is_final(error: Exception) -> bool:
    """Return whether the server will never take this message, at least for this recipient.

    What it says of us, that our password is wrong, say, may be mended while the message waits.
    """
    if isinstance(error, smtplib.SMTPRecipientsRefused | smtplib.SMTPDataError):
        return all(code in PERMANENT for code in _codes(error))
    return False


def _codes(error: smtplib.SMTPException) -> list[int]:
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return [code for code, _ in error.recipients.values()]
    return [error.smtp_code] if isinstance(error, smtplib.SMTPResponseException) else []
