from __future__ import annotations

from resilience._core.counting import Charge, KeptAsItIs
from resilience._core.quota import Quota, counter_of


def test_a_charge_is_one_unit_unless_told():
    counter = counter_of("login", Quota(6, per=900))
    assert Charge(counter, "ada").cost == 1
    assert counter.scope == "login: 6/15 minutes"


def test_what_is_kept_as_it_is_needs_no_packing():
    assert KeptAsItIs.pack(7) == KeptAsItIs.unpack(7) == 7
