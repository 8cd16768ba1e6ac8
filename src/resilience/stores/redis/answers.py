"""What a server's error answers mean for a limiter, and what to do about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from resilience.stores import StoreUnavailable
from resilience.stores.engine import Unable

if TYPE_CHECKING:
    from resilience.stores.redis.wire import ErrorReply

RIGHTS: Final = "+evalsha +script|load +get +getrange +set +del +time +scan +info"
"""What a user of the server must be allowed, for the keys that begin with the store's prefix."""

_FOREIGN: Final = (
    "a key of this limiter holds what no limiter wrote: give the store a prefix that nobody else uses, "
    "or delete the key"
)
_RIGHTS: Final = f"allow it by: ACL SETUSER … {RIGHTS} ~PREFIX:*, or name a user who may"
_ANSWERS: Final = {
    # Found anywhere in the answer: older servers put the reason behind "ERR Error running script".
    "WRONGTYPE": _FOREIGN,
    "FOREIGN": _FOREIGN,
    "NOPERM": _RIGHTS,
    "can't run this command": _RIGHTS,
    "can't access": _RIGHTS,
    "NOAUTH": "it asks for a password: give one in the URL, as in redis://user:password@host",
    "WRONGPASS": "it knows no such user and password: look at the URL, and at ACL LIST",
    "without any password configured": "it has no password set: leave it out of the URL",
    "OOM": "it has no room for new counts: raise its maxmemory, or remove what else it holds",
    "MISCONF": "it cannot save to its disk, and so refuses writes: look at its log",
    "unknown command": (
        "it cannot run scripts: it must be Redis 6.2 or Valkey 7.2 at least, with EVALSHA not renamed"
    ),
    "DB index is out of range": "it has no database of that number: look at the URL",
    "NOSCRIPT": "it forgets scripts as soon as they are loaded: look for a proxy in between",
}
_UNABLE: Final = {
    "READONLY": "it is a replica: name the primary, or wait for the failover to end",
    "LOADING": "it is starting, and reads its data",
    "MASTERDOWN": "it is a replica that has lost its primary",
    "NOREPLICAS": "it has too few replicas to accept writes",
    "CLUSTERDOWN": "its Cluster is not whole",
    "TRYAGAIN": "its Cluster is moving these keys from node to node",
    "BUSY": "somebody's script has been running for too long",
    "max number of clients": "it has as many clients as it accepts: raise its maxclients, or use fewer",
}
"""Answers of a server that is not able at the moment, or not any more."""


def failure(reply: ErrorReply, server: str, key: bytes | None = None) -> StoreUnavailable:
    """Return what to raise for an error answer.

    Args:
        reply: The answer.
        server: What to call the server.
        key: The name of the key that it was about.
    """
    for sign, advice in _UNABLE.items():
        if sign in reply.text:
            return Unable(f"Redis at {server} is not able to decide: {advice} ({reply.text})")
    about = "" if key is None else f" about the key {key!r}"
    for sign, advice in _ANSWERS.items():
        if sign in reply.text:
            return StoreUnavailable(f"Redis at {server} answered by an error{about}: {advice} ({reply.text})")
    return StoreUnavailable(f"Redis at {server} answered by an error{about}: {reply.text}")
