from __future__ import annotations

import pytest

from resilience.janitor.postgres.troubles import LATE, Again, trouble_of


@pytest.mark.parametrize(
    ("sqlstate", "words", "passes", "again"),
    [
        (None, "the connection was lost", True, Again.LOST),
        ("08006", "the connection was lost", True, Again.LOST),
        ("57P01", "the connection was lost", True, Again.LOST),
        ("40001", "into each other", True, Again.CONFLICT),
        ("40P01", "into each other", True, Again.CONFLICT),
        ("55P03", "longer than lock_timeout", True, Again.NO),
        ("57014", "longer than timeout", True, Again.NO),
        ("53300", "short of connections", True, Again.NO),
        ("53100", "disk", False, Again.NO),
        ("25006", "URL of the primary", False, Again.NO),
        ("42P01", "create_schema", False, Again.NO),
        ("42501", "grant", False, Again.NO),
        ("28P01", "check the URL", False, Again.NO),
        ("22021", "SQLSTATE 22021", False, Again.NO),
    ],
)
def test_what_an_error_means(sqlstate, words, passes, again):
    trouble = trouble_of(sqlstate)

    assert words in trouble.help
    assert (trouble.passes, trouble.again) == (passes, again)


def test_an_answer_that_did_not_come_is_not_asked_for_again():
    assert (LATE.passes, LATE.again) == (True, Again.NO)
