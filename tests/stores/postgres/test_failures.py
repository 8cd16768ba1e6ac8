from __future__ import annotations

import psycopg
import pytest
from psycopg import pq

from resilience.stores import StoreUnavailable
from resilience.stores.engine import Lost, Unable
from resilience.stores.postgres.failures import failure_of, failure_to_connect, sqlstate_of


class Result:
    def __init__(self, state, message="it went wrong"):
        self.fields = {
            pq.DiagnosticField.SQLSTATE: state and state.encode(),
            pq.DiagnosticField.MESSAGE_PRIMARY: message and message.encode(),
        }

    def error_field(self, field):
        return self.fields[field]


def test_the_sqlstate_of_a_result():
    assert sqlstate_of(Result("40001")) == "40001"
    assert sqlstate_of(Result(None)) is None


@pytest.mark.parametrize("state", ["57P01", "57P02"])
def test_a_connection_that_was_ended_may_be_had_anew(state):
    failure = failure_of(Result(state, "terminating connection"), "postgresql://db/shop")
    assert isinstance(failure, Lost)
    assert str(failure) == f"the server ended the connection: terminating connection ({state})"


@pytest.mark.parametrize("state", ["08006", "53100", "53300", "57P03", "58030"])
def test_a_server_that_is_not_able_is_as_good_as_down(state):
    assert isinstance(failure_of(Result(state), "it"), Unable)


@pytest.mark.parametrize(
    ("state", "help_"),
    [
        ("42P01", "create_schema"),
        ("42883", "create_schema"),
        ("42501", "SELECT, INSERT, UPDATE and DELETE"),
        ("25006", "name the primary"),
        ("40001", ""),
        ("XX000", ""),
    ],
)
def test_an_answer_says_what_to_do_and_is_no_outage(state, help_):
    failure = failure_of(Result(state), "postgresql://db/shop")
    assert type(failure) is StoreUnavailable
    assert str(failure).startswith(
        f"the limits on postgresql://db/shop are unavailable: it went wrong ({state})"
    )
    assert help_ in str(failure)
    assert not str(failure).endswith("; ")
    assert failure.retry_after is None


def test_what_is_occupied_is_worth_another_try_soon():
    failure = failure_of(Result("55P03"), "it")
    assert type(failure) is StoreUnavailable
    assert failure.retry_after == 1.0


def test_an_answer_without_any_field():
    assert "are unavailable:  ()" in str(failure_of(Result(None, None), "it"))


def test_no_connection_at_all():
    error = psycopg.OperationalError("connection refused\nIs the server running?")
    failure = failure_to_connect(error, "it")
    assert isinstance(failure, Lost)
    assert str(failure) == "there is no connection: connection refused; Is the server running?"
    assert failure.__cause__ is error


@pytest.mark.parametrize(
    ("said", "help_"),
    [
        ('password authentication failed for user "x"', "password is wrong"),
        ('no pg_hba.conf entry for host "::1"', "pg_hba.conf"),
        ("sorry, too many clients already", "max_connections"),
        ("remaining connection slots are reserved", "max_connections"),
        ("the database system is starting up", "starting up"),
        ('database "x" does not exist', "no such database"),
        ('role "x" does not exist', "look at the user's name"),
        ("something new", "starting up or shutting down"),
    ],
)
def test_a_refusal_to_connect_says_what_to_do(said, help_):
    failure = failure_to_connect(psycopg.OperationalError(f"connection failed: FATAL:  {said}"), "it")
    assert isinstance(failure, Unable)
    assert said in str(failure)
    assert help_ in str(failure)
