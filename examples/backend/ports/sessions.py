"""The library's sessions, ended together with the connections that belong to them.

A WebSocket, or a stream of events, was let in by a session, and outlives the request. Whoever ends
a session must end those too, so accounts get the sessions in this form: what ends one goes by the janitor.
Those in other processes are closed by their janitors, which look now and then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from examples.backend.kit import settled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from resilience.janitor.sessions import Session


class ClosingSessions:
    """Sessions that take their connections along.

    Args:
        store: One of the library's session stores; its methods are awaited.
        janitor: Cleans it, and has the registry of connections.
    """

    def __init__(self, store: Any, janitor: Any) -> None:
        self._store = store
        self._janitor = janitor

    async def create(self, user_id: str, data: Mapping[str, Any] | None = None) -> str:
        """Begin a session; return its token, the only copy there is."""
        token: str = await self._store.create(user_id, data)
        return token

    async def renew(self, token: str) -> Session | None:
        """Return the session if it is alive, and put its idle timeout off."""
        session: Session | None = await self._store.renew(token)
        return session

    async def of_user(self, user_id: str, limit: int = 100) -> list[Session]:
        """Return the sessions of a user that are alive, the newest first."""
        sessions: list[Session] = await self._store.of_user(user_id, limit)
        return sessions

    async def ended(self, session_ids: Sequence[str]) -> list[str]:
        """Return those of the ids whose session is not alive."""
        ended: list[str] = await self._store.ended(session_ids)
        return ended

    async def delete(self, session_id: str) -> bool:
        """End one session and its connections; return whether it was there."""
        return await settled(self._janitor.cleanup_session(session_id))

    async def delete_user(self, user_id: str) -> int:
        """End all sessions of a user and their connections; return how many."""
        return await settled(self._janitor.cleanup_user_sessions(user_id))
