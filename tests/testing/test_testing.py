from __future__ import annotations

import resilience.testing


def test_every_name_is_exported_and_documented():
    for name in resilience.testing.__all__:
        assert getattr(resilience.testing, name).__doc__
        assert f"`{name}`" in resilience.testing.__doc__


def test_nothing_else_is_public():
    public = {
        name
        for name, value in vars(resilience.testing).items()
        if not name.startswith("_") and getattr(value, "__module__", "").startswith("resilience")
    }

    assert public == set(resilience.testing.__all__)
