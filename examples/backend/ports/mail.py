"""Mail into a folder: one file a message, for a delivery agent to pick up, and for you to read."""

from __future__ import annotations

import itertools
import time
from email.message import EmailMessage
from email.policy import EmailPolicy
from email.utils import formatdate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from examples.backend.ports.workers import Workers


class Outbox:
    """Answers `examples.backend.domain.accounts.Mail`.

    Args:
        folder: Where the messages go. Their names sort by the time they were sent.
        workers: The threads that write.
    """

    def __init__(self, folder: Path, workers: Workers) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._workers = workers
        self._numbers = itertools.count(1)

    async def send(self, to: str, subject: str, text: str) -> None:
        """Write the message to the folder."""
        message = EmailMessage(EmailPolicy(utf8=True))  # addresses may have letters of any script
        message["From"] = "no-reply@example.com"
        message["To"] = to
        message["Subject"] = subject
        message["Date"] = formatdate()
        message.set_content(text)
        await self._workers.run(self._write, bytes(message))

    def _write(self, message: bytes) -> None:
        name = f"{time.time_ns()}-{next(self._numbers)}"
        unfinished = self._folder / f".{name}"
        unfinished.write_bytes(message)
        unfinished.rename(self._folder / f"{name}.eml")  # a reader never sees half a message
