"""A mail server on loopback that delivers nothing: it writes each message to a folder, or refuses it.

    python -m examples.backend.fakes.mail --port 2525 --folder var/outbox

It prints two addresses, `smtp://…` and `http://…`; the second is for control requests, see `control`. The
files have the form of the backend's own outbox: `*.eml`, sorted by the time they came. Requests are counted
by SMTP's word, `RCPT` and `DATA`, and what they are about is the recipient. The kinds of faults:

    greylisted full closing    451 and 452 to RCPT, 421 to any: worth another attempt
    unknown spam               550 to RCPT, 554 to DATA: final
    reset hang                 no answer, at once or after a minute
    late-reset                 no answer to DATA, but the message is taken
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aiosmtpd.smtp import SMTP

from examples.backend.fakes import control
from examples.backend.fakes.faults import Faults
from examples.backend.fakes.process import options_of, wait_for_the_end

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiosmtpd.smtp import Envelope, Session

    from examples.backend.fakes.faults import Fault

KINDS: Final[Mapping[str, Mapping[str, Any]]] = {
    "greylisted": {"on": "RCPT", "status": 451},
    "full": {"on": "RCPT", "status": 452},
    "closing": {"status": 421},
    "unknown": {"on": "RCPT", "status": 550},
    "spam": {"on": "DATA", "status": 554},
    "reset": {"reset": True},
    "hang": {"delay": 60.0, "reset": True},
    "late-reset": {"on": "DATA", "late": True, "reset": True},
}
TAKEN: Final = "250 OK"
LARGEST: Final = 1024 * 1024
"""Bytes of a message."""


class Catcher:
    """Takes messages, or refuses them; aiosmtpd calls it.

    Args:
        folder: Where the messages go.
        faults: What shall go wrong.
    """

    def __init__(self, folder: Path, faults: Faults) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._faults = faults
        self._numbers = itertools.count(1)

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Take a recipient."""
        del session, options
        refusal = await _suffer(self._faults.begin("RCPT", address), server)
        if refusal is None:
            envelope.rcpt_tos.append(address)
        return refusal or TAKEN

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Take a message."""
        del session
        fault = self._faults.begin("DATA", ",".join(envelope.rcpt_tos))
        if fault.late:
            self._write(envelope)
        refusal = await _suffer(fault, server)
        if refusal is None and not fault.late:
            self._write(envelope)
        return refusal or TAKEN

    def _write(self, envelope: Envelope) -> None:
        content = envelope.original_content or b""
        name = f"{time.time_ns()}-{next(self._numbers)}"
        unfinished = self._folder / f".{name}"
        unfinished.write_bytes(content.replace(b"\r\n", b"\n"))
        unfinished.rename(self._folder / f"{name}.eml")  # a reader never sees half a message


async def _suffer(fault: Fault, server: SMTP) -> str | None:
    """Keep silent, hang up or refuse, as the fault says; return the refusal, if it is one."""
    await asyncio.sleep(fault.delay)
    if fault.reset:
        assert isinstance(server.transport, asyncio.Transport)  # noqa: S101 - for the type checker
        server.transport.abort()
        return "421 Hung up"
    return None if fault.status is None else f"{fault.status} As you wished"


def serve(port: int, folder: Path, faults: Faults) -> str:
    """Take mail in a thread of its own for the rest of this process; return the address."""
    loop = asyncio.new_event_loop()
    catcher = Catcher(folder, faults)

    def connection() -> SMTP:
        return SMTP(catcher, hostname="localhost", enable_SMTPUTF8=True, data_size_limit=LARGEST, loop=loop)

    listening = loop.run_until_complete(loop.create_server(connection, "127.0.0.1", port))
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return f"smtp://127.0.0.1:{listening.sockets[0].getsockname()[1]}"


def main() -> None:
    """Serve until somebody ends it, or until standard input closes if it shall not outlive its parent."""
    parser = argparse.ArgumentParser(prog="python -m examples.backend.fakes.mail", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where the messages go")
    options = options_of(parser)
    faults = Faults(KINDS)
    address = serve(options.port, options.folder, faults)
    controls = control.Server(0, control.Handler, faults)
    threading.Thread(target=controls.serve_forever, daemon=True).start()
    print(address, controls.address, flush=True)  # noqa: T201 - whoever started it waits for this line
    wait_for_the_end(with_parent=options.with_parent)


if __name__ == "__main__":
    main()
