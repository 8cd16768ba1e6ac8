"""What clients send, and what they get: the shapes of the HTTP interface, whatever framework speaks it.

Only what is named here is taken from a request; anything else in it is ignored, so no field can be set
that is not meant to be.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, overload

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Shown(BaseModel):
    """What an answer shows; its names are in camelCase there."""

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, frozen=True)

    def body(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return self.model_dump(by_alias=True)


class Message(Shown):
    """What has been done, for people to read."""

    message: str


@overload
def timestamp(unix_seconds: float) -> str: ...
@overload
def timestamp(unix_seconds: None) -> None: ...
@overload
def timestamp(unix_seconds: float | None) -> str | None: ...


def timestamp(unix_seconds: float | None) -> str | None:
    """Return an instant as ISO 8601 has it, in UTC.

    Example:
        >>> timestamp(1736937000.0)
        '2025-01-15T10:30:00Z'
    """
    if unix_seconds is None:
        return None
    return datetime.fromtimestamp(unix_seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
