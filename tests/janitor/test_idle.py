from __future__ import annotations

from resilience.events import IdleConnection
from resilience.janitor.idle import END, LOOK, Found, Result, identities


def found(pid, reason=None):
    return Found(pid, 1_000_000 + pid, 2_000_000 + pid, "idle", "shop-web", "::1", 75.0, reason)


def test_what_is_told_of_a_connection_has_what_people_need():
    assert found(7).told() == IdleConnection(7, "shop-web", "::1", "idle", 75.0)


def test_those_are_ended_that_still_were_there():
    result = Result([found(1), found(2), found(3)], [found(1), found(2)], [(1, True), (2, False)])

    assert result.ended() == [found(1)]


def test_each_that_is_spared_has_a_reason():
    result = Result([found(1), found(2), found(3, "kept by name")], chosen=[found(1)], signalled=[])

    assert [result.why_spared(each) for each in result.found] == [
        "changed since it was seen",
        "left for the next sweep",
        "kept by name",
    ]


def test_a_connection_is_told_from_all_others_by_four_columns():
    assert identities([found(1), found(2)]) == {
        "pid": [1, 2],
        "began": [1_000_001, 1_000_002],
        "idle_since": [2_000_001, 2_000_002],
        "state": ["idle", "idle"],
    }


def test_what_ends_has_all_the_conditions_of_what_looks():
    conditions = LOOK.split("ORDER BY")[0]

    assert conditions in END
    assert "pg_terminate_backend" in END
    assert "pg_terminate_backend" not in LOOK
