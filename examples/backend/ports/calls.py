"""What transactions do to a call's rows: the call itself, the job beside it, and what is told of it live.

These are functions of a connection, to be put together into transactions; each leaves the rows in agreement.
A call's id is looked up among the calls of all tenants, so the transactions run with `tenant=EVERY` and
compare the tenant themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import delete, exists, select, update

from examples.backend.domain.recordings import Call, Entry, Recording, Sound
from examples.backend.ports.database import insert
from examples.backend.ports.live import announce
from examples.backend.ports.tables import call_events, calls, jobs, numbers

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

GIVEN_UP: Final = ("missing", "failed")
OVER: Final = ("stored", "deleted")
"""States in which nothing more is brought."""
PERSONAL: Final = (
    "status", "from_number", "to_number", "direction", "started_at", "ended_at", "duration", "object_key",
    "content_type", "size", "sha256", "stored_at", "failure",
)  # fmt: skip
"""What of a call is not kept once it is deleted."""


def expect(
    db: Connection, call_sid: str, tenant: str, now: float, *, not_before: float, again: bool
) -> tuple[bool, bool]:
    """Have the workers bring a call's recording, unless it is there, deleted, or another tenant's.

    Args:
        db: Inside a transaction.
        call_sid: Which call. It becomes the tenant's if it is nobody's.
        tenant: Whose.
        now: Unix seconds.
        not_before: When to look for it, at the earliest.
        again: Whether to look anew for one that was given up.

    Returns:
        Whether the call is the tenant's, and whether it was not known before.
    """
    fresh = {"call_sid": call_sid, "tenant_id": tenant, "state": "expected", "created_at": now}
    entering = insert(db, calls).values(**fresh, changed_at=now).on_conflict_do_nothing()
    is_new = db.execute(entering).rowcount == 1
    call = db.execute(
        select(calls.c.tenant_id, calls.c.state).where(calls.c.call_sid == call_sid).with_for_update()
    ).one()
    if call.tenant_id != tenant:
        return False, False
    if is_new:
        tell(db, call_sid, tenant, "expected", now)
    elif call.state in OVER or (call.state in GIVEN_UP and not again):
        return True, False
    elif call.state in GIVEN_UP:
        change(db, call_sid, tenant, "expected", now, failure=None)
    job = insert(db, jobs).values(call_sid=call_sid, tenant_id=tenant, not_before=not_before, created_at=now)
    # One that waits because something has failed goes on waiting: it is no use to hurry.
    sooner = (jobs.c.attempts == 0) & (jobs.c.not_before > not_before)
    db.execute(
        job.on_conflict_do_update(
            index_elements=[jobs.c.call_sid], set_={"not_before": not_before}, where=sooner
        )
    )
    return True, is_new


def change(db: Connection, call_sid: str, tenant: str, state: str, now: float, **values: Any) -> None:
    """Change a call's state, and tell of it if that is news."""
    was = db.execute(select(calls.c.state).where(calls.c.call_sid == call_sid)).scalar_one()
    changing = update(calls).where(calls.c.call_sid == call_sid)
    db.execute(changing.values(state=state, changed_at=now, **values))
    if state != was:
        told = {name: values[name] for name in ("size",) if name in values}
        tell(db, call_sid, tenant, state, now, **told)


def tell(db: Connection, call_sid: str, tenant: str, state: str, now: float, **more: Any) -> None:
    """Tell those who listen in the tenant what has become of a call."""
    body = {"callSid": call_sid, "state": state, **more}
    announce(db, tenant_id=tenant, at=now, kind="recording", body=body)


def store(db: Connection, recording: Recording, tenant: str) -> None:
    """Enter a recording that is in the store; whoever calls this has found that the call is to have it."""
    call, sound, now = recording.call, recording.sound, recording.stored_at
    change(
        db, call.sid, tenant, "stored", now,
        **details_of(call),
        object_key=recording.object_key,
        content_type=sound.content_type,
        size=sound.size,
        sha256=sound.sha256,
        stored_at=recording.stored_at,
        failure=None,
    )  # fmt: skip
    db.execute(delete(jobs).where(jobs.c.call_sid == call.sid))
    told_by_webhook = select(
        exists().where(call_events.c.tenant_id == tenant, call_events.c.call_sid == call.sid)
    )
    if call.line and db.execute(told_by_webhook).scalar_one():
        showing = insert(db, numbers).values(number=call.line, tenant_id=tenant, shown_at=now)
        shown = {"tenant_id": tenant, "shown_at": now}
        db.execute(showing.on_conflict_do_update(index_elements=[numbers.c.number], set_=shown))


def remove(db: Connection, call_sid: str, tenant: str, now: float) -> bool:
    """Leave of a call only that it was deleted, and have its object removed; return whether it was there."""
    call = db.execute(
        select(calls.c.tenant_id, calls.c.state).where(calls.c.call_sid == call_sid).with_for_update()
    ).one_or_none()
    if call is None or call.tenant_id != tenant:
        return False
    if call.state != "deleted":
        change(db, call_sid, tenant, "deleted", now, **dict.fromkeys(PERSONAL))
        db.execute(delete(jobs).where(jobs.c.call_sid == call_sid))  # whoever is at it has lost it
        db.execute(
            insert(db, jobs).values(call_sid=call_sid, tenant_id=tenant, not_before=now, created_at=now)
        )
    return True


def details_of(call: Call) -> dict[str, Any]:
    """Return the columns for what the provider tells of a call."""
    return {
        "status": call.status,
        "from_number": call.from_number,
        "to_number": call.to_number,
        "direction": call.direction,
        "started_at": call.started_at,
        "ended_at": call.ended_at,
        "duration": call.duration,
    }


def entry_of(row: Row[Any]) -> Entry:
    """Return a row of `calls` as the domain has it."""
    return Entry(
        call_sid=row.call_sid,
        tenant=row.tenant_id,
        state=row.state,
        status=row.status,
        from_number=row.from_number,
        to_number=row.to_number,
        direction=row.direction,
        started_at=row.started_at,
        duration=row.duration,
        content_type=row.content_type,
        size=row.size,
        failure=row.failure,
        created_at=row.created_at,
        recording=_recording_of(row) if row.state == "stored" else None,
    )


def _recording_of(row: Row[Any]) -> Recording:
    return Recording(
        call=Call(
            sid=row.call_sid,
            status=row.status,
            from_number=row.from_number,
            to_number=row.to_number,
            direction=row.direction,
            started_at=row.started_at,
            ended_at=row.ended_at,
            duration=row.duration,
            recording_url=None,
        ),
        sound=Sound(content_type=row.content_type, size=row.size, sha256=row.sha256),
        object_key=row.object_key,
        stored_at=row.stored_at,
    )
