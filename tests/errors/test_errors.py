from __future__ import annotations

import pytest

from resilience import errors


@pytest.mark.parametrize("name", errors.__all__)
def test_every_name_is_there(name):
    assert getattr(errors, name).__name__ == name


def test_the_tree_of_the_documentation_is_the_tree():
    for name in errors.policies.__dict__.keys() & set(errors.__all__) - {"ErrorCode", "ServiceError"}:
        error = getattr(errors, name)
        assert issubclass(error, errors.ServiceError)
        (row,) = [row for row in errors.__doc__.splitlines() if f"─ {name} " in row]
        assert row.endswith(str(error.code.status))
