"""Turns the arguments of a circuit breaker into the settings of its state machine, or refuses them."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from resilience._core.breaker import Policy
from resilience._core.trip import InARow, Ratio
from resilience.checks import count, number

if TYPE_CHECKING:
    from resilience._core.trip import Rule


def policy_of(
    rule: Rule,
    *,
    recovery_time: float,
    recovery_jitter: float,
    recovery_growth: float,
    max_recovery_time: float | None,
    probes: int,
    probe_lease: float,
    ramp_up: float,
) -> Policy:
    """Return the settings of a breaker that trips by `rule`."""
    recovery_time = number("recovery_time", recovery_time, above=0)
    longest = 10 * recovery_time if max_recovery_time is None else max_recovery_time
    return Policy(
        rule,
        recovery_time,
        number("recovery_jitter", recovery_jitter, least=0, most=1),
        number("recovery_growth", recovery_growth, least=1),
        number("max_recovery_time", longest, least=recovery_time),
        count("probes", probes, least=1),
        number("probe_lease", probe_lease, above=0),
        number("ramp_up", ramp_up, least=0),
    )


def rule_of(
    failure_threshold: int | None,
    *,
    failure_ratio: float,
    minimum_calls: int,
    window: float,
    window_calls: int | None,
    slow_after: float | None,
    slow_ratio: float,
) -> Rule:
    """Return the trip rule that is meant: failures in a row where a threshold is given, else a ratio."""
    if failure_threshold is not None:
        by_ratio = (failure_ratio, minimum_calls, window, window_calls, slow_after, slow_ratio)
        if by_ratio != (0.5, 5, 10.0, None, None, 1.0):
            raise ValueError(
                f"failure_threshold={failure_threshold!r} counts failures in a row: leave it out to open by "
                "failure_ratio, minimum_calls, window, window_calls, slow_after or slow_ratio"
            )
        return InARow(count("failure_threshold", failure_threshold, least=1))
    count("minimum_calls", minimum_calls, least=1)
    if window_calls is not None and count("window_calls", window_calls, least=1) < minimum_calls:
        raise ValueError(
            f"window_calls={window_calls!r} is less than minimum_calls={minimum_calls!r}: such a "
            "breaker would never open"
        )
    slow_ratio = number("slow_ratio", slow_ratio, above=0, most=1)
    if slow_after is None:
        if slow_ratio < 1:
            raise ValueError(f"slow_ratio={slow_ratio!r} means nothing without slow_after: say what is slow")
        slow_ratio = inf
    else:
        number("slow_after", slow_after, above=0)
    return Ratio(
        number("failure_ratio", failure_ratio, above=0, most=1),
        slow_ratio,
        minimum_calls,
        number("window", window, above=0),
        window_calls,
    )
