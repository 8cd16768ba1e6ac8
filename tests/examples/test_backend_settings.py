"""Settings: read from the environment, or refused with a word on what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples.backend.settings import Settings


def test_every_kind_of_value_is_read():
    settings = Settings.from_environment(
        {
            "BACKEND_VAR": "/srv/backend",
            "BACKEND_TRUSTED_PROXIES": "10.0.0.0/8, 192.168.0.0/16",
            "BACKEND_MAX_BODY": "1024",
            "BACKEND_TELEPHONY_RECOVERY": "0.5",
            "BACKEND_PUBLIC_URL": "https://backend.example.com",
            "HOME": "/root",
        }
    )
    assert settings.var == Path("/srv/backend")
    assert settings.trusted_proxies == ("10.0.0.0/8", "192.168.0.0/16")
    assert settings.max_body == 1024
    assert settings.telephony_recovery == 0.5
    assert settings.secure_cookies


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("BACKEND_TELEFONY_URL", "x", "no such setting: BACKEND_TELEFONY_URL"),
        ("BACKEND_MAX_BODY", "much", "BACKEND_MAX_BODY='much': a whole number is expected"),
        ("BACKEND_DRAIN_NOTICE", "long", "BACKEND_DRAIN_NOTICE='long': a number is expected"),
        ("BACKEND_ENVIRONMENT", "staging", "BACKEND_ENVIRONMENT='staging': one of production, development"),
        ("BACKEND_LIMITER_STORE", "disk", "BACKEND_LIMITER_STORE='disk': one of memory, sqlite"),
        ("BACKEND_TRUSTED_PROXIES", "10.0.0.0/8, proxy", "BACKEND_TRUSTED_PROXIES: cannot trust 'proxy'"),
        ("BACKEND_TELEPHONY_URL", "api.example.com", "https:// is expected"),
        ("BACKEND_DRAIN_NOTICE", "nan", "BACKEND_DRAIN_NOTICE=nan: 0 or more is expected"),
        ("BACKEND_RECORDING_DEADLINE", "-3", "BACKEND_RECORDING_DEADLINE=-3.0: more than 0 is expected"),
        ("BACKEND_HASHING_THREADS", "0", "BACKEND_HASHING_THREADS=0: more than 0 is expected"),
        ("BACKEND_LIMITER_STORE", "redis", "BACKEND_LIMITER_STORE=redis needs BACKEND_REDIS_URL"),
        ("BACKEND_BODY_TIMEOUT", "0", "BACKEND_BODY_TIMEOUT=0.0: more than 0 is expected"),
        ("BACKEND_SECRET", "short", "BACKEND_SECRET has 5 characters: use at least 32"),
        ("BACKEND_MONITORING_TOKEN", "hunter2", "BACKEND_MONITORING_TOKEN has 7 characters: use at least 20"),
    ],
)
def test_what_cannot_be_read_is_refused(name, value, message):
    with pytest.raises(ValueError, match=message):
        Settings.from_environment({name: value})


@pytest.mark.parametrize("name", ["telephony_url", "storage_url"])
def test_keys_and_recordings_leave_this_machine_encrypted_only(name):
    for address in ("http://127.0.0.1:1", "http://[::1]:1", "http://localhost", "https://example.com"):
        assert getattr(Settings(**{name: address}), name) == address
    with pytest.raises(ValueError, match="https:// is expected"):
        Settings(**{name: "http://example.com"})
    assert Settings(**{name: "http://example.com"}, environment="development")


@pytest.mark.parametrize(
    ("processes", "message"),
    [(0, "--workers 0: 1 or more"), (2, "2 processes that count in memory would let through 2 times")],
)
def test_processes_that_would_count_by_themselves_are_refused(processes, message):
    with pytest.raises(ValueError, match=message):
        Settings().check_processes(processes)
    Settings().check_processes(1)
    Settings(limiter_store="sqlite").check_processes(8)


def test_nothing_that_everybody_knows_opens_a_backend_as_it_comes():
    settings = Settings()
    assert settings.webhook_tenants == ()
    assert (settings.demo_password, settings.monitoring_token, settings.secret) == ("", "", "")
