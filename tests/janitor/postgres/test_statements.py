from __future__ import annotations

import pytest

from resilience.janitor.postgres import statements
from resilience.janitor.postgres.statements import Bloat, checked_user_id, session_of, storable
from resilience.janitor.sessions import Session
from tests.janitor.places import InPostgres


@pytest.mark.parametrize("text", ["", "ada", "é\n'", "x" * 10_000])
def test_text_can_be_stored(text):
    assert storable(text)


@pytest.mark.parametrize("text", ["\0", "a\0b", "\ud800"])
def test_what_postgres_cannot_hold_is_not_storable(text):
    assert not storable(text)
    with pytest.raises(ValueError, match="without NUL"):
        checked_user_id(text)


def test_a_user_id_must_be_text_of_bearable_length():
    assert checked_user_id("x" * 2000) == "x" * 2000
    with pytest.raises(ValueError, match="at most 2000 bytes, not 2002"):
        checked_user_id("é" * 1001)
    with pytest.raises(TypeError, match="must be a str, not 7"):
        checked_user_id(7)


def test_a_row_is_a_session_and_the_time():
    row = ("5e55", "ada", '{"a": 1}', 1.0, 2.0, 3.0, 1.5)

    assert session_of(row) == (Session("5e55", "ada", {"a": 1}, 1.0, 2.0, 3.0), 1.5)


def test_bloat_is_a_share():
    assert Bloat(0, 0, 8192, None).share == 0.0
    assert Bloat(25, 75, 8192, None).share == 0.75


def test_every_question_is_answered_by_an_index(postgres_server):
    place = InPostgres(postgres_server)
    try:
        place.admin.execute("SET enable_seqscan = off")  # the table is small; it is the question that matters
        place.admin.execute("SET enable_bitmapscan = off")
        for question, values in [
            (statements.READ, ["5e55"]),
            (statements.OF_USER, ["ada", 10]),
            (statements.RENEW, [1.0, "5e55"]),
            (statements.DELETE, ["5e55"]),
            (statements.DELETE_USER, ["ada"]),
            (statements.DELETE_EXPIRED, [10]),
            (statements.COUNT_EXPIRED, [10]),
            (statements.ALIVE, [["5e55", "1d"]]),
        ]:
            plan = [line for (line,) in place.admin.execute(f"EXPLAIN {question}", values)]
            assert any("Index Cond" in line for line in plan), plan
            assert not any("Seq Scan on resilience" in line or "Sort" in line for line in plan), plan
    finally:
        place.close()
