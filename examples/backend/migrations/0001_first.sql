-- Times are Unix seconds. `email_key` is the address as the limits fold it, so that no spelling of one
-- address is two accounts.

CREATE TABLE users (
    id            TEXT PRIMARY KEY,
    email         TEXT NOT NULL,
    email_key     TEXT NOT NULL UNIQUE,
    name          TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    verified_at   REAL,
    created_at    REAL NOT NULL
) STRICT;

-- At most one code a user: issuing the next one replaces it.
CREATE TABLE email_codes (
    user_id    TEXT PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    hash       BLOB NOT NULL,
    expires_at REAL NOT NULL,
    attempts   INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE recordings (
    call_sid     TEXT PRIMARY KEY,
    status       TEXT NOT NULL,
    object_key   TEXT NOT NULL,
    content_type TEXT NOT NULL,
    size         INTEGER NOT NULL,
    sha256       TEXT NOT NULL,
    from_number  TEXT NOT NULL,
    to_number    TEXT NOT NULL,
    direction    TEXT NOT NULL,
    started_at   REAL,
    ended_at     REAL,
    duration     INTEGER,
    stored_at    REAL NOT NULL
) STRICT;

-- What webhooks told. They may be delivered twice, and in any order; the unique key makes that harmless.
CREATE TABLE call_events (
    id           INTEGER PRIMARY KEY,
    tenant       TEXT NOT NULL,
    call_sid     TEXT NOT NULL,
    status       TEXT NOT NULL,
    date_updated TEXT NOT NULL,
    received_at  REAL NOT NULL,
    UNIQUE (tenant, call_sid, status, date_updated)
) STRICT;
