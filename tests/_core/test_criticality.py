from __future__ import annotations

import pytest

from resilience._core.criticality import Criticality


def test_what_matters_more_is_greater():
    assert sorted(Criticality) == [
        Criticality.SHEDDABLE,
        Criticality.SHEDDABLE_PLUS,
        Criticality.CRITICAL,
        Criticality.CRITICAL_PLUS,
    ]


@pytest.mark.parametrize("level", Criticality)
def test_a_level_is_found_by_itself_and_by_its_name(level):
    assert Criticality.of(level) is level
    assert Criticality.of(level.name) is level
    assert Criticality.of(level.name.lower()) is level


def test_what_is_no_level_is_refused():
    with pytest.raises(
        ValueError, match="one of 'critical_plus', 'critical', 'sheddable_plus', 'sheddable', "
    ):
        Criticality.of("urgent")
    with pytest.raises(TypeError, match="not 2"):
        Criticality.of(2)
