"""Every setting of the backend: one environment variable each, named `BACKEND_` and the field in capitals.

A variable that begins so and names no setting is refused at the start: it is misspelt. Durations are seconds,
sizes are bytes. The defaults run on a bare machine, as one process, with the fake provider.
"""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

from resilience.http import client_address

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX: Final = "BACKEND_"
SHORTEST: Final = {"secret": 32, "monitoring_token": 20}
"""Characters: nothing keeps anybody from guessing them."""
LOOPBACK: Final = {"127.0.0.1", "::1", "localhost"}
MAY_BE_0: Final = {"drain_notice", "hashing_queue"}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How this process runs."""

    environment: Literal["production", "development"] = "production"
    """In development an error's `details` are shown."""
    public_url: str = ""
    """Where browsers find the backend. With https, cookies are `Secure` and carry the `__Host-` prefix."""
    var: Path = Path("var")
    """The folder for everything that is written: database, recordings, outbox, secret."""
    allowed_origins: tuple[str, ...] = ()
    """Origins, besides `public_url`, whose pages may open WebSockets and send requests that change something.
    That is all: no CORS headers are sent, so browsers show them no answers unless a proxy adds such."""
    trusted_proxies: tuple[str, ...] = ()
    """Networks whose X-Forwarded-For is believed, such as `10.0.0.0/8,192.168.0.0/16`."""
    monitoring_token: str = ""
    """The bearer token that opens /api/monitoring. Without one, only this machine itself may look, and nobody
    if `public_url` is not this machine's."""
    secret: str = ""
    """The key of the one-time codes' hashes. Left empty, one is made and kept in the var folder."""
    max_body: int = 64 * 1024
    """A longer request body is refused."""
    body_timeout: float = 10.0
    """A request body that takes longer to arrive is refused."""
    drain_notice: float = 0.0
    """How long, after SIGTERM, the backend still accepts while /health/ready already says no."""

    database_url: str = ""
    """`postgresql://…` of a role that owns no table. Left empty, a file in the var folder."""
    database_owner_url: str = ""
    """The role that makes the tables, where it is another one."""
    redis_url: str = ""
    """Where processes share their breakers, and their limits if `limiter_store` says so."""
    storage_url: str = ""
    """S3-compatible storage. Left empty, a folder."""
    storage_bucket: str = "recordings"
    storage_region: str = "us-east-1"
    storage_key: str = ""
    storage_secret: str = ""
    storage_lockout: float = 300.0
    """How long the store is left alone once it has locked us out."""
    smtp_host: str = ""
    """Where mail is handed over. Left empty, it is written to a folder."""
    smtp_port: int = 25
    smtp_security: Literal["none", "starttls", "tls"] = "none"
    """How the connection to it is kept private."""
    smtp_user: str = ""
    """Left empty, nobody logs in there."""
    smtp_password: str = ""
    mail_from: str = "no-reply@example.com"

    limiter_store: Literal["memory", "sqlite", "redis"] = "memory"
    """Where limits are counted. `sqlite` survives a restart and is shared by the processes of one machine,
    `redis` by those of many."""
    breached_passwords_url: str = ""
    """Where new passwords are looked up among leaked ones, such as https://api.pwnedpasswords.com/range/.
    Left empty, only the commonest are refused."""
    demo_password: str = ""
    """With one, there is an account demo@example.com that has it, in the first of `webhook_tenants`."""
    hashing_threads: int = max(1, (os.cpu_count() or 2) - 1)
    """How many passwords are hashed at a time: one core stays free for everybody else."""
    hashing_queue: int = 50
    """How many more may wait: at 25 ms a hash about a second; whoever comes next gets a 503 at once."""
    database_connections: int = 8
    """How many connections a process has to the database at most."""
    request_threads: int = 48
    """Under WSGI, how many requests a process serves at a time."""
    live_connections: int = 1000
    """How many WebSockets and event streams a process keeps open; under WSGI at most half of the threads."""
    live_connections_per_user: int = 5
    """How many of them one user may have."""

    session_lifetime: float = 30 * 86_400.0
    """A session ends this long after login, however busy."""
    session_idle: float = 7 * 86_400.0
    """A session ends this long after it was last used."""
    sweep_interval: float = 1_800.0
    """How often the janitor removes sessions that have ended."""
    sockets_interval: float = 10.0
    """How often it looks whether a session that ended elsewhere has left connections open here."""

    telephony_url: str = ""
    """The provider's API. Left empty, the fake provider is started."""
    telephony_account: str = "demo"
    telephony_key: str = "demo-key"
    telephony_token: str = "demo-token"  # noqa: S105 - the fake provider's
    telephony_recording_hosts: tuple[str, ...] = ()
    """Hosts (with `:port`, unless the scheme's own) that a RecordingUrl may name, besides the API's. They are
    not sent our key and token: only presigned addresses open anything there."""
    telephony_utc_offset: float = 19_800.0
    """The provider writes times without a zone; its clocks are this far ahead of UTC (+05:30)."""
    telephony_timeout: float = 3.0
    """How long the provider may keep silent in one attempt."""
    telephony_recovery: float = 5.0
    """How long the breaker stays open before it lets a probe through."""
    telephony_rate: int = 200
    """How many requests a minute the provider is sent at most, by all processes that share their limits."""
    recording_workers: int = 4
    """How many recordings a process brings by itself at the same time."""
    recording_poll: float = 1.0
    """How often a worker that has nothing to do looks for what other processes were told."""
    reconciliation_interval: float = 300.0
    """How often the provider's list of calls is read for what webhooks lost."""
    recording_deadline: float = 8.0
    """The whole of one recording fetch: details, download, storing, and all retries."""
    recording_max_size: int = 64 * 1024 * 1024
    """A longer recording is refused: over an hour of telephone sound."""
    recording_patience: float = 900.0
    """How long after the call's end a recording may still appear; the provider needs up to 15 minutes."""

    webhook_tenants: tuple[str, ...] = ()
    """The unguessable parts of the webhook URLs, one a tenant, of tenants that are there from the beginning.
    With the fake provider there is one, `demo`; with another, everybody would guess that."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Read the settings from `environ`.

        Raises:
            ValueError: A variable begins with `BACKEND_` but names no setting, or its value cannot be read.

        Example:
            >>> Settings.from_environment({"BACKEND_TELEPHONY_RECOVERY": "0.5"}).telephony_recovery
            0.5
        """
        types = get_type_hints(cls)
        names = {PREFIX + name.upper(): name for name in types}
        given = {name: value for name, value in environ.items() if name.startswith(PREFIX)}
        if unknown := given.keys() - names.keys():
            raise ValueError(
                f"no such setting: {', '.join(sorted(unknown))}; see examples/backend/settings.py"
            )
        return cls(**{names[name]: _read(name, text, types[names[name]]) for name, text in given.items()})

    def __post_init__(self) -> None:
        """Check what depends on more than its form."""
        for name, least in SHORTEST.items():
            if 0 < (length := len(getattr(self, name))) < least:
                raise ValueError(
                    f"{PREFIX}{name.upper()} has {length} characters: use at least {least}, at random"
                )
        if self.telephony_url and not self.telephony_url.startswith(("http://", "https://")):
            raise ValueError(f"{PREFIX}TELEPHONY_URL={self.telephony_url!r}: http:// or https:// is expected")
        for name in ("telephony_url", "storage_url"):
            if self.environment == "production" and _is_plain(getattr(self, name)):
                variable = f"{PREFIX}{name.upper()}={getattr(self, name)!r}"
                raise ValueError(f"{variable}: https:// is expected, or this machine itself")
        try:
            client_address(None, (), self.trusted_proxies)
        except ValueError as error:
            raise ValueError(f"{PREFIX}TRUSTED_PROXIES: {error}") from None
        if self.limiter_store == "redis" and not self.redis_url:
            raise ValueError(f"{PREFIX}LIMITER_STORE=redis needs {PREFIX}REDIS_URL")
        for field in dataclasses.fields(self):
            _check_number(field.name, getattr(self, field.name))

    def check_processes(self, processes: int) -> None:
        """Refuse several processes that would each keep limits of their own.

        Raises:
            ValueError: They would.
        """
        if processes < 1:
            raise ValueError(f"--workers {processes}: 1 or more is expected")
        if processes > 1 and self.limiter_store == "memory":
            raise ValueError(
                f"{processes} processes that count in memory would let through {processes} times as much: "
                f"set {PREFIX}LIMITER_STORE=sqlite, or redis"
            )

    @property
    def origins(self) -> tuple[str, ...]:
        """Whose pages may open WebSockets, and send requests that change something."""
        return (self.public_url.rstrip("/"), *self.allowed_origins)

    @property
    def secure_cookies(self) -> bool:
        """Whether browsers reach the backend by https only."""
        return self.public_url.startswith("https://")


def _is_plain(url: str) -> bool:
    """Return whether keys and recordings would pass through a network that anybody may listen to."""
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname not in LOOPBACK


def _check_number(name: str, value: object) -> None:
    """Refuse a number that would only be found out by the first request, or by the last."""
    if not isinstance(value, int | float) or name == "telephony_utc_offset":
        return
    if not math.isfinite(value) or value < 0 or (value == 0 and name not in MAY_BE_0):
        least = "0 or more" if name in MAY_BE_0 else "more than 0"
        raise ValueError(f"{PREFIX}{name.upper()}={value}: {least} is expected")


def _read(name: str, text: str, kind: Any) -> Any:
    """Return `text` as what the setting's type says."""
    if get_origin(kind) is tuple:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if get_origin(kind) is Literal:
        if text not in get_args(kind):
            raise ValueError(f"{name}={text!r}: one of {', '.join(get_args(kind))} is expected")
        return text
    try:
        return kind(text)
    except ValueError:
        expected = {int: "a whole number", float: "a number"}[kind]
        raise ValueError(f"{name}={text!r}: {expected} is expected") from None
