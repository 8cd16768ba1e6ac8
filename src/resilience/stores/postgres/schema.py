"""What the store needs in the database: one table, and functions that decide in one round trip.

The arithmetic of the algorithms stands here once more, in SQL, and decides alike: see `_core.gcra`,
`_core.sliding` and `_core.fixed`, which explain it. Rules:
    - An instant is a whole number of nanoseconds since 1970, of the server's clock, which stops at
      microseconds. It is read by `clock_timestamp()` when a row is decided on; `now()` would be that of the
      transaction's beginning.
    - A state is an array of bigints whose first element is the instant from which nothing counts any more:
        gcra            {that instant}
        fixed-window    {that instant, units}
        sliding-log     {when each unit lapses, the newest first}
        sliding-counts  {lapse and units of each part, the newest first …, units in all}
    - `step` is what the algorithm counts in: gcra the time in which a unit is earned, sliding-counts the
      length of a part. `horizon` is how long a unit counts at most.
    - A decision about one key locks one row. One about several keys locks their rows in the order in which
      they come, and callers sort them: so none waits for one that waits for it.
    - A refusal changes nothing, and locks nothing. Only where the server's clock was set back it moves the
      instants that are out of its reach to within one horizon: nobody waits for the old time to come again.
      A unit never counts for less than its time by that, as none was taken later than now.
    - The last tokens stand in the row, so that a request whose reply was lost can be made once more.
    - Only the primary key is indexed, and pages keep some room, so updates stay on their page (HOT).
    - What has lapsed is removed by newcomers: one in eight looks through one page, drawn by chance. So up to
      a third of the rows may be lapsed, and no index on the lapse has to be kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, LiteralString

import psycopg

if TYPE_CHECKING:
    from psycopg import Connection

_TABLE: Final[LiteralString] = """
CREATE TABLE IF NOT EXISTS resilience_quota (
    scope bytea NOT NULL,    -- the limiter's name and the quota's notation
    key bytea NOT NULL,      -- "t" and the text, or "b" and the bytes, of a canonical key
    state bigint[] NOT NULL, -- nanoseconds and units; nothing counts from state[1] on
    tokens bytea NOT NULL,   -- of the last requests that changed it, eight bytes each
    PRIMARY KEY (scope, key)
) WITH (fillfactor = 85);
"""

_ARITHMETIC: Final[LiteralString] = """
CREATE OR REPLACE FUNCTION resilience_now() RETURNS bigint
LANGUAGE sql VOLATILE AS $$
    SELECT (date_part('epoch', clock_timestamp()) * 1e6)::bigint * 1000  -- exact until the year 2106
$$;

-- The arithmetic: pure, as in the Python of the same name.

CREATE OR REPLACE FUNCTION resilience_counting(state bigint[], at bigint) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE AS $$
-- Of sliding counts, the parts that still count; null where none does.
DECLARE
    n int := cardinality(state);
    total bigint := state[n];
BEGIN
    IF state IS NULL OR state[1] <= at THEN
        RETURN NULL;
    ELSIF state[n - 2] > at THEN
        RETURN state;
    END IF;
    WHILE state[n - 2] <= at LOOP
        total := total - state[n - 1];
        n := n - 2;
    END LOOP;
    RETURN state[:n - 1] || total;
END $$;

CREATE OR REPLACE FUNCTION resilience_admit_counts(
    state bigint[], at bigint, cost bigint, units bigint, step bigint, horizon bigint
) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    parts bigint[] := resilience_counting(state, at);
    n int := cardinality(parts);
    lapse bigint := (at / step + 1) * step + horizon - step;
BEGIN
    IF coalesce(parts[n], 0) + cost > units THEN
        RETURN NULL;
    ELSIF parts IS NULL THEN
        RETURN ARRAY[lapse, cost, cost];
    ELSIF parts[1] < lapse THEN
        RETURN ARRAY[lapse, cost] || parts[:n - 1] || (parts[n] + cost);
    END IF;
    parts[2] := parts[2] + cost;
    parts[n] := parts[n] + cost;
    RETURN parts;
END $$;

CREATE OR REPLACE FUNCTION resilience_admit(
    algorithm text, state bigint[], at bigint, cost bigint, units bigint, step bigint, horizon bigint
) RETURNS bigint[]
LANGUAGE sql IMMUTABLE AS $$
    -- The state after taking `cost` units, or null if they do not fit.
    SELECT CASE algorithm
        WHEN 'gcra' THEN
            CASE WHEN greatest(state[1], at) + cost * step - horizon <= at
                 THEN ARRAY[greatest(state[1], at) + cost * step] END
        WHEN 'fixed-window' THEN
            CASE WHEN state[1] > at
                 THEN CASE WHEN state[2] + cost <= units THEN ARRAY[state[1], state[2] + cost] END
                 WHEN cost <= units THEN ARRAY[at + horizon, cost] END
        WHEN 'sliding-log' THEN
            CASE WHEN cost <= units AND (state[units - cost + 1] > at) IS NOT TRUE
                 THEN array_fill(greatest(state[1], at + horizon), ARRAY[cost::int]) || state[:units - cost]
            END
        ELSE resilience_admit_counts(state, at, cost, units, step, horizon)
    END
$$;

CREATE OR REPLACE FUNCTION resilience_without(
    algorithm text, state bigint[], at bigint, cost bigint, step bigint, receipt bigint
) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE AS $$
-- The state without `cost` units of `receipt`, which is when they lapse, or with gcra would be whole again.
DECLARE
    place int := array_position(state, receipt);
    taken int;
BEGIN
    IF algorithm = 'gcra' THEN
        RETURN ARRAY[state[1] - greatest(0, least(cost * step, receipt - at))];
    ELSIF place IS NULL THEN
        RETURN state;
    ELSIF algorithm = 'fixed-window' THEN
        RETURN CASE WHEN state[2] > cost THEN ARRAY[state[1], state[2] - cost] ELSE '{0,0}' END;
    ELSIF algorithm = 'sliding-log' THEN
        taken := least(cost, cardinality(array_positions(state, receipt)));
        state := state[:place - 1] || state[place + taken:];
        RETURN CASE WHEN cardinality(state) > 0 THEN state ELSE '{0}' END;
    END IF;
    taken := least(cost, state[place + 1]);
    state[place + 1] := state[place + 1] - taken;
    state[cardinality(state)] := state[cardinality(state)] - taken;
    IF state[place + 1] = 0 THEN
        state := state[:place - 1] || state[place + 2:];
    END IF;
    RETURN CASE WHEN cardinality(state) > 1 THEN state ELSE '{0,0,0}' END;
END $$;

CREATE OR REPLACE FUNCTION resilience_not_after(algorithm text, state bigint[], latest bigint)
RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE AS $$
-- The state with no instant after `latest`: for a clock that was set back.
DECLARE
    i int := 1;
BEGIN
    WHILE state[i] > latest LOOP
        state[i] := latest;
        i := i + CASE algorithm WHEN 'sliding-log' THEN 1 WHEN 'sliding-counts' THEN 2 ELSE 99 END;
    END LOOP;
    RETURN state;
END $$;

CREATE OR REPLACE FUNCTION resilience_with_token(tokens bytea, token bytea) RETURNS bytea
LANGUAGE sql IMMUTABLE AS $$
    -- The last 16.
    SELECT substr(tokens || token, greatest(1, length(tokens) + 8 - 127))
$$;

-- What the store calls. Each is one statement of one transaction of its own.

CREATE OR REPLACE FUNCTION resilience_set_back(
    of_scope bytea, of_key bytea, algorithm text, horizon bigint
) RETURNS void
LANGUAGE sql VOLATILE SET enable_seqscan = off AS $$
    UPDATE resilience_quota
    SET state = resilience_not_after(algorithm, state, resilience_now() + horizon)
    WHERE scope = of_scope AND key = of_key AND state[1] > resilience_now() + horizon
$$;

CREATE OR REPLACE FUNCTION resilience_remove_lapsed() RETURNS void
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off AS $$
DECLARE
    pages bigint := pg_relation_size('resilience_quota') / current_setting('block_size')::int;
    page bigint := floor(random() * pages);
BEGIN
    DELETE FROM resilience_quota WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM resilience_quota
        WHERE ctid >= format('(%s,0)', page)::tid AND ctid < format('(%s,0)', page + 1)::tid
            AND state[1] <= resilience_now()
        FOR UPDATE SKIP LOCKED
    ));
END $$;
"""

_TAKE: Final[LiteralString] = """
CREATE OR REPLACE FUNCTION resilience_take_NAME(
    of_scope bytea, of_key bytea, units bigint, step bigint, horizon bigint,
    cost bigint, token bytea, patience text
) RETURNS bigint[]
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off AS $$
-- One function for each algorithm, so that the planner leaves only its own branch of `resilience_admit`.
DECLARE
    at bigint;
    state bigint[];
    known boolean;
BEGIN
    PERFORM set_config('lock_timeout', patience, true);
    LOOP
        at := resilience_now();
        -- Where somebody else has just changed the row, the conditions are looked at anew.
        UPDATE resilience_quota q
        SET state = resilience_admit('ALGORITHM', q.state, at, cost, units, step, horizon),
            tokens = resilience_with_token(q.tokens, token)
        WHERE q.scope = of_scope AND q.key = of_key
            AND resilience_admit('ALGORITHM', q.state, at, cost, units, step, horizon) IS NOT NULL
            AND position(token IN q.tokens) = 0
        RETURNING q.state INTO state;
        IF FOUND THEN
            RETURN ARRAY[1, at] || state;
        END IF;
        SELECT q.state, position(token IN q.tokens) > 0 INTO state, known
        FROM resilience_quota q WHERE q.scope = of_scope AND q.key = of_key;
        IF NOT FOUND THEN
            state := resilience_admit('ALGORITHM', NULL, at, cost, units, step, horizon);
            IF state IS NULL THEN
                RETURN ARRAY[0, at];
            END IF;
            INSERT INTO resilience_quota VALUES (of_scope, of_key, state, token) ON CONFLICT DO NOTHING;
            IF FOUND THEN
                IF random() < 0.125 THEN
                    PERFORM resilience_remove_lapsed();
                END IF;
                RETURN ARRAY[1, at] || state;
            END IF;
        ELSIF known THEN
            RETURN ARRAY[1, at] || state;  -- taken by this very request, whose reply was lost
        ELSIF state[1] > resilience_now() + horizon THEN
            PERFORM resilience_set_back(of_scope, of_key, 'ALGORITHM', horizon);
        ELSIF resilience_admit('ALGORITHM', state, at, cost, units, step, horizon) IS NULL THEN
            RETURN ARRAY[0, at] || state;
        END IF;
    END LOOP;  -- it was changed meanwhile
END $$;
"""

_OTHERS: Final[LiteralString] = """
CREATE OR REPLACE FUNCTION resilience_take_all(
    of_scopes bytea[], of_keys bytea[], algorithms text[], units bigint[], steps bigint[], horizons bigint[],
    costs bigint[], token bytea, patience text
) RETURNS SETOF bigint[]
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off AS $$
DECLARE
    n int := cardinality(of_keys);
    at bigint;
    after bigint[];
    seen resilience_quota[];
    one resilience_quota;
    taken bigint;
    fits boolean := true;
    known boolean := false;
    newcomers boolean := false;
BEGIN
    PERFORM set_config('lock_timeout', patience, true);
    at := resilience_now();
    FOR i IN 1..n LOOP  -- as it is: a refusal locks nothing
        SELECT * INTO one FROM resilience_quota q WHERE q.scope = of_scopes[i] AND q.key = of_keys[i];
        IF one.state[1] > resilience_now() + horizons[i] THEN
            PERFORM resilience_set_back(of_scopes[i], of_keys[i], algorithms[i], horizons[i]);
            SELECT * INTO one FROM resilience_quota q WHERE q.scope = of_scopes[i] AND q.key = of_keys[i];
        END IF;
        known := known OR (i = 1 AND coalesce(position(token IN one.tokens) > 0, false));
        seen[i] := one;
        fits := fits AND resilience_admit(
            algorithms[i], one.state, at, costs[i], units[i], steps[i], horizons[i]) IS NOT NULL;
    END LOOP;
    IF fits AND NOT known THEN
        at := resilience_now();
        FOR i IN 1..n LOOP  -- once more, and from here on nobody changes them
            LOOP
                SELECT * INTO one FROM resilience_quota q
                WHERE q.scope = of_scopes[i] AND q.key = of_keys[i] FOR NO KEY UPDATE;
                EXIT WHEN FOUND;
                INSERT INTO resilience_quota VALUES (of_scopes[i], of_keys[i], '{0,0,0}', '')
                ON CONFLICT DO NOTHING;
                newcomers := newcomers OR FOUND;
            END LOOP;
            known := known OR (i = 1 AND position(token IN one.tokens) > 0);
            seen[i] := one;
            fits := fits AND resilience_admit(
                algorithms[i], one.state, at, costs[i], units[i], steps[i], horizons[i]) IS NOT NULL;
        END LOOP;
    END IF;
    FOR i IN 1..n LOOP
        one := seen[i];
        after := resilience_admit(algorithms[i], one.state, at, costs[i], units[i], steps[i], horizons[i]);
        taken := (known OR after IS NOT NULL)::int;
        IF fits AND NOT known THEN
            UPDATE resilience_quota q
            SET state = after,
                tokens = CASE i WHEN 1 THEN resilience_with_token(q.tokens, token) ELSE q.tokens END
            WHERE q.scope = of_scopes[i] AND q.key = of_keys[i];
            RETURN NEXT ARRAY[taken, at] || after;
        ELSE
            RETURN NEXT ARRAY[taken, at] || one.state;
        END IF;
    END LOOP;
    IF newcomers AND random() < 0.125 THEN
        PERFORM resilience_remove_lapsed();  -- at the end: it locks rows in no order, and waits for none
    END IF;
END $$;

CREATE OR REPLACE FUNCTION resilience_peek(
    of_scopes bytea[], of_keys bytea[], algorithms text[], horizons bigint[]
) RETURNS SETOF bigint[]
LANGUAGE plpgsql STABLE SET enable_seqscan = off AS $$
DECLARE
    at bigint := resilience_now();
    state bigint[];
BEGIN
    FOR i IN 1..cardinality(of_keys) LOOP
        SELECT resilience_not_after(algorithms[i], q.state, at + horizons[i]) INTO state
        FROM resilience_quota q WHERE q.scope = of_scopes[i] AND q.key = of_keys[i];
        RETURN NEXT at || state;
    END LOOP;
END $$;

CREATE OR REPLACE FUNCTION resilience_refund(
    of_scopes bytea[], of_keys bytea[], algorithms text[], steps bigint[],
    costs bigint[], receipts bigint[], token bytea, patience text
) RETURNS void
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off AS $$
BEGIN
    PERFORM set_config('lock_timeout', patience, true);
    FOR i IN 1..cardinality(of_keys) LOOP
        UPDATE resilience_quota q
        SET state = resilience_without(
                algorithms[i], q.state, resilience_now(), costs[i], steps[i], receipts[i]),
            tokens = resilience_with_token(q.tokens, token)
        WHERE q.scope = of_scopes[i] AND q.key = of_keys[i] AND position(token IN q.tokens) = 0;
    END LOOP;
END $$;

CREATE OR REPLACE FUNCTION resilience_reset(of_scopes bytea[], of_key bytea, patience text) RETURNS void
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off AS $$
BEGIN
    PERFORM set_config('lock_timeout', patience, true);
    FOR i IN 1..cardinality(of_scopes) LOOP
        DELETE FROM resilience_quota WHERE scope = of_scopes[i] AND key = of_key;
    END LOOP;
END $$;

CREATE OR REPLACE FUNCTION resilience_holding(of_scope bytea, most int, shown int)
RETURNS TABLE (size bigint, at bigint, key bytea, state bigint[])
LANGUAGE sql STABLE SET enable_seqscan = off AS $$
    WITH held AS MATERIALIZED (
        SELECT q.key, q.state FROM resilience_quota q WHERE q.scope = of_scope LIMIT most
    ), counting AS (
        SELECT held.key, held.state FROM held WHERE held.state[1] > resilience_now()
    )
    SELECT (SELECT count(*) FROM counting), resilience_now(), counting.key, counting.state
    FROM counting LIMIT shown
$$;
"""

ALGORITHMS: Final[tuple[LiteralString, ...]] = ("gcra", "fixed-window", "sliding-log", "sliding-counts")

_FUNCTIONS: Final[LiteralString] = "".join(
    [
        _ARITHMETIC,
        *[_TAKE.replace("ALGORITHM", each).replace("NAME", each.replace("-", "_")) for each in ALGORITHMS],
        _OTHERS,
    ]
)

SCHEMA: Final[LiteralString] = _TABLE.replace("CREATE TABLE", "CREATE UNLOGGED TABLE") + _FUNCTIONS
"""The statements that make all of it in the first schema of the `search_path`, for one's own migrations.

They may be run again, and by a newer version of this library; the counts stay.
"""


def create_schema(database: Connection[Any] | str, *, logged: bool = False) -> None:
    """Make the table and the functions of `PostgresStore` where they are missing, in one transaction.

    Args:
        database: A connection string; or a connection, whose transaction is left open where it is in one.
            Its user may create in the first schema of the `search_path`.
        logged: Whether counts survive a crash of the server, and reach its replicas. Each admission then
            waits for the server's disk. A table that is there already stays as it is:
            `ALTER TABLE resilience_quota SET LOGGED` changes it.

    Raises:
        psycopg.Error: That failed.

    Several processes may do it at once. On an `AsyncConnection`, execute `SCHEMA` itself.
    """
    if isinstance(database, str):
        with psycopg.connect(database) as connection:
            create_schema(connection, logged=logged)
        return
    with database.transaction():
        # To replace a function fails while somebody else replaces it.
        database.execute("SELECT pg_advisory_xact_lock(hashtextextended('resilience_quota', 0))")
        database.execute(_TABLE + _FUNCTIONS if logged else SCHEMA)
