"""The backend's reports: what they say, how those of several processes become one, and who may see them."""

from __future__ import annotations

import contextlib
import logging
import secrets
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import httpx2
import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import make_url
from sqlalchemy.exc import OperationalError

from examples.backend.api import monitoring as routes
from examples.backend.api.http import Incoming
from examples.backend.kit import BlockingKit, drive
from examples.backend.monitoring import Monitoring, merging, metrics
from examples.backend.monitoring.operators import require_operator
from examples.backend.ports.database import Database, migrate
from examples.backend.ports.reports import ENDED, FOLDED, DatabaseReports, added
from examples.backend.settings import Settings
from examples.backend.telemetry import MOST_EVENTS, Recorder, log_event
from resilience import CircuitBreaker, RateLimiter, RetryManager, ServiceError, SessionJanitor
from resilience.events import (
    BreakerChanged,
    MemoryAlert,
    RateLimited,
    RetryScheduled,
    RetryStopped,
    RetrySucceeded,
    StoreOutage,
    SweepFailed,
    SweepFinished,
)
from resilience.janitor import MemoryWatch
from resilience.janitor.usage import Usage
from resilience.stores import StoreUnavailable
from resilience.stores.memory import MemoryStore
from resilience.testing import FakeClock
from tests.examples.backend_process import wait_until
from tests.janitor.doubles import Store
from tests.limiter.servers import Server

WALL = 1736937000.0
SECRET = b"a secret of all processes"


@pytest.fixture
def clock():
    return FakeClock(wall=WALL, auto=False)


@pytest.fixture
def url(tmp_path):
    url = f"sqlite:///{tmp_path / 'data.db'}"
    migrate(url)
    return url


@pytest.fixture
def processes(url, clock):
    """Return a function that makes one more process of the backend, as far as monitoring is concerned."""
    with contextlib.ExitStack() as stack:

        def process(**parts):
            kit = BlockingKit()
            database = Database(url, kit.workers("The database", threads=2, queue=100), connections=2)
            stack.callback(database.close)
            store = parts.pop("store", None) or MemoryStore(clock=clock)
            backend = SimpleNamespace(
                kit=SimpleNamespace(
                    periodic=lambda job, interval, name: SimpleNamespace(start=int, stop=Stop())
                ),
                settings=Settings(),
                database=database,
                draining=False,
                janitor=parts.pop("janitor", None) or SessionJanitor(Store(), clock=clock),
                breakers=[CircuitBreaker(2, 60.0, name="storage", clock=clock, recovery_jitter=0.0)],
                retries={"storage": RetryManager(name="storage", clock=clock)},
                limits=SimpleNamespace(all=[RateLimiter("2/hour", name="login", store=store)]),
            )
            monitoring = Monitoring(backend, SECRET, clock)
            drive(monitoring.start())
            stack.callback(monitoring._unsubscribe)
            monitoring.backend = backend
            return monitoring

        yield process


class Stop:
    def __call__(self, timeout):
        return True


def fail(monitoring, times=1):
    def down():
        raise ConnectionError

    for _ in range(times):
        with contextlib.suppress(Exception):
            monitoring.backend.breakers[0].execute(down)


def report(monitoring, name):
    return drive(getattr(monitoring, name)())


# --- one process ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("resident", "status"), [(790_000_000, "pass"), (810_000_000, "warn")])
def test_memory_that_is_high_is_a_warning(processes, resident, status):
    watch = MemoryWatch(reader=lambda: Usage(resident, limit=1_000_000_000))
    watch.check()
    janitor = SessionJanitor(Store(), memory=watch, clock=FakeClock(auto=False))
    with janitor:
        health = report(processes(janitor=janitor), "health")

    assert health["checks"]["memory"]["status"] == status
    assert health["status"] == status


def test_the_last_sweep_is_told_as_other_instants_are(processes):
    janitor = SessionJanitor(Store(expired=2), clock=FakeClock(wall=WALL))
    monitoring = processes(janitor=janitor)
    assert report(monitoring, "cleanup_stats")["last_sweep_at"] is None
    janitor.sweep()

    assert report(monitoring, "cleanup_stats")["last_sweep_at"] == "2025-01-15T10:30:00Z"
    assert report(monitoring, "cleanup_stats")["sessions_cleaned"] == 2


def test_an_open_breaker_is_a_warning_with_its_timeline_and_load(processes, clock):
    monitoring = processes()
    clock.advance(100.0)
    fail(monitoring, times=3)

    health = report(monitoring, "health")
    assert health["checks"]["breaker:storage"] == {"status": "warn", "output": "open"}
    (breaker,) = report(monitoring, "breakers")["breakers"]
    assert breaker["state"] == "open"
    assert breaker["time_until_retry"] == 60.0
    assert breaker["timeline"] == [
        {"at": "2025-01-15T10:30:00.000Z", "state": "closed"},
        {"at": "2025-01-15T10:31:40.000Z", "state": "open"},
    ]
    assert breaker["load"]["failures"][-1] == 2  # the third was refused
    assert len(breaker["load"]["calls"]) == 60


def test_the_overview_is_all_reports_of_one_instant(processes):
    overview = report(processes(), "overview")
    assert overview["now"] == "2025-01-15T10:30:00.000Z"
    assert overview.keys() == {
        "now", "health", "breakers", "retries", "limits", "janitor", "processes", "events",
    }  # fmt: skip
    assert overview["retries"]["policies"]["storage"]["budget"] == {"tokens": 5.0, "capacity": 5.0}
    (process,) = overview["processes"]
    assert process["app"] == "wsgi"
    assert report(processes(), "events")["events"] == []


@pytest.mark.parametrize(
    ("started", "draining", "ready", "startup"),
    [(False, False, 503, 503), (True, False, 200, 200), (True, True, 503, 200)],
)
def test_only_a_process_that_has_begun_and_does_not_end_wants_requests(started, draining, ready, startup):
    backend = SimpleNamespace(started=started, draining=draining)
    assert drive(routes.live(backend, None)).status == 200
    assert drive(routes.ready(backend, None)).status == ready
    assert drive(routes.startup(backend, None)).status == startup


def test_limits_are_told_with_hashed_keys_and_the_fullest_first(processes):
    monitoring = processes()
    (limiter,) = monitoring.backend.limits.all
    limiter.try_acquire("bob", "192.0.2.7")
    for _ in range(3):
        limiter.try_acquire("ada", "192.0.2.7")

    (login,) = report(monitoring, "rate_limit_stats")["limiters"]
    assert [(entry["count"], entry["limit"]) for entry in login["entries"]] == [(2, 2), (1, 2)]
    assert login["refused"] == 1
    assert login["entries"][0]["reset_at"] == "2025-01-15T11:30:00Z"
    key = login["entries"][0]["key"]
    assert report(monitoring, "events")["events"][0]["message"] == f"refused {key}"
    assert "ada" not in str(report(monitoring, "overview"))


def test_operators_are_asked_for_by_the_settings(processes):
    monitoring = processes()
    with pytest.raises(ServiceError, match="this machine only"):
        monitoring.require_operator(asked_by(peer="192.0.2.1"))


def test_the_overview_does_without_the_limits_when_their_store_is_away(processes):
    class Away(MemoryStore):
        shared = True

        def holding(self, counters, limit):
            raise StoreUnavailable("limits")

    monitoring = processes(store=Away(clock=FakeClock()))
    with pytest.raises(ServiceError):
        report(monitoring, "rate_limit_stats")
    assert report(monitoring, "overview")["limits"] == {
        "limiters": [],
        "output": "the store of the limits does not answer",
    }


def test_asvs_16_5_2_health_says_that_limits_cannot_be_counted_and_the_log_says_it_once(processes, caplog):
    caplog.set_level(logging.INFO, "backend.monitoring")
    store = Server(FakeClock())
    monitoring = processes(store=store)
    assert report(monitoring, "health")["checks"]["limits"]["status"] == "pass"
    store.is_away = True
    for _ in range(3):
        drive(monitoring.exchange())
    health = report(monitoring, "health")
    assert (health["status"], health["checks"]["limits"]["status"]) == ("warn", "warn")
    store.is_away = False
    drive(monitoring.exchange())
    assert report(monitoring, "health")["checks"]["limits"] == {"status": "pass", "output": "are counted"}
    assert caplog.messages == [
        "limits cannot be counted, so nobody can log in: the server is away",
        "limits are counted again",
    ]


# --- several processes ---------------------------------------------------------------------------


def test_counts_of_all_processes_are_added_and_a_breaker_is_shown_once(processes, clock):
    one, other = processes(), processes()
    fail(one, times=2)
    fail(other)
    drive(one.exchange())
    drive(other.exchange())

    (breaker,) = report(other, "breakers")["breakers"]
    assert breaker["state"] == "open"
    assert breaker["failures"] == 3
    assert sorted(breaker["processes"].values()) == ["closed", "open"]
    assert len(report(other, "processes")["processes"]) == 2
    assert report(other, "retry_stats")["policies"]["storage"]["budget"]["capacity"] == 10.0


def test_limits_in_memory_are_those_of_every_process(processes):
    one, other = processes(), processes()
    one.backend.limits.all[0].try_acquire("ada")
    other.backend.limits.all[0].try_acquire("ada")
    drive(one.exchange())
    drive(other.exchange())

    (login,) = report(other, "rate_limit_stats")["limiters"]
    assert login["active_keys"] == 2
    assert len({entry["key"] for entry in login["entries"]}) == 1  # both hash it alike


def test_a_process_that_is_silent_is_gone_after_ten_seconds(processes, clock):
    one, other = processes(), processes()
    clock.advance(9.0)
    drive(one.exchange())
    assert len(report(one, "processes")["processes"]) == 2
    clock.advance(2.0)
    drive(one.exchange())
    assert len(report(one, "processes")["processes"]) == 1
    assert other is not one


def test_a_process_that_has_left_is_gone_at_once_but_not_its_counts(processes, clock):
    one, other = processes(), processes()
    fail(other, times=2)
    before = counter(other, "resilience_breaker_changes_total")
    drive(other.close())
    drive(one.exchange())
    assert len(report(one, "processes")["processes"]) == 1
    assert counter(one, "resilience_breaker_changes_total") >= before > 0


def counter(monitoring, name):
    return sum(
        sample.value
        for family in text_string_to_metric_families(report(monitoring, "metrics").decode())
        for sample in family.samples
        if sample.name == name
    )


def test_without_the_database_a_process_shows_what_it_knows_and_says_so_once(processes, clock, caplog):
    monitoring = processes()

    async def away(*_):
        raise OperationalError("SELECT", {}, Exception("no such server"))

    monitoring._reports.exchange = away
    for _ in range(7):
        clock.advance(1.0)
        drive(monitoring.exchange())

    assert report(monitoring, "health")["checks"]["database"] == {
        "status": "fail",
        "output": "does not answer",
    }
    assert report(monitoring, "breakers")["breakers"][0]["state"] == "closed"
    assert sum("reports cannot be exchanged" in record.message for record in caplog.records) == 1

    monitoring._reports.leave = away
    drive(monitoring.close())
    assert "could not take leave" in caplog.text


# --- orders --------------------------------------------------------------------------------------


def test_an_order_is_followed_here_at_once_and_by_the_others_with_their_next_report(processes):
    one, other = processes(), processes()
    answer = drive(one.order("storage", "force-open"))
    assert answer == {"name": "storage", "state": "forced-open", "everywhere": True}
    drive(other.exchange())
    assert other.backend.breakers[0].state == "forced-open"

    drive(other.order("storage", "reset"))
    fail(one)  # refused: it has not heard of the reset
    drive(one.exchange())
    assert one.backend.breakers[0].state == "closed"
    fail(one, times=2)
    drive(one.exchange())
    assert one.backend.breakers[0].state == "open"  # an order is followed once


def test_a_hold_binds_processes_that_start_later_and_a_reset_of_long_ago_does_nothing(processes):
    drive(processes().order("storage", "force-close"))
    assert processes().backend.breakers[0].state == "forced-closed"
    drive(processes().order("storage", "reset"))
    assert processes().backend.breakers[0].state == "closed"


def test_an_order_without_the_database_is_followed_here_only(processes):
    monitoring = processes()

    async def away(*_):
        raise OperationalError("INSERT", {}, Exception("no such server"))

    monitoring._reports.order = away
    answer = drive(monitoring.order("storage", "force-open"))
    assert answer == {"name": "storage", "state": "forced-open", "everywhere": False}


def test_there_are_no_orders_about_breakers_that_are_not_there(processes):
    one, other = processes(), processes()
    with pytest.raises(ServiceError, match="not found"):
        drive(one.order("elsewhere", "reset"))
    drive(one.order("storage", "reset"))
    other.backend.breakers = []
    drive(other.exchange())


@pytest.mark.parametrize("server", ["asgi-real"], indirect=True)
def test_two_real_processes_are_shown_as_one_backend_and_follow_the_same_orders(server):
    def states():
        (breaker,) = (one for one in server.monitoring("breakers")["breakers"] if one["name"] == "telephony")
        return list(breaker["processes"].values())

    def order(action):
        path = f"/api/monitoring/breakers/telephony/{action}"
        assert httpx2.post(server.url + path).json()["everywhere"]

    wait_until(lambda: len(server.monitoring("processes")["processes"]) == 2)
    order("force-close")  # harms no other test
    wait_until(lambda: states() == ["forced-closed"] * 2)
    order("reset")
    wait_until(lambda: states() == ["closed"] * 2)


# --- who may look --------------------------------------------------------------------------------


def ask(token="", public_url="", **asked):
    require_operator(token, public_url, asked_by(**asked))


def asked_by(peer="127.0.0.1", **headers):
    headers = {"host": "127.0.0.1:8000"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return Incoming(method="POST", path="/", parameters={}, query="", headers=headers, peer=peer, read=None)


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"peer": "::1", "host": "[::1]:8000"},
        {"peer": "::ffff:127.0.0.1", "host": "localhost"},
        {"sec_fetch_site": "same-origin", "origin": "http://127.0.0.1:8000"},
        {"sec_fetch_site": "none"},
        {"public_url": "http://127.0.0.1:8000"},
        {"public_url": "https://backend.example.com", "token": "t0ken", "authorization": "Bearer t0ken"},
        {"token": "t0ken", "authorization": "Bearer t0ken", "peer": "192.0.2.1", "host": "example.com"},
    ],
)
def test_asvs_13_4_5_operators_may_look(asked):
    ask(**asked)


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({"peer": "192.0.2.1"}, 403),
        ({"peer": None}, 403),
        ({"peer": "a socket"}, 403),
        ({"x_forwarded_for": "127.0.0.1"}, 403),
        ({"forwarded": "for=127.0.0.1"}, 403),
        ({"public_url": "https://backend.example.com"}, 403),  # a proxy may look like this machine itself
        ({"host": "rebound.example.com"}, 403),
        ({"host": "localhost.example.com"}, 403),
        ({"host": ""}, 403),
        ({"host": "[::1"}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "same-site", "origin": "http://127.0.0.1:9999"}, 403),
        ({"origin": "http://127.0.0.1:9999"}, 403),
        ({"origin": "https://example.com"}, 403),
        ({"origin": "null"}, 403),
        ({"token": "t0ken"}, 401),
        ({"token": "t0ken", "authorization": "Bearer t0kem"}, 401),
        ({"token": "t0ken", "authorization": "Bearer t\xf6ken"}, 401),
        ({"token": "t0ken", "authorization": "t0ken"}, 401),
    ],
)
def test_asvs_13_4_5_nobody_else_may_nor_a_page_in_an_operators_browser(asked, status):
    with pytest.raises(ServiceError) as refused:
        ask(**asked)
    assert refused.value.status == status


# --- metrics -------------------------------------------------------------------------------------


def test_metrics_are_what_prometheus_reads_and_bear_no_keys(processes):
    monitoring = processes()
    fail(monitoring, times=2)
    for _ in range(3):
        monitoring.backend.limits.all[0].try_acquire("ada@example.com")
    text = report(monitoring, "metrics").decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    samples = {
        (sample.name, tuple(sorted(sample.labels.values()))): sample.value
        for family in families.values()
        for sample in family.samples
    }
    assert samples["resilience_breaker_state", ("open", "storage")] == 1.0
    assert samples["resilience_breaker_state", ("closed", "storage")] == 0.0
    assert samples["resilience_breaker_changes_total", ("open", "storage")] == 1.0
    assert samples["resilience_limiter_refusals_total", ("login",)] == 1.0
    assert samples["resilience_retry_budget_tokens", ("storage",)] == 5.0
    assert samples["resilience_janitor_sessions_cleaned_total", ()] == 0.0
    assert samples["backend_processes", ()] == 1.0
    assert families["resilience_retries"].type == "counter"
    assert "ada" not in text


# --- reports in the database ---------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "postgres"])
def either_url(request):
    """A database of each kind, with its tables."""
    if request.param == "sqlite":
        yield request.getfixturevalue("url")
        return
    server = request.getfixturevalue("postgres_server")
    name = f"reports_{secrets.token_hex(6)}"
    with psycopg.connect(server.url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        url = make_url(server.url).set(database=name).render_as_string(hide_password=False)
        migrate(url)
        yield url
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def exchanges(either_url):
    """Return a function that makes one more process that writes reports, which say what it is told."""
    with contextlib.ExitStack() as stack:

        def exchange():
            workers = BlockingKit().workers("The database", threads=1, queue=9)
            database = Database(either_url, workers, connections=1)
            stack.callback(database.close)
            reports = DatabaseReports(database)
            return lambda process, sweeps, now: drive(
                reports.exchange(process, {"counts": {"sweeps": {"success": sweeps}}}, now)
            )

        yield exchange


def sweeps(found):
    return found.counts.get("sweeps", {}).get("success", 0)


def test_sums_never_shrink_while_processes_come_and_go(exchanges):
    watcher = exchanges()
    now, last = 0.0, 0
    for number in range(5):
        exchanges()(f"process {number}", 10, now)
        for _ in range(4):
            now += FOLDED / 3
            found = watcher("watcher", 0, now)
            assert sweeps(found) >= last
            last = sweeps(found)
    assert last == 50
    assert [other for other in found.others if "process" in other] == []


def test_a_process_that_was_suspended_is_not_counted_twice(exchanges):
    sleeper, watcher = exchanges(), exchanges()
    sleeper("sleeper", 7, 0.0)
    watcher("watcher", 0, FOLDED + 1)  # folds it
    assert sweeps(watcher("watcher", 0, FOLDED + 2)) == 7
    found = sleeper("sleeper", 9, FOLDED + 3)
    assert 9 + sweeps(found) == 9
    assert sweeps(watcher("watcher", 0, FOLDED + 4)) == 9
    sleeper("sleeper", 10, FOLDED + 5)
    assert sweeps(watcher("watcher", 0, FOLDED + 6)) == 10


def test_what_several_processes_fold_at_the_same_time_is_counted_once(exchanges):
    for number in range(20):
        exchanges()(f"ended {number}", 1, 0.0)
    watchers = [exchanges() for _ in range(4)]
    with ThreadPoolExecutor() as pool:
        for time in (FOLDED + 1, FOLDED + 2):
            found = list(pool.map(lambda n, now=time: watchers[n](f"watcher {n}", 0, now), range(4)))
    assert [sweeps(each) for each in found] == [20] * 4


def test_no_process_can_be_taken_for_the_ended_ones():
    assert ":" not in ENDED
    assert Recorder(SECRET).process.count(":") == 2


def test_counts_are_added_and_taken_away():
    assert added([{"a": {"x": 2}}, {"a": {"x": 1}, "b": {"": 1}}], minus={"a": {"x": 1}}) == {
        "a": {"x": 2},
        "b": {"": 1},
    }


def test_memory_that_is_unknown_in_one_process_is_unknown(processes):
    reports = drive(processes()._all()) * 2
    reports[1]["process"]["memory"]["resident"] = None
    assert merging.janitor(reports)["memory"] == "unknown"
    assert b"backend_memory_resident_bytes" not in metrics.text(reports, {})


# --- the record ----------------------------------------------------------------------------------


def opening(name="storage", after="open", before="closed", **figures):
    figures = {"calls": 5, "failures": 4, "slow": 0, "retry_after": 5.0} | figures
    return BreakerChanged(name=name, before=before, after=after, reason="failure ratio", **figures)


OUTAGE = StoreOutage("login", "open", StoreUnavailable("limits"))

EVENTS = [
    (opening(), "breaker storage: open, was closed (failure ratio; 4 of 5 calls failed)"),
    (
        opening(after="closed", before="half-open", calls=0),
        "breaker storage: closed, was half-open (failure ratio)",
    ),
    (
        RateLimited("login", ("ada@example.com", "192.0.2.1"), 9.0),
        "limit login refused a***@example.com, 192.0.2.1",
    ),
    (RetryScheduled("storage", 1, 0.25, None, None), "retries storage: attempt 1 failed, another in 0.25 s"),
    (RetrySucceeded("storage", 2, 0.5), "retries storage: succeeded with attempt 2"),
    (
        RetryStopped("storage", 3, 0.5, "deadline", None),
        "retries storage: given up after attempt 3: deadline",
    ),
    (OUTAGE, "limit login decided open: its store is away"),
    (MemoryAlert("sessions", 9, 10, 0.0), "janitor sessions: 9 of 10 bytes of memory in use"),
    (SweepFailed("sessions", OSError()), "janitor sessions: a sweep failed: OSError"),
    (SweepFinished("sessions", 3, 0.1, True, False), "janitor sessions: 3 ended sessions removed"),
    (SweepFinished("sessions", 0, 0.1, True, False), None),
    ("something else", None),
]


@pytest.mark.parametrize(("event", "line"), EVENTS)
def test_what_an_operator_wants_to_know_of_is_logged(event, line, caplog):
    with caplog.at_level(logging.INFO, "backend.policies"):
        log_event(event)
    logged = line is not None and event is not OUTAGE  # which comes with each call, and is logged once
    assert caplog.messages == ([line] if logged else [])


def test_the_same_ones_are_recorded_with_keys_hashed(clock):
    recorder = Recorder(SECRET, clock)
    for event, _ in EVENTS:
        recorder(event)
        clock.advance(1.0)
    events = recorder.events()
    assert len(events) == sum(line is not None for _, line in EVENTS)
    assert [event["at"] for event in events] == sorted((event["at"] for event in events), reverse=True)
    assert "ada" not in str(events)
    assert recorder.counts() == {
        "breaker_changes": {"storage|open": 1, "storage|closed": 1},
        "limiter_refusals": {"login": 1},
        "store_outages": {"login|open": 1},
    }


def test_a_flood_of_one_event_takes_one_place_and_hides_nothing(clock):
    recorder = Recorder(SECRET, clock)
    recorder(opening())
    for attempt in range(10 * MOST_EVENTS):
        recorder(RetryScheduled("storage", 1, attempt / 1000, None, None))
    scheduled, opened = sorted(recorder.events(), key=lambda event: event["kind"], reverse=True)
    assert scheduled["times"] == 10 * MOST_EVENTS
    assert scheduled["message"] == "attempt 1 failed, another in 1.00 s"
    assert opened["times"] == 1
    clock.advance(11.0)
    recorder(RetryScheduled("storage", 1, 0.1, None, None))
    assert len(recorder.events()) == 3


def test_a_timeline_begins_with_the_state_of_ten_minutes_ago(clock):
    recorder = Recorder(SECRET, clock)
    breaker = CircuitBreaker(name="storage", clock=clock)
    assert recorder.timeline(breaker) == [(WALL, "closed")]
    for _ in range(4):
        clock.advance(200.0)
        recorder(opening())
        clock.advance(10.0)
        recorder(opening(after="closed", before="open"))
    states = recorder.timeline(breaker)
    now = WALL + 840.0
    assert states[0][0] <= now - 600.0 < states[1][0]
    assert len(states) == 7


def test_calls_are_seen_once_in_each_step_and_forgotten_after_ten_minutes(clock):
    recorder = Recorder(SECRET, clock)
    breaker = CircuitBreaker(name="storage", clock=clock, window=10.0)
    for _ in range(70):
        for _ in range(3):
            breaker.execute(int)
        clock.advance(9.0)
        recorder.look_at([breaker])
        clock.advance(1.0)
    load = recorder.load(breaker)
    assert len(load) == 61
    assert set(load.values()) == {(3, 0)}


def test_what_opened_a_breaker_is_not_hidden_by_what_came_after(clock):
    recorder = Recorder(SECRET, clock)
    breaker = CircuitBreaker(name="storage", clock=clock)
    recorder(opening(calls=5, failures=4))
    recorder.look_at([breaker])
    assert list(recorder.load(breaker).values()) == [(5, 4)]
    breaker.force_open()
    clock.advance(10.0)
    recorder.look_at([breaker])
    assert len(recorder.load(breaker)) == 1  # of an open one there is nothing to see


def test_a_probe_that_failed_is_not_told_by_the_calls_that_opened_it(clock):
    recorder = Recorder(SECRET, clock)
    breaker = CircuitBreaker(name="storage", clock=clock)
    recorder(opening(before="half-open"))
    assert recorder.load(breaker) == {}
    assert recorder.events()[0]["message"] == "open, was half-open (failure ratio)"


def test_keys_that_are_written_alike_are_hashed_apart():
    recorder = Recorder(SECRET)
    assert recorder.hashed(("a/b", "c")) != recorder.hashed(("a", "b/c"))
    assert recorder.hashed(("ada",)) == Recorder(SECRET).hashed(("ada",))
    assert recorder.hashed(("ada",)) != Recorder(b"another secret").hashed(("ada",))
