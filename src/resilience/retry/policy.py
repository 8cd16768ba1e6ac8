"""The arguments of a retry manager: checked once, and settled into what calls go by."""

from __future__ import annotations

import random as _random
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, Self, TypedDict, Unpack

from resilience._core.backoff import JITTERS, Backoff
from resilience._core.retry import Limits
from resilience.checks import count, number
from resilience.clock import SYSTEM_CLOCK
from resilience.conditions import is_cancellation, matcher, result_predicate
from resilience.events import hooks
from resilience.retry.budget import RetryBudget, budget_of
from resilience.retry.stats import Counts, Ledger
from resilience.transient import is_never_retried, is_transient

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilience.clock import Clock
    from resilience.conditions import Condition
    from resilience.events import RetryScheduled, RetryStopped, RetrySucceeded
    from resilience.retry.attempts import Breaker
    from resilience.retry.stats import RetryStats

    Jitter = Literal["none", "full", "equal", "decorrelated"] | float


class _Default(Enum):
    """Stands for an argument that was left out, where None means something."""

    BUDGET = "one for each name"

    def __repr__(self) -> str:
        return f"<{self.value}>"


class RetryOptions(TypedDict, total=False):
    """The arguments of a manager; `RetryManager` says what they mean."""

    max_attempts: int
    initial_delay: float
    max_delay: float
    multiplier: float
    jitter: Jitter
    deadline: float | None
    retry_on: Condition
    retry_if_result: Callable[[Any], bool] | None
    circuit_breaker: Breaker | None
    on_retry: Callable[[RetryScheduled], object] | None
    on_success: Callable[[RetrySucceeded], object] | None
    on_stop: Callable[[RetryStopped], object] | None
    name: str | None
    clock: Clock
    budget: RetryBudget | Literal[_Default.BUDGET] | None
    idempotent: bool
    max_retry_after: float
    random: Callable[[], float]


class Policy:
    """How calls are retried; immutable. `resilience.retry.RetryManager` documents the arguments."""

    __slots__ = (
        "_options",
        "breaker",
        "clock",
        "idempotent",
        "ledger",
        "limits",
        "name",
        "on_retry",
        "on_stop",
        "on_success",
        "random",
        "retry_if_result",
        "retry_on",
        "seconds",
    )

    def __init__(
        self,
        max_attempts: int = 3,
        initial_delay: float = 0.1,
        max_delay: float = 10.0,
        multiplier: float = 2.0,
        jitter: Jitter = "full",
        deadline: float | None = None,
        retry_on: Condition = is_transient,
        retry_if_result: Callable[[Any], bool] | None = None,
        circuit_breaker: Breaker | None = None,
        on_retry: Callable[[RetryScheduled], object] | None = None,
        name: str | None = None,
        clock: Clock = SYSTEM_CLOCK,
        budget: RetryBudget | Literal[_Default.BUDGET] | None = _Default.BUDGET,
        *,
        on_success: Callable[[RetrySucceeded], object] | None = None,
        on_stop: Callable[[RetryStopped], object] | None = None,
        idempotent: bool = True,
        max_retry_after: float = 60.0,
        random: Callable[[], float] = _random.random,
    ) -> None:
        options = locals().copy()  # the arguments as given, for `replace`
        del options["self"]
        if name is not None and not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance] - from untyped code
            raise TypeError(f"name={name!r} must be a string, the dependency's name")
        if circuit_breaker is not None and not (
            hasattr(circuit_breaker, "acquire") and hasattr(circuit_breaker, "is_closed")
        ):
            raise TypeError(f"circuit_breaker={circuit_breaker!r} must be a CircuitBreaker")
        if not (hasattr(clock, "now") and hasattr(clock, "sleep_async")):
            raise TypeError(f"clock={clock!r} must be a Clock, such as resilience.testing.FakeClock()")
        if not callable(random):
            raise TypeError(f"random={random!r} must be a function that returns a number from 0 to 1")
        if not isinstance(idempotent, bool):  # pyright: ignore[reportUnnecessaryIsInstance] - from untyped code
            raise TypeError(f"idempotent={idempotent!r} must be True or False")
        if budget is _Default.BUDGET:
            budget = RetryBudget() if name is None else budget_of(name)
            options["budget"] = budget
        elif budget is not None and not isinstance(budget, RetryBudget):  # pyright: ignore[reportUnnecessaryIsInstance] - from untyped code
            raise TypeError(f"budget={budget!r} must be a RetryBudget, or None to switch it off")
        self.name: Final = name or type(self).__name__
        self.limits: Final = Limits(
            count("max_attempts", max_attempts, least=1),
            number("max_retry_after", max_retry_after, least=0),
            Backoff(
                number("initial_delay", initial_delay, least=0),
                number("max_delay", max_delay, least=0),
                number("multiplier", multiplier, least=1),
                _checked_jitter(jitter),
            ),
        )
        self.retry_on: Final = is_transient if retry_on is is_transient else _with_exceptions(retry_on)
        self.retry_if_result: Final = result_predicate(retry_if_result, "retry_if_result")
        self.idempotent: Final = idempotent
        self.seconds: Final = None if deadline is None else number("deadline", deadline, least=0)
        self.breaker: Final = circuit_breaker
        self.ledger = Ledger(budget, Counts())
        self.clock: Final = clock
        self.random: Final = random
        self.on_retry: Final = hooks(on_retry)
        self.on_success: Final = hooks(on_success)
        self.on_stop: Final = hooks(on_stop)
        self._options = options  # last: from now on, nothing changes

    @property
    def budget(self) -> RetryBudget | None:
        """The budget; None where it is switched off."""
        return self.ledger.budget

    def stats(self) -> RetryStats:
        """Return the counts so far, of this manager and all that `replace` has made of it."""
        return self.ledger.read()

    def replace(self, **changes: Unpack[RetryOptions]) -> Self:
        """Return a manager with other arguments, which shares budget and statistics with this one.

        The budget stays the same under another name, too, unless `budget` is among the changes.

        Raises:
            TypeError, ValueError: As from the constructor.

        Example:
            >>> from resilience.retry import RetryManager
            >>> retries = RetryManager(name="storage")
            >>> patient = retries.replace(max_attempts=10, deadline=60.0)
            >>> patient.budget is retries.budget
            True
        """
        options: dict[str, Any] = {**self._options, **changes}
        twin = type(self)(**options)
        object.__setattr__(twin, "ledger", twin.ledger.sharing_counts(self.ledger))
        return twin

    def named(self, name: str) -> Self:
        """Return itself if it was given a name, or else one that bears this one."""
        return self if self._options["name"] else self.replace(name=name)

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse changes: calls under way, on other threads too, go by this policy."""
        if hasattr(self, "_options"):
            raise AttributeError(f"a {type(self).__name__} never changes: use replace({name}=...)")
        object.__setattr__(self, name, value)

    def __copy__(self) -> Self:
        """Return itself: it never changes."""
        return self

    def __deepcopy__(self, memo: object) -> Self:
        """Return itself: it never changes, and budget and statistics are shared."""
        return self

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled."""
        raise TypeError(
            f"a {type(self).__name__} cannot be pickled: its budget and statistics belong to this process; "
            "make one in each process"
        )

    def __repr__(self) -> str:
        """Show the arguments."""
        arguments = ", ".join(f"{name}={value!r}" for name, value in self._options.items())
        return f"{type(self).__name__}({arguments})"


def _with_exceptions(retry_on: Condition) -> Callable[[Exception], bool]:
    """Return a predicate of what `retry_on` means, less what is never retried; `is_transient` knows that."""
    _refuse_what_is_no_exception(retry_on)
    matches = matcher(retry_on, "retry_on")
    return lambda error: matches(error) and not is_never_retried(type(error)) and not is_cancellation(error)


def _refuse_what_is_no_exception(retry_on: Any) -> None:
    if isinstance(retry_on, tuple):
        for part in retry_on:  # pyright: ignore[reportUnknownVariableType] - a tuple of anything
            _refuse_what_is_no_exception(part)
    elif (
        isinstance(retry_on, type) and BaseException in retry_on.__mro__ and Exception not in retry_on.__mro__
    ):
        raise TypeError(
            f"retry_on={retry_on!r} is no Exception: a cancellation or an interrupt is never retried; "
            "name what failed"
        )


def _checked_jitter(jitter: str | float) -> str | float:
    if not isinstance(jitter, str):
        return number("jitter", jitter, above=0, most=1)
    if jitter not in JITTERS:
        raise ValueError(f"jitter must be one of {', '.join(JITTERS)}, or a proportion, not {jitter!r}")
    return jitter
