"""The tables, once for SQLite and PostgreSQL.

Times are Unix seconds. Every table but `tenants` and those that belong to nobody has a `tenant_id`;
PostgreSQL guards those by row-level security as well (see the first migration). The migrations make the
tables; a test holds them to what stands here.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Counted: Final = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up by itself only in an INTEGER


def _tenant_id(*, primary_key: bool = False) -> Column[str]:
    return Column(
        "tenant_id",
        String,
        ForeignKey("tenants.id", ondelete="CASCADE"),
        nullable=False,
        primary_key=primary_key,
    )


tenants: Final = Table(
    "tenants",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("webhook_hash", String, nullable=False, unique=True),  # of the secret part of its webhooks' URL
    Column("webhook_version", Integer, nullable=False, server_default="0"),  # counts that secret's changes
    Column("created_at", Float, nullable=False),
)

users: Final = Table(
    "users",
    metadata,
    Column("id", String, primary_key=True),
    _tenant_id(),
    Column("email", String, nullable=False),  # as it was typed
    Column("email_key", String, nullable=False, unique=True),  # as it is looked up and limited by
    Column("name", String, nullable=False),
    Column("password_hash", String, nullable=False),
    Column("password_changed_at", Float, nullable=False),
    Column("generation", Integer, nullable=False, server_default="0"),  # of the sessions that count
    Column("role", String, nullable=False),  # administrator | member
    Column("verified_at", Float),
    Column("disabled_at", Float),
    Column("created_at", Float, nullable=False),
    Index(None, "tenant_id"),
)

codes: Final = Table(  # at most one of a purpose for a user: issuing the next one replaces it
    "codes",
    metadata,
    Column("user_id", String, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("purpose", String, primary_key=True),  # verify-email | reset-password
    _tenant_id(),
    Column("hash", LargeBinary, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),  # the next code goes on counting
    Column("counted_from", Float, nullable=False),  # when the count began
)

invitations: Final = Table(
    "invitations",
    metadata,
    Column("hash", String, primary_key=True),  # of its token
    _tenant_id(),
    Column("email", String, nullable=False),  # where it was sent
    Column("email_key", String, nullable=False),
    Column("role", String, nullable=False),  # as in `users`
    Column("inviter_id", String, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("expires_at", Float, nullable=False),
)

mails: Final = Table(  # what is still to be handed to the mail server; sealed, and nobody's
    "mails",
    metadata,
    Column("id", String, primary_key=True),
    Column("sealed", String, nullable=False),
    Column("not_before", Float, nullable=False),
    Column("expires_at", Float, nullable=False),  # it is of no use later
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("leased_until", Float, nullable=False, server_default="0"),
    Index(None, "not_before"),
)

calls: Final = Table(  # a call belongs to one tenant
    "calls",
    metadata,
    Column("call_sid", String, primary_key=True),
    _tenant_id(),
    Column("state", String, nullable=False),  # expected | fetching | stored | missing | failed | deleted
    Column("status", String),
    Column("from_number", String),
    Column("to_number", String),
    Column("direction", String),
    Column("started_at", Float),
    Column("ended_at", Float),
    Column("duration", Integer),
    Column("object_key", String),
    Column("content_type", String),
    Column("size", BigInteger),
    Column("sha256", String),
    Column("stored_at", Float),
    Column("failure", String),  # why it is missing or failed, for the tenant to read
    Column("created_at", Float, nullable=False),
    Column("changed_at", Float, nullable=False),
    Index(None, "tenant_id", "created_at", "call_sid"),
)

call_events: Final = Table(  # what webhooks told: perhaps twice, and in any order; the key makes it harmless
    "call_events",
    metadata,
    Column("id", Counted, primary_key=True),
    _tenant_id(),
    Column("call_sid", String, nullable=False),
    Column("status", String, nullable=False),
    Column("date_updated", String, nullable=False),
    Column("received_at", Float, nullable=False),
    UniqueConstraint("tenant_id", "call_sid", "status", "date_updated"),
    Index(None, "received_at"),
)

deliveries: Final = Table(  # ids of signed webhooks, so that a replay has no effect
    "deliveries",
    metadata,
    _tenant_id(primary_key=True),
    Column("delivery_id", String, primary_key=True),
    Column("received_at", Float, nullable=False),
    Index(None, "received_at"),
)

jobs: Final = Table(  # the outbox: what is still to be done about a call
    "jobs",
    metadata,
    Column("call_sid", String, ForeignKey("calls.call_sid", ondelete="CASCADE"), primary_key=True),
    _tenant_id(),
    Column("not_before", Float, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("lease", String),  # who works at it, and until when nobody else does
    Column("leased_until", Float, nullable=False, server_default="0"),
    Column("last_error", String),
    Column("created_at", Float, nullable=False),
    Index(None, "not_before"),
)

numbers: Final = Table(  # whose calls are made to and from a number of ours, as webhooks have shown
    "numbers",
    metadata,
    Column("number", String, primary_key=True),
    _tenant_id(),
    Column("shown_at", Float, nullable=False),
)

watermarks: Final = Table(  # from where on the provider's list of calls is read
    "watermarks",
    metadata,
    Column("name", String, primary_key=True),
    Column("at", Float, nullable=False),
    Column("turn_at", Float, nullable=False, server_default="0"),  # when a process last took its turn
)

live_events: Final = Table(  # what sockets are told
    "live_events",
    metadata,
    Column("id", Counted, primary_key=True),
    _tenant_id(),
    Column("at", Float, nullable=False),
    Column("kind", String, nullable=False),
    Column("body", JSON, nullable=False),
    Index(None, "at"),
    sqlite_autoincrement=True,  # ids go on for ever, also when the last row was deleted
)

used_tickets: Final = Table(  # tickets that work once, until they would have expired
    "used_tickets",
    metadata,
    Column("id", String, primary_key=True),
    Column("expires_at", Float, nullable=False),
)

process_reports: Final = Table(  # what each process of the backend says of itself, for the monitoring
    "process_reports",
    metadata,
    Column("process", String, primary_key=True),
    Column("seen_at", Float, nullable=False),
    Column("report", JSON, nullable=False),
)

breaker_orders: Final = Table(  # the last order of an operator about each circuit breaker
    "breaker_orders",
    metadata,
    Column("breaker", String, primary_key=True),
    Column("action", String, nullable=False),  # force-open | force-close | reset
    Column("number", Integer, nullable=False),  # how many there have been
    Column("ordered_at", Float, nullable=False),
)

OF_A_TENANT: Final = tuple(table for table in metadata.sorted_tables if "tenant_id" in table.columns)
"""The tables whose rows belong to a tenant."""
