"""A server that says what a test wants, byte by byte, and when."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress


class Stub:
    """Listens on a port of loopback. `script(connection)` is called with each socket that is accepted."""

    def __init__(self, script):
        self._script = script
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}"
        self.connections = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self.connections.append(connection)
            threading.Thread(target=self._play, args=[connection], daemon=True).start()

    def _play(self, connection):
        with suppress(OSError):
            self._script(connection)

    def close(self):
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for connection in self.connections:
            connection.close()
        self._thread.join()


LOOKED = b"$12\r\nmaxmemory:0\n\r\n$0\r\n\r\n"
"""The answer to what is asked first: nothing that is worth a line."""


def after_the_look(*replies, pause=0.0):
    """Return a script: answer what is asked first, then each question by the next of `replies`, in pieces."""

    def play(connection):
        connection.recv(65536)
        connection.sendall(LOOKED)
        for reply in replies:
            if not connection.recv(65536):
                return
            for at in range(len(reply)):
                connection.sendall(reply[at : at + 1])
                time.sleep(pause)
        connection.recv(65536)

    return play
