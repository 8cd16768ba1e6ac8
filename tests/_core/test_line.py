from __future__ import annotations

from resilience._core.line import Lines


def test_first_come_first_served_for_each_key():
    lines: Lines[object] = Lines()
    a, b, c = object(), object(), object()
    assert lines.first("k") is None
    lines.join("k", a, 2)
    lines.join("k", b, 3)
    lines.join("other", c, 1)
    assert lines.first("k") is a
    assert lines.first("other") is c
    assert lines.units_before("k") == 5
    assert lines.units_before("k", b) == 2
    assert lines.units_before("k", a) == 0
    assert lines.units_before("nobody") == 0
    assert lines.leave("k", a) is b
    assert lines.leave("k", b) is None
    assert lines.leave("other", c) is None
    assert not lines.by_key


def test_leaving_from_the_middle_moves_nobody():
    lines: Lines[object] = Lines()
    a, b, c = object(), object(), object()
    for waiter in (a, b, c):
        lines.join("k", waiter, 1)
    assert lines.leave("k", b) is None
    assert lines.leave("k", b) is None
    assert lines.leave("k", a) is c
