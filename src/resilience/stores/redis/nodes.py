"""Which server to ask, where there are several: the nodes of a Cluster.

Nobody has to say that it is one. A server that is part of a Cluster answers MOVED for a slot that another
holds, and CROSSSLOT for keys in several slots; from then on keys are looked up here. `None` stands for the
server that was named by the user.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from resilience.stores.redis.codec import slot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resilience.stores.redis.source import Address
    from resilience.stores.redis.wire import ErrorReply


class Redirection(NamedTuple):
    """Where the server said to ask."""

    address: Address
    asking: bool
    """For this once: the slot is on its way there."""


class Nodes:
    """What is known of a Cluster.

    Threads may share it: each change is one operation on a dict, and so is to make a `list` of it.
    """

    def __init__(self) -> None:
        self.clustered = False
        self._holders: dict[int, Address] = {}
        self._others: dict[Address, None] = {}
        self._first: Address | None = None
        """Whom to ask about what is not known yet; None while the server that was named is well."""

    def address(self, key: bytes) -> Address | None:
        """Return whom to ask about `key`."""
        return self._holders.get(slot(key), self._first) if self.clustered else None

    def groups(self, keys: Sequence[bytes]) -> list[list[int]]:
        """Return the indices of `keys`, those in one slot together; of a single server, all together."""
        if not self.clustered:
            return [list(range(len(keys)))]
        by_slot: dict[int, list[int]] = {}
        for index, key in enumerate(keys):
            by_slot.setdefault(slot(key), []).append(index)
        return list(by_slot.values())

    def redirection(self, reply: ErrorReply) -> Redirection | None:
        """Return where to ask instead, and remember it, if that is what `reply` says."""
        if reply.code not in {"MOVED", "ASK"}:
            return None
        _, number, place = reply.text.split()
        host, _, port = place.rpartition(":")
        address = (host.strip("[]"), int(port))
        self.clustered = True
        self._others[address] = None
        if reply.code == "MOVED":
            self._holders[int(number)] = address
        return Redirection(address, reply.code == "ASK")

    def learn(self, ranges: Sequence[Any]) -> list[Address]:
        """Take over what CLUSTER SLOTS answered; return the nodes that hold slots."""
        holders: dict[Address, None] = {}
        for first, last, primary, *_ in ranges:
            if not primary[0]:  # a node that does not know its own name, as before its first meeting
                continue
            address = (primary[0].decode(), primary[1])
            holders[address] = None
            self._holders.update(dict.fromkeys(range(first, last + 1), address))
        self._others.update(holders)
        return list(holders)

    def lost(self, address: Address | None) -> None:
        """Ask others about what was at a server that does not answer."""
        if not self.clustered:
            return
        self._others.pop(address, None)  # type: ignore[arg-type]  # None is not among them
        for number, holder in list(self._holders.items()):
            if holder == address:
                self._holders.pop(number, None)
        if address == self._first:
            self._first = next(iter(list(self._others)), None)
