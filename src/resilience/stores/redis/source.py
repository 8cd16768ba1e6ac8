"""Where connections come from: a URL, or a client of redis-py that has been set up already.

redis-py connects: it knows addresses, TLS, unix sockets, Sentinel and where passwords come from. What would
hide failures or take time is switched off on our connections: its retries (ten, with pauses), its health
checks, the third protocol with its notices. The client's own connections are never touched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from redis.backoff import NoBackoff
from redis.retry import Retry

from resilience.stores.redis.wire import packed

if TYPE_CHECKING:
    from collections.abc import Sequence

Address = tuple[str, int]

_OURS: Final = ("maint", "orig_", "oss_", "retry", "health_check_interval", "himport_registry", "event_")
"""What the settings that we do not take over begin with."""


class Source:
    """What makes connections as a client's pool would.

    Raises:
        TypeError: `server` is neither a URL nor a client of the class that is wanted.
    """

    def __init__(self, server: Any, client: Any, example: str) -> None:
        if isinstance(server, str):
            server = client.from_url(server)
        if not isinstance(server, client):
            raise TypeError(
                f"a store needs a URL such as 'redis://localhost:6379/0' or a {example}, not {server!r}; "
                "of a Cluster, any one node will do"
            )
        pool = server.connection_pool
        self._class: Any = pool.connection_class
        self._settings: dict[str, Any] = {
            name: value for name, value in pool.connection_kwargs.items() if not name.startswith(_OURS)
        }
        self._greet: Any = self._settings.get("redis_connect_func")
        """What the client was told to greet by, instead of redis-py and of us."""
        host, port = self._settings.get("host", "localhost"), self._settings.get("port", 6379)
        self.name: str = self._settings.get("path") or getattr(pool, "service_name", None) or f"{host}:{port}"
        """What to call the server in messages."""

    def connection(self, address: Address | None, seconds: float) -> Any:
        """Return a connection that is not connected yet; whatever it waits for, it waits at most `seconds`.

        Args:
            address: Another node of the same Cluster, or None.
            seconds: At least a little above 0: 0 would stand for not waiting at all.
        """
        settings = dict(self._settings)
        if address is not None:
            settings["host"], settings["port"] = address
        settings.update(
            socket_timeout=seconds,
            socket_connect_timeout=seconds,
            retry=Retry(NoBackoff(), 0),
            health_check_interval=0,
            protocol=2,
            decode_responses=False,
            redis_connect_func=self._greet or _say_nothing,
        )
        return self._class(**settings)

    def greeting(self, connection: Any, credentials: Sequence[str] | None) -> list[bytes]:
        """Return the commands that a new connection begins with: who we are, and which database.

        There are none if the client was given a function of its own that greets.

        Args:
            connection: One that was made here, and stands.
            credentials: Of its provider, if it has one: a password, or a user and a password.
        """
        commands: list[bytes] = []
        if self._greet is not None:
            return commands
        if credentials is None:
            credentials = [name for name in (connection.username, connection.password) if name]
        if credentials:
            commands.append(packed(b"AUTH", *[word.encode() for word in credentials]))
        if connection.db:
            commands.append(packed(b"SELECT", b"%d" % connection.db))
        if connection.client_name:
            commands.append(packed(b"CLIENT", b"SETNAME", connection.client_name.encode()))
        return commands


def _say_nothing(connection: Any) -> None:
    """Leave it to us to greet, in place of redis-py."""
