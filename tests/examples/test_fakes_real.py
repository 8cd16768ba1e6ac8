"""The servers of the real mode: what they are like, and that they end with whoever started them."""

from __future__ import annotations

import dataclasses
import re
import signal
import smtplib
import socket
import subprocess
import sys
from pathlib import Path

import httpx2
import obstore
import psycopg
import pytest
import redis
from obstore.store import S3Store

from examples.backend.fakes import real
from examples.backend.fakes import servers as common
from examples.backend.settings import Settings
from resilience.testing import wait_until

ROOT = Path(__file__).parent.parent.parent
THERE = common.postgres_programs() and (common.redis_program() or common.redis_program("valkey-server"))
pytestmark = pytest.mark.skipif(not THERE, reason="no PostgreSQL or no redis-server on this machine")


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    with real.servers(tmp_path_factory.mktemp("real") / "var") as environment:
        yield environment


def test_the_application_may_use_tables_but_owns_none(environment):
    with psycopg.connect(environment["BACKEND_DATABASE_OWNER_URL"], autocommit=True) as owner:
        owner.execute("CREATE TABLE notes (tenant text, note text)")
        owner.execute("ALTER TABLE notes ENABLE ROW LEVEL SECURITY")
        owner.execute("CREATE POLICY mine ON notes USING (tenant = current_setting('app.tenant', true))")
        owner.execute("INSERT INTO notes VALUES ('one', 'of one'), ('two', 'of two')")
    with psycopg.connect(environment["BACKEND_DATABASE_URL"]) as application:
        application.execute("SET LOCAL app.tenant = 'one'")
        assert application.execute("SELECT note FROM notes").fetchall() == [("of one",)]
        application.execute("INSERT INTO notes VALUES ('one', 'more')")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            application.execute("INSERT INTO notes VALUES ('two', 'forged')")
        application.rollback()
        for forbidden in (
            "CREATE TABLE mine ()",
            "DROP TABLE notes",
            "ALTER TABLE notes DISABLE ROW LEVEL SECURITY",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                application.execute(forbidden)
            application.rollback()


def test_nobody_comes_in_without_a_password(environment):
    url = environment["BACKEND_DATABASE_URL"]
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url, password="guessed")
    with pytest.raises(psycopg.OperationalError, match="no password"):
        psycopg.connect(
            url.replace(url.split("@")[0].rpartition(":")[2], ""), user="postgres", dbname="postgres"
        )
    url = environment["BACKEND_REDIS_URL"]
    with redis.Redis.from_url(url) as known, redis.Redis.from_url(f"redis://{url.split('@')[1]}") as stranger:
        assert known.ping()
        with pytest.raises(redis.AuthenticationError):
            stranger.ping()


def test_storage_and_mail_are_there(environment, tmp_path):
    store = S3Store(
        environment["BACKEND_STORAGE_BUCKET"],
        endpoint=environment["BACKEND_STORAGE_URL"],
        region=environment["BACKEND_STORAGE_REGION"],
        access_key_id=environment["BACKEND_STORAGE_KEY"],
        secret_access_key=environment["BACKEND_STORAGE_SECRET"],
        client_options={"allow_http": True},
        virtual_hosted_style_request=False,
    )
    obstore.put(store, "key", b"value")
    assert httpx2.get(environment["BACKEND_STORAGE_URL"] + "/_control/objects").json()["key"]["size"] == 5
    with smtplib.SMTP(environment["BACKEND_SMTP_HOST"], int(environment["BACKEND_SMTP_PORT"])) as mail:
        assert mail.noop()[0] == 250
    assert httpx2.get(environment["FAKE_MAIL_URL"] + "/_control/requests").json() == {}


def test_the_file_of_settings_tells_all_of_them_and_no_others(environment):
    Settings.from_environment({**real.settings(), **environment})
    told = set(re.findall(r"^#?BACKEND_(\w+)=", real.SETTINGS.read_text(), re.MULTILINE))
    there = {field.name.upper() for field in dataclasses.fields(Settings)}
    assert told == there - {"VAR"}, "keep examples/backend/real.env and settings.py together"


def test_a_line_that_is_no_setting_is_refused(tmp_path):
    file = tmp_path / "wrong.env"
    file.write_text("# a comment\n\nONE=1=1\nnonsense\n")
    with pytest.raises(ValueError, match="line 4: 'nonsense' is not NAME=value"):
        real.settings(file)


def test_what_is_missing_is_said_all_at_once(monkeypatch, tmp_path):
    monkeypatch.setattr(real, "postgres_programs", lambda: None)
    monkeypatch.setattr(real, "redis_program", lambda name="redis-server": None)
    with pytest.raises(real.MissingError, match=r"(?s)PostgreSQL is not there\. .*Redis is not there\."):
        real.servers(tmp_path).__enter__()


def test_a_cluster_lies_where_its_user_can_enter(monkeypatch, tmp_path):
    open_to_all, closed = tmp_path / "open", tmp_path / "closed"
    for folder, mode in ((open_to_all, 0o755), (closed, 0o700)):
        folder.mkdir()
        folder.chmod(mode)
    monkeypatch.setattr(real, "ordinary_user", lambda: None)
    assert real._home(closed) == closed
    monkeypatch.setattr(real, "ordinary_user", lambda: "postgres")
    assert real._home(closed) is None
    monkeypatch.setattr(Path, "parents", property(lambda self: []))
    assert real._home(open_to_all) == open_to_all


LEFT_BY_A_FORK = """
import os, sys
from pathlib import Path
from examples.backend.fakes import real
with real.servers(Path(sys.argv[1])) as environment:
    if not os.fork():
        sys.exit(0)  # leaves the block, as a worker of gunicorn does
    os.wait()
    import httpx2, psycopg, redis
    psycopg.connect(environment["BACKEND_DATABASE_URL"]).close()
    redis.Redis.from_url(environment["BACKEND_REDIS_URL"]).ping()
    httpx2.get(environment["BACKEND_STORAGE_URL"] + "/_control/requests")
    httpx2.get(environment["FAKE_MAIL_URL"] + "/_control/requests")
    print("all there")
"""


def test_a_forked_process_that_leaves_ends_nothing(tmp_path):
    said = subprocess.check_output(
        [sys.executable, "-c", LEFT_BY_A_FORK, tmp_path / "var"], cwd=ROOT, text=True
    )
    assert said == "all there\n"
    assert list((tmp_path / "var/real").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_servers_end_with_the_process_however_it_ends(number, tmp_path):
    command = [sys.executable, "-m", "examples.backend.fakes.real", "--var", tmp_path / "var"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        told = dict(
            process.stdout.readline().removeprefix("export ").strip().split("=", 1) for _ in range(11)
        )
        ports = [int(url.rpartition(":")[2].partition("/")[0]) for name, url in told.items() if "URL" in name]
        ports.append(int(told["BACKEND_SMTP_PORT"]))
        assert all(map(is_open, ports))
        process.send_signal(number)
        assert process.wait(20.0) == (-9 if number == signal.SIGKILL else 0)
    wait_until(lambda: not any(map(is_open, ports)), 20.0)
    wait_until(lambda: list((tmp_path / "var/real").iterdir()) == [], 20.0)


def is_open(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
