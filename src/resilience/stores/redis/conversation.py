"""What is said to Redis and in which order, without any I/O: the same for threads and for event loops.

Each conversation is a generator. It yields an `Ask` and is sent the replies; what it returns is the
answer. Rules:
    - A decision about one key, or about several of one server, is one question.
    - NOSCRIPT means that nothing was run: the script is loaded and run in one more question.
    - MOVED and ASK are followed, a few times. CROSSSLOT tells that this is a Cluster: from then on, keys are
      asked about slot by slot.
    - Charges in several slots are taken slot by slot. Where one is refused, what was taken before it is
      given back: nothing stays charged, but for that moment others may be refused for it. Each step can be
      repeated with the same token, so a reply that was lost on the way doubles nothing.
    - While a slot moves from node to node, only questions about one key are answered. One charge is then
      taken without a token: should just that reply be lost, it may be charged twice. Several are not taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from resilience._core.counting import Charge
from resilience.stores import Entry, Holding, StoreUnavailable
from resilience.stores.engine import Unable
from resilience.stores.redis import scripts
from resilience.stores.redis.answers import failure
from resilience.stores.redis.codec import load
from resilience.stores.redis.nodes import Nodes
from resilience.stores.redis.wire import ErrorReply, packed

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from resilience._core.counting import Counter
    from resilience._core.quota import Decision
    from resilience.stores.redis.codec import Codec, Request
    from resilience.stores.redis.source import Address

Answer = TypeVar("Answer")

_STEPS: Final = 6
"""Questions at most for one request: a Cluster that is moving sends one to and fro."""
_KEYS_A_SCAN: Final = 1000
_SCANS: Final = 100
"""Scans at most, one after the other: a look at the first 100,000 keys of a server that has more."""
_KEYS_A_PEEK: Final = 100


class Ask(NamedTuple):
    """Commands to send to one server, and how many replies there will be."""

    address: Address | None
    commands: bytes
    replies: int = 1


LOOK: Final = Ask(None, packed(b"INFO", b"memory") + packed(b"INFO", b"cluster"), 2)
"""What is asked of a server at the first connection."""

if TYPE_CHECKING:
    Conversation = Generator[Ask, list[Any], Answer]


class _Scattered(Exception):  # noqa: N818 - it says what is the case, and only this module sees it
    """The keys of one request lie in several slots; nothing was done."""


class _Moving(Unable):
    """A slot is on its way to another node, which takes only questions about one key; nothing was done."""


class Conversations:
    """All that a store asks, for one server or the nodes of one Cluster; threads may share it."""

    def __init__(self, codec: Codec, server: str) -> None:
        self.nodes = Nodes()
        self._codec = codec
        self._server = server

    def question(self, charges: Sequence[Charge], token: bytes, seconds: float) -> bytes | None:
        """Return the command that `take` begins with where one server answers for all; the hot path.

        Where it is answered by bytes, `answer` says what they mean, and there is nothing more to say.
        """
        if self.nodes.clustered:
            return None
        return self._codec.take(charges, token, _life(seconds)).command

    def answer(self, charges: Sequence[Charge], reply: bytes) -> list[Decision]:
        """Return the decisions that `question` was answered with."""
        return self._codec.taken(charges, reply)

    def take(
        self, charges: Sequence[Charge], token: bytes, seconds: float, *, asked: bool = False
    ) -> Conversation[list[Decision]]:
        """Take all charges if all fit, or none; a second one with `token` takes nothing within `seconds`.

        Where `question` was asked already, the first replies that this is sent are those.
        """
        life = _life(seconds)
        if asked or len(charges) == 1 or not self.nodes.clustered:
            try:
                reply = yield from self._run(self._codec.take(charges, token, life))
            except _Scattered:
                pass
            except _Moving:
                if len(charges) > 1:
                    raise
                reply = yield from self._run(self._codec.take_without_token(charges[0]))
                return self._codec.taken(charges, reply)
            else:
                return self._codec.taken(charges, reply)
        return (yield from self._take_apart(charges, token, life))

    def _take_apart(self, charges: Sequence[Charge], token: bytes, life: int) -> Conversation[list[Decision]]:
        """Take slot by slot; undo what was taken as soon as one refuses, or cannot decide."""
        decisions: dict[int, Decision] = {}
        for group in self.nodes.groups(self._names(charges)):
            part = [charges[index] for index in group]
            try:
                reply = yield from self._run(self._codec.take(part, token, life))
            except StoreUnavailable:
                yield from self._undo(charges, decisions, token)
                raise
            taken = self._codec.taken(part, reply)
            if not all(taken):
                yield from self._undo(charges, decisions, token)
                decisions = dict(enumerate((yield from self.peek(charges))))
                decisions.update(zip(group, taken, strict=True))
                break
            decisions.update(zip(group, taken, strict=True))
        return [decisions[index] for index in range(len(charges))]

    def _undo(
        self, charges: Sequence[Charge], taken: dict[int, Decision], token: bytes
    ) -> Conversation[None]:
        done = list(taken)

        def request(group: Sequence[int]) -> Request:
            indices = [done[at] for at in group]
            return self._codec.undo(
                [charges[index] for index in indices], [taken[index].receipt for index in indices], token
            )

        yield from self._by_slot(self._names([charges[index] for index in done]), request)

    def peek(self, charges: Sequence[Charge]) -> Conversation[list[Decision]]:
        """Return the decision that `take` would come to about each."""
        decisions: dict[int, Decision] = {}

        def request(group: Sequence[int]) -> Request:
            return self._codec.peek([(charges[index].counter, charges[index].key) for index in group])

        for group, reply in (yield from self._by_slot(self._names(charges), request)):
            foreseen = self._codec.foreseen([charges[index] for index in group], reply)
            decisions.update(zip(group, foreseen, strict=True))
        return [decisions[index] for index in range(len(charges))]

    def refund(
        self, charges: Sequence[Charge], receipts: Sequence[int], token: bytes, seconds: float
    ) -> Conversation[None]:
        """Give back charges that were taken, once for each token."""

        def request(group: Sequence[int]) -> Request:
            part = [charges[index] for index in group]
            return self._codec.refund(part, [receipts[index] for index in group], token, _life(seconds))

        yield from self._by_slot(self._names(charges), request)

    def reset(self, counters: Sequence[Counter], key: str | bytes) -> Conversation[None]:
        """Forget what counts for `key`, which lies in one slot whatever counts it."""
        names = [self._codec.form(counter).name(key) for counter in counters]
        yield from self._ask(names[0], packed(b"DEL", *names))

    def holding(
        self, counters: Sequence[Counter], limit: int, is_time_up: Callable[[], bool]
    ) -> Conversation[Holding]:
        """Return what is held, as far as a bounded number of short scans sees it.

        Args:
            counters: What keys are counted under.
            limit: How many entries to return at most.
            is_time_up: Whether to leave it at what was seen, so that there is time to look at the entries.
        """
        places: list[tuple[Counter, str | bytes]] = []
        size = 0
        for counter in counters:
            names = yield from self._scan(self._codec.form(counter).pattern, is_time_up)
            size += len(names)
            key = self._codec.form(counter).key
            places += [(counter, key(name)) for name in names[: limit - len(places)]]
        entries: list[Entry] = []
        for at in range(0, len(places), _KEYS_A_PEEK):
            charges = [Charge(counter, key) for counter, key in places[at : at + _KEYS_A_PEEK]]
            for charge, decision in zip(charges, (yield from self.peek(charges)), strict=True):
                if decision.reset_after > 0:
                    entries.append(
                        Entry(charge.counter, charge.key, decision.remaining, decision.reset_after)
                    )
        return Holding(size, tuple(entries))

    def _scan(self, pattern: bytes, is_time_up: Callable[[], bool]) -> Conversation[list[bytes]]:
        """Return the names that match, each once; those of a Cluster, node by node."""
        addresses: list[Address | None] = [None]
        if self.nodes.clustered:
            ranges = yield from self._ask(b"", packed(b"CLUSTER", b"SLOTS"))
            addresses = list(self.nodes.learn(ranges)) or addresses
        found: dict[bytes, None] = {}
        for address in addresses:
            cursor = b"0"
            for _ in range(_SCANS):
                command = packed(b"SCAN", cursor, b"MATCH", pattern, b"COUNT", b"%d" % _KEYS_A_SCAN)
                [reply] = yield Ask(address, command)
                if isinstance(reply, ErrorReply):
                    raise failure(reply, self._server)
                cursor, names = reply
                found.update(dict.fromkeys(names))
                if cursor == b"0" or is_time_up():
                    break
        return list(found)

    def see(self, memory: Any, cluster: Any) -> None:
        """Note what `LOOK` was answered: whether this is a Cluster; say in the log what is wrong with it."""
        if isinstance(cluster, bytes) and b"cluster_enabled:1" in cluster:
            self.nodes.clustered = True
        told = {} if isinstance(memory, ErrorReply) else _lines(memory)
        policy = told.get("maxmemory_policy", "")
        if policy == "noeviction" or told.get("maxmemory") == "0":
            return
        import logging  # noqa: PLC0415 - loaded only when something is wrong

        logging.getLogger("resilience").warning(
            "Redis at %s %s: a flood of keys would make it forget who is refused. Limiters need a server "
            "whose maxmemory-policy is noeviction",
            self._server,
            f"drops keys when its memory is full ({policy})"
            if policy
            else "does not tell its maxmemory-policy",
        )

    def load(self) -> Conversation[None]:
        """Make all scripts known, which shows whether that is allowed."""
        commands = [load(script) for script in scripts.EVERY]
        for reply in (yield Ask(None, b"".join(commands), len(commands))):
            if isinstance(reply, ErrorReply):
                raise failure(reply, self._server)

    def _names(self, charges: Sequence[Charge]) -> list[bytes]:
        return [self._codec.form(charge.counter).name(charge.key) for charge in charges]

    def _by_slot(
        self, names: Sequence[bytes], request: Callable[[Sequence[int]], Request]
    ) -> Conversation[list[tuple[list[int], Any]]]:
        """Run a request for those of `names` that lie together; return the indices and the reply of each."""
        answers: list[tuple[list[int], Any]] = []
        try:
            for group in self.nodes.groups(names):
                reply = yield from self._run(request(group))
                answers.append((group, reply))
        except _Scattered:  # the only group there was: it was not known that this is a Cluster
            return (yield from self._by_slot(names, request))
        return answers

    def _run(self, request: Request) -> Conversation[Any]:
        """Run a script, which is loaded where the server does not have it."""
        return self._ask(request.key, request.command, request.script)

    def _ask(self, key: bytes, command: bytes, script: scripts.Script | None = None) -> Conversation[Any]:
        """Return the reply of whichever server holds `key`.

        Raises:
            StoreUnavailable: It is an error.
        """
        address = self.nodes.address(key)
        commands, replies = command, 1
        reply: Any = None
        for _ in range(_STEPS):
            *first, reply = yield Ask(address, commands, replies)
            if not isinstance(reply, ErrorReply):
                return reply
            commands, replies = command, 1
            if script is not None and reply.code == "NOSCRIPT":
                if first and isinstance(first[0], ErrorReply):
                    raise failure(first[0], self._server)
                commands, replies = load(script) + command, 2
                continue
            if reply.code == "CROSSSLOT":
                self.nodes.clustered = True
                raise _Scattered
            if reply.code == "TRYAGAIN":
                raise _Moving(failure(reply, self._server, key).message)
            redirection = self.nodes.redirection(reply)
            if redirection is None:
                break
            address = redirection.address
            if redirection.asking:
                commands, replies = packed(b"ASKING") + command, 2
        raise failure(reply, self._server, key)


def _life(seconds: float) -> int:
    """Return milliseconds for which a token is kept: a second, and twice what a call takes at most."""
    return 1100 + 100 * int(20 * max(0.0, seconds))


def _lines(information: bytes) -> dict[str, str]:
    return dict(line.split(":", 1) for line in information.decode().splitlines() if ":" in line)
