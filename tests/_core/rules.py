"""What every algorithm must keep to, whatever it is."""

from __future__ import annotations

from hypothesis import strategies as st

CALLS = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 4)), max_size=60)
"""Nanoseconds since the call before, and the cost."""


def run(rules, calls, start=0):
    """Make the calls; return (instant, cost, whether admitted) of each, and the last state."""
    now, state, done = start, None, []
    for elapsed, cost in calls:
        now += elapsed
        after = rules.admit(state, now, cost)
        done.append((now, cost, after is not None))
        state = state if after is None else after
    return done, state, now


def busiest(done, window):
    """Return the most units that were admitted in any window `[x, x + window)`."""
    admitted = [(now, cost) for now, cost, ok in done if ok]
    return max(
        (sum(cost for at, cost in admitted if start <= at < start + window) for start, _ in admitted),
        default=0,
    )


def check_figures(rules, limit, calls):
    """What the figures say is what then happens."""
    _, state, now = run(rules, calls)
    left = rules.remaining(state, now)
    assert 0 <= left <= limit
    if left:
        assert rules.admit(state, now, left) is not None
    assert rules.admit(state, now, left + 1) is None
    for cost in range(1, limit + 1):
        at = rules.fits_at(state, now, cost)
        assert (at == now) == (cost <= left)
        assert rules.admit(state, at, cost) is not None
        assert at == now or rules.admit(state, at - 1, cost) is None
    assert rules.fits_at(state, now, limit + 1) is None
    whole = rules.whole_at(state, now)
    assert now <= whole <= now + rules.horizon
    assert rules.remaining(state, whole) == limit
    assert whole == now or rules.remaining(state, whole - 1) < limit


def check_unused(rules, limit):
    """A key of which nothing counts has all its units."""
    assert rules.remaining(None, 7) == limit
    assert rules.fits_at(None, 7, limit) == rules.whole_at(None, 7) == 7
    assert rules.fits_at(None, 7, limit + 1) is None
    assert rules.admit(None, 7, limit) is not None
    assert rules.admit(None, 7, limit + 1) is None
    assert rules.refund(None, 7, 1, 0) is None


def check_one(rules, calls):
    """`admit_one` is `admit` for one unit."""
    _, state, now = run(rules, calls)
    if state is not None:
        for instant in range(max(0, now - 3), now + 2 * rules.horizon, max(1, rules.horizon // 7)):
            assert rules.admit_one()(state, instant) == rules.admit(state, instant)


def check_packed(rules, calls):
    """A state comes out of its packing as it went in, and it is of a kind that any store can keep."""
    _, state, _ = run(rules, calls)
    if state is not None:
        packed = rules.pack(state)
        assert type(packed) in {int, bytes}
        assert rules.unpack(packed) == state


def check_refund(rules, limit, calls, cost):
    """A refund at once leaves the key as if nothing had been taken; a later one never leaves it better."""
    _, state, now = run(rules, calls)
    after = rules.admit(state, now, cost)
    if after is None:
        return
    receipt = rules.receipt(after)
    at_once = rules.refund(after, now, cost, receipt)
    for instant in range(now, now + 2 * rules.horizon, max(1, rules.horizon // 7)):
        assert rules.remaining(at_once, instant) == rules.remaining(state, instant)
        later = rules.refund(after, instant, cost, receipt)
        assert rules.remaining(after, instant) <= rules.remaining(later, instant) <= limit
        assert rules.remaining(later, instant) <= rules.remaining(state, instant)


def check_clock_set_back(rules, limit, window, calls, steps):
    """A clock that was set back admits no more, by the true time."""
    true, behind, state, done = 1000, 0, None, []
    for (elapsed, cost), step in zip(calls, steps, strict=False):
        true += elapsed
        behind = min(behind + step, true)
        after = rules.admit(state, true - behind, cost)
        done.append((true, cost, after is not None))
        state = state if after is None else after
    assert busiest(done, window) <= limit
