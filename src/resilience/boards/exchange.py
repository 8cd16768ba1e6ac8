"""What is said between the breakers of one process and an engine: one step at a time, without a thread.

Rules:

- A lock of a breaker is held while its state machine decides, never while the engine is asked.
- Whoever wants something said puts a note into the inbox, which takes no lock that a finaliser could find
  held: `SimpleQueue.put` may be called from anywhere. A note says only whom to look at, never what to say, so
  that one is as good as many and a lost one is made up for by the next refresh.
- After an engine has failed all breakers go on alone, and only a refresh that succeeds ends that.
"""

from __future__ import annotations

import os
from math import inf
from queue import Empty, SimpleQueue
from threading import RLock
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias
from weakref import ref

from resilience.boards.coding import GarbledError, label_of, news_in
from resilience.clock import SYSTEM_CLOCK
from resilience.stores.outage_log import OutageLog

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from resilience._core.ledger import Answer, Report
    from resilience._core.shared import SharedBreaker
    from resilience.breaker.gate import Gate
    from resilience.clock import Clock

BATCH: Final = 500
"""How many ledgers are read at once."""


Note: TypeAlias = "Member | str | None"
"""A breaker to look at, the label of a ledger to read, or nothing but an end of waiting."""


class Engine(Protocol):
    """What an exchange asks of an engine. All but `listen` raise within a second where no answer comes."""

    what: str
    """What it is called in the log, without a password."""

    def read(self, labels: Sequence[str]) -> tuple[Sequence[str | None], float]:
        """Return what is written for each label, and the engine's clock in Unix seconds."""
        ...

    def take(self, label: str, report: Report) -> Answer:
        """Apply a report to the ledger of `label`, as if there were no others, and tell the listeners.

        Raises:
            GarbledError: What stands there is no ledger.
        """
        ...

    def listen(self, heard: Callable[[str], None], is_over: Callable[[], bool]) -> None:
        """Call `heard` with the label of each ledger that changes, until `is_over`, asked quite often."""
        ...

    def after_fork(self) -> None:
        """Leave a forked process's connections to its parent."""
        ...

    def close(self) -> None:
        """Give up all connections."""
        ...


class Member:
    """A breaker that takes part."""

    __slots__ = ("__weakref__", "_inbox", "_is_noted", "core", "gate", "label", "voter")

    def __init__(self, gate: Gate, core: SharedBreaker, inbox: SimpleQueue[Note]) -> None:
        self.gate = ref(gate)
        self.core = core
        self.label = label_of(gate.name)
        self.begin_anew(inbox)

    def begin_anew(self, inbox: SimpleQueue[Note]) -> None:
        """Be somebody else than whoever was here before a fork."""
        self._inbox = inbox
        self._is_noted = False
        self.voter = os.urandom(8).hex()
        self.core.lose_touch()
        self.core.forget_places()

    def wake(self) -> None:
        """Have it looked at, unless it will be."""
        if not self._is_noted:
            self._is_noted = True
            self._inbox.put(self)

    def begin_look(self) -> None:
        """Note that whatever happens from now on needs another look."""
        self._is_noted = False


class Exchange:
    """Carries reports and news between breakers and an engine.

    One thread steps it; `enrol`, `hear` and the members' `wake` may be called by any.

    Args:
        engine: Where the ledgers are.
        refresh: Seconds from one reading of all ledgers to the next.
        clock: Tells when that is due.
    """

    def __init__(self, engine: Engine, refresh: float, clock: Clock = SYSTEM_CLOCK) -> None:
        self._engine = engine
        self._refresh = refresh
        self._now = clock.now
        self._members: dict[str, list[ref[Member]]] = {}
        self._log = OutageLog(engine.what, clock)
        self._has_failed = False
        self.recoveries = 0
        """How many times the engine was found in reach after it had failed."""
        self.after_fork()

    def after_fork(self) -> None:
        """Leave behind what belongs to a forked process's parent; whoever holds the exchange calls this."""
        self._lock = RLock()
        self._inbox: SimpleQueue[Note] = SimpleQueue()
        self._refresh_at = -inf
        self._dues: dict[Member, float] = {}
        self._engine.after_fork()
        self.in_touch = False
        """Whether the engine answered when it was last asked."""
        for member in self._all_members():
            member.begin_anew(self._inbox)

    @property
    def is_needed(self) -> bool:
        """Whether there is a breaker."""
        return bool(self._all_members())

    def enrol(self, gate: Gate, core: SharedBreaker) -> Callable[[], object]:
        """Let a breaker take part; return what to call when there is something to report."""
        member = Member(gate, core, self._inbox)
        with self._lock:
            self._members.setdefault(member.label, []).append(ref(member))
        self.hear(member.label)  # to learn at once how things stand
        return member.wake

    def hear(self, label: str | None) -> None:
        """Have a ledger read, since it has changed; None only ends a wait."""
        self._inbox.put(label)

    def step(self, *, wait: bool = True) -> None:
        """Do what there is to do; if that is nothing, wait until there is."""
        labels, members = self._notes(self._rest() if wait else 0.0)
        now = self._now()
        members.update(member for member, due in self._dues.items() if due <= now)
        try:
            if now >= self._refresh_at:
                self._refresh_at = now + self._refresh
                self._read_all()
            elif self.in_touch:
                self._read([label for label in labels if label in self._members])
            for member in members:
                self._look_at(member)
        except Exception as error:  # noqa: BLE001 - whatever it is, the breakers go on alone and the thread lives
            self._lose_touch(error)

    def leave(self) -> None:
        """Have the breakers go on alone, and give back the places that wait for callers."""
        was_in_touch, self.in_touch = self.in_touch, False
        members = self._all_members()
        for member in members:
            self._part(member)
        if was_in_touch:
            for member in members:
                self._report(member)

    def log(self, error: Exception, what_follows: str, *, out_of_reach: bool = False) -> None:
        """Say in the log what is wrong, once in a while."""
        said = " ".join(str(error).split())
        text = f"the board on {self._engine.what} failed, {what_follows}: {type(error).__name__}: {said}"
        self._log.failed(RuntimeError(text), out_of_reach=out_of_reach)

    # --- the thread's own ------------------------------------------------------------------------

    def _rest(self) -> float:
        """Return the seconds until there is something to do without a note."""
        return max(0.0, min(self._refresh_at, *self._dues.values(), inf) - self._now())

    def _notes(self, seconds: float) -> tuple[set[str], set[Member]]:
        """Wait for a note for so many seconds, and return of whom all that are there speak."""
        labels: set[str] = set()
        members: set[Member] = set()
        try:
            note = self._inbox.get(timeout=seconds)
            while True:
                if isinstance(note, Member):
                    note.begin_look()
                    members.add(note)
                elif note is not None:
                    labels.add(note)
                note = self._inbox.get_nowait()
        except Empty:
            return labels, members

    def _all_members(self) -> list[Member]:
        """Return the members that are alive, and forget the others."""
        with self._lock:
            for label, refs in list(self._members.items()):
                refs[:] = [member for member in refs if member() is not None]
                if not refs:
                    del self._members[label]
            return [member for label in self._members for member in self._under(label)]

    def _under(self, label: str) -> list[Member]:
        with self._lock:
            members = [member() for member in self._members.get(label, ())]
        return [member for member in members if member is not None]

    def _read_all(self) -> None:
        self._all_members()
        labels = list(self._members)
        if not labels:
            return
        for start in range(0, len(labels), BATCH):
            self._read(labels[start : start + BATCH])
        if not self.in_touch:
            self.in_touch = True
            self.recoveries += self._has_failed
            self._has_failed = False
            self._log.answered()

    def _read(self, labels: Sequence[str]) -> None:
        if not labels:
            return
        texts, now = self._engine.read(labels)
        for label, text in zip(labels, texts, strict=True):
            for member in self._under(label):
                self._bring(member, text, now)

    def _bring(self, member: Member, text: str | None, engine_now: float) -> None:
        """Let a breaker know what its ledger says."""
        try:
            news = news_in(text, engine_now)
        except GarbledError as error:
            self._part(member)
            self.log(error, f"the breaker {member.label!r} goes on alone")
            return
        core, gate = member.core, member.gate()
        if core.is_settled(news) or gate is None:
            return
        now = gate.now()
        with gate.lock:
            core.in_touch = True
            change = core.follow(news, now)
            reminder = core.reminder(member.voter, news, now)
        gate.tell(change)
        if reminder is not None:
            self._engine.take(member.label, reminder)
        self._inbox.put(member)  # in any case: an interrupt may have cut a caller off from its note

    def _look_at(self, member: Member) -> None:
        """Report what there is to report, and note when to look again."""
        self._dues.pop(member, None)
        if not self.in_touch:
            return
        try:
            due_in = self._report(member)
        except GarbledError as error:
            self._part(member)
            self.log(error, f"the breaker {member.label!r} goes on alone")
            return
        if due_in < inf:
            self._dues[member] = self._now() + due_in

    def _report(self, member: Member) -> float:
        """Report one thing, if there is one; return the seconds until the next look."""
        gate, core = member.gate(), member.core
        if gate is None:
            return inf
        now = gate.now()
        with gate.lock:
            gate.take_back(now)
            sent = core.report(member.voter, now)
            due_in = core.due_in(now)
        if sent is None:
            return due_in
        answer = self._engine.take(member.label, sent.report)
        now = gate.now()
        with gate.lock:
            change = core.hear(sent, answer, now)
        gate.tell(change)
        return 0.0  # there may be more to tell, now that this is known

    def _part(self, member: Member) -> None:
        """Let a breaker go on alone."""
        gate = member.gate()
        if gate is not None:
            with gate.lock:
                member.core.lose_touch()

    def _lose_touch(self, error: Exception) -> None:
        self.in_touch, self._has_failed = False, True
        self._dues.clear()
        for member in self._all_members():
            self._part(member)
        self.log(error, "its breakers go on alone", out_of_reach=True)
