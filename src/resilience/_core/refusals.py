"""What a store has refused, remembered until it would admit again: an attack then costs no round trips.

Rules:
    - Only time, a refund or a reset can make room for a key that was refused. So until the time that was
      told, whoever asks for as much or more is refused without asking again.
    - It is forgotten rather too early than too late, which costs a question and changes no decision. So it
      may be counted from when the question was sent, and dropped where there are too many.
    - A refund or a reset forgets the key, and voids the answers to what was asked about the key before:
      they may have been given before it, and arrive after it.
    - Instants here are integer nanoseconds of this process's clock; those in a decision are the store's.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple

from resilience._core.quota import Decision, foreseen

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from resilience._core.counting import Charge, Counter


_LOOKED_AT: Final = 2
"""How many entries each new one looks at: more than one, so that those which have lapsed become fewer."""


class _Refusal(NamedTuple):
    """One refusal, and how it is aged."""

    decision: Decision
    ahead: int
    """What the store's clock is ahead of this process's: their difference, at most."""
    until: int
    """The instant of the store's clock from which on it has to be asked again."""


class Refusals:
    """The keys that are known to be refused.

    Args:
        most: How many it holds at most, at least 1.
        longest: Nanoseconds after which each is forgotten, whatever was told.

    One thread may change it at a time; asking it, and reading its attributes, needs no lock: an entry is
    immutable, and is found whole or not at all.
    """

    __slots__ = ("_changed", "_longest", "_most", "_void", "changes", "held")

    def __init__(self, most: int, longest: float) -> None:
        self._most = most
        self._longest = longest
        self.held: OrderedDict[tuple[str, str | bytes], _Refusal] = OrderedDict()
        """By scope and key; those that have lapsed may be among them."""
        self.changes = 0
        """How often a key was forgotten because something may have been given back to it."""
        self._changed: OrderedDict[tuple[str, str | bytes], int] = OrderedDict()
        """Which of these changes was the last of each key, of the latest `most` of them."""
        self._void = 0
        """The last change of the keys that are not among those any more."""

    def decide(self, charges: Sequence[Charge], now: int) -> list[Decision] | None:
        """Return the decision about each charge if one of them is known to be refused, or else None.

        Of the others nothing is known, so their figures are those of a key that nothing counts for: they
        refuse only what costs more than the limit, and never have less left than the truth.
        """
        known = [self._find(charge, now) for charge in charges]
        if all(decision is None for decision in known):
            return None
        return [
            foreseen((charge,), (None,), now)[0] if decision is None else decision
            for charge, decision in zip(charges, known, strict=True)
        ]

    def _find(self, charge: Charge, now: int) -> Decision | None:
        refusal = self.held.get((charge.counter.scope, charge.key))
        if refusal is None:
            return None
        decision, ahead, until = refusal
        there = now + ahead
        if there >= until or charge.cost < decision[3]:
            return None
        return Decision((False, decision[1], there, charge.cost, decision[4]))

    def note(
        self, charges: Iterable[Charge], decisions: Iterable[Decision], asked: int, changes: int
    ) -> None:
        """Remember the refusals among the answers to a question.

        Args:
            charges: What was asked about.
            decisions: The answers.
            asked: When; not after the store decided.
            changes: What `changes` was then.
        """
        for charge, decision in zip(charges, decisions, strict=True):
            allowed, state, there, cost, counter = decision
            place = (charge.counter.scope, charge.key)
            if allowed or self._changed.get(place, self._void) > changes:
                continue
            fits_at = counter.rules.fits_at(state, there, cost)
            if fits_at is not None:  # else it never fits, and no time was told
                until = fits_at if fits_at - there <= self._longest else there + int(self._longest)
                self._keep(place, _Refusal(decision, there - asked, until), asked)

    def _keep(self, place: tuple[str, str | bytes], refusal: _Refusal, now: int) -> None:
        """Hold one more, and look at two others, in turn: what has lapsed goes, and so does one too many."""
        held = self.held
        held[place] = refusal
        for _ in range(_LOOKED_AT):
            oldest, (_, ahead, until) = next(iter(held.items()))
            if len(held) > self._most or now + ahead >= until:
                del held[oldest]
                if not held:
                    return
            else:
                held.move_to_end(oldest)

    def forget(self, counters: Iterable[Counter], key: str | bytes) -> None:
        """Forget `key`, since something may have been given back to it."""
        self.changes += 1
        for counter in counters:
            place = (counter.scope, key)
            self.held.pop(place, None)
            self._changed[place] = self.changes
            self._changed.move_to_end(place)
        while len(self._changed) > self._most:
            self._void = self._changed.popitem(last=False)[1]
