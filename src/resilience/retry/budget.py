"""Retry budgets: a shared cap on retries relative to successes, one for each name in this process.

Rules:
    - A retry is paid for before its delay begins; one that is cancelled during its delay gets that back.
    - Managers and functions of one name share one budget, also when a manager is made for each call.
    - The registry is bounded. It forgets full budgets only, since a full one equals a new one; where all
      its places are taken by budgets in use, further names share one.
    - There is one registry, but for contexts that stand for processes of their own, as those of simulated
      clients do.

`resilience._core.budget` has the arithmetic, and says why it is success-funded.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final, NoReturn

from resilience._core.budget import UNITS, Tokens
from resilience.checks import number
from resilience.fork import bound_lock, survive_fork

MOST_NAMES: Final = 1024
"""How many names the registry holds; about 300 bytes each."""


class _Books:
    """What all budgets and retry managers of this process share: one lock, and the number of calls given up.

    The lock is one, so that a single round settles a budget and a manager's counts, which may be shared in
    any combination. It is held for a fraction of a microsecond, by failures and what follows from them; a
    call that succeeds at once takes it only while its budget is not full.
    """

    __slots__ = ("__weakref__", "given_up", "lock")

    def __init__(self) -> None:
        self.given_up = 0
        survive_fork(self)

    def after_fork(self) -> None:
        self.lock = bound_lock()


BOOKS: Final = _Books()


class RetryBudget:
    """Tokens that retries spend and successes earn.

    Share one among managers whose calls burden the same dependency. Give each dependency its own.

    Args:
        capacity: Tokens when full, above 0. Small is safe: capacity times processes is the number of
            retries that a dependency gets on top of its traffic while it is down.
        retry_cost: Tokens that a retry takes, above 0.
        refund: Tokens that come back if that retry succeeds, 0 to `retry_cost`.
        success_credit: Tokens that a call earns which succeeds at once, at least 0. This is the share of
            retries in the long run: 0.1 funds one for every ten calls.

    Raises:
        TypeError, ValueError: A figure is no number, or out of its range.

    Threads, tasks and loops may share it. It cannot be copied or pickled: a copy would be a second budget.

    Example:
        >>> budget = RetryBudget(capacity=1.0)
        >>> budget.try_withdraw(), budget.try_withdraw()
        (True, False)
        >>> budget.refund()
        >>> budget.tokens
        1.0
    """

    __slots__ = ("__weakref__", "state")

    def __init__(
        self,
        capacity: float = 5.0,
        *,
        retry_cost: float = 1.0,
        refund: float = 1.0,
        success_credit: float = 0.1,
    ) -> None:
        number("retry_cost", retry_cost, above=0)
        self.state: Final = Tokens(
            number("capacity", capacity, above=0),
            retry_cost,
            number("refund", refund, least=0, most=retry_cost),
            number("success_credit", success_credit, least=0),
        )
        """Guarded by the lock of the books; `state.spent` may be read without."""

    @property
    def tokens(self) -> float:
        """What is left, in tokens."""
        return (self.state.capacity - self.state.spent) / UNITS

    @property
    def capacity(self) -> float:
        """Tokens when full."""
        return self.state.capacity / UNITS

    def try_withdraw(self) -> bool:
        """Pay for a retry; return whether that was possible."""
        with BOOKS.lock:
            return self.state.pay()

    def refund(self) -> None:
        """Give back what a successful retry gets back."""
        self._earn(self.state.refund)

    def cancel(self) -> None:
        """Give a retry's whole price back: it was not begun."""
        self._earn(self.state.retry_cost)

    def credit(self) -> None:
        """Earn what a call earns that succeeds at once."""
        self._earn(self.state.success_credit)

    def refill(self) -> None:
        """Fill it up: for an operator who knows that the dependency is back, and for tests."""
        self._earn(self.state.capacity)

    def _earn(self, units: int) -> None:
        with BOOKS.lock:
            self.state.earn(units)

    def __repr__(self) -> str:
        """Show what is left."""
        return f"<RetryBudget {self.tokens:g} of {self.capacity:g} tokens>"

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled."""
        raise TypeError(
            "a RetryBudget cannot be copied or pickled: it is the one count of its process; "
            "pass the same object on, or make one in each process"
        )


class _Registry:
    """The budgets of a process by name."""

    def __init__(self, most: int = MOST_NAMES) -> None:
        self._most = most
        self._by_name: dict[str, RetryBudget] = {}
        self._of_the_rest = RetryBudget()

    def get(self, name: str) -> RetryBudget:
        with BOOKS.lock:
            budget = self._by_name.get(name)
            if budget is None:
                if len(self._by_name) >= self._most:
                    self._by_name = {other: held for other, held in self._by_name.items() if held.state.spent}
                if len(self._by_name) >= self._most:
                    return self._of_the_rest
                budget = self._by_name[name] = RetryBudget()
            return budget

    def refill(self) -> None:
        with BOOKS.lock:
            for budget in (*self._by_name.values(), self._of_the_rest):
                budget.refill()


_registry: Final = ContextVar("resilience.retry.budgets", default=_Registry())  # noqa: B039 - one for all, on purpose


def budget_of(name: str) -> RetryBudget:
    """Return the one budget of this name in this process, made with the defaults at its first use.

    Example:
        >>> budget_of("storage") is budget_of("storage")
        True
    """
    return _registry.get().get(name)


def refill_budgets() -> None:
    """Fill up every budget that goes by a name: for tests, which should not see each other's failures."""
    _registry.get().refill()


def begin_process() -> None:
    """Let names mean budgets of their own in this context, and in what is copied from it: none is made yet.

    For what stands for another process: a client in a simulation.
    """
    _registry.set(_Registry())
