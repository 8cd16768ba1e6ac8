"""The S3 stand-in: what S3 does and refuses, and faults as told."""

from __future__ import annotations

import hashlib
import io
from datetime import UTC, datetime, timedelta

import httpx2
import obstore
import pytest
from obstore.exceptions import BaseError, GenericError, UnauthenticatedError
from obstore.store import S3Store

from examples.backend.fakes import sigv4
from examples.backend.fakes.process import started
from resilience.testing import wait_until

SOUND = bytes(range(256)) * 100


@pytest.fixture(scope="module")
def address():
    with started("storage") as address:
        yield address


@pytest.fixture
def control(address):
    with httpx2.Client(base_url=address, timeout=10.0) as client:
        yield client
        client.delete("/_control/faults")


def store_at(address, **changed):
    known = {"access_key_id": "demo-key", "secret_access_key": "demo-secret", "region": "us-east-1"} | changed
    return S3Store(
        "recordings",
        endpoint=address,
        virtual_hosted_style_request=False,
        client_options={"allow_http": True, "timeout": "5s"},
        retry_config={"max_retries": 0},
        **known,
    )


@pytest.fixture
def store(address):
    return store_at(address)


def objects(control):
    return control.get("/_control/objects").json()


def test_an_object_is_stored_with_size_type_and_metadata(store, control):
    attributes = {"Content-Type": "audio/wav", "sha256": "abc"}
    obstore.put(store, "tenant/ä b.wav", SOUND, attributes=attributes, use_multipart=False)
    assert obstore.head(store, "tenant/ä b.wav")["size"] == len(SOUND)
    found = obstore.get(store, "tenant/ä b.wav")
    assert found.attributes == attributes
    assert found.bytes() == SOUND
    assert obstore.get_range(store, "tenant/ä b.wav", start=5, end=8) == SOUND[5:8]
    known = {"size": len(SOUND), "sha256": hashlib.sha256(SOUND).hexdigest()}
    assert objects(control)["tenant/ä b.wav"] == known
    assert control.get("/_control/subjects").json()["tenant/ä b.wav"]["PUT"] == 1
    obstore.delete(store, "tenant/ä b.wav")
    assert "tenant/ä b.wav" not in objects(control)


def test_an_object_comes_in_parts(store, control):
    whole = SOUND * 250
    obstore.put(store, "parts", io.BytesIO(whole), chunk_size=5 * 1024 * 1024, use_multipart=True)
    assert objects(control)["parts"]["sha256"] == hashlib.sha256(whole).hexdigest()
    assert control.get("/_control/subjects").json()["parts"] == {"POST": 2, "PUT": 2}


def test_a_presigned_url_holds_for_its_object_its_host_and_its_time(store, address):
    obstore.put(store, "shared", SOUND)
    obstore.put(store, "private", SOUND)
    url = obstore.sign(store, "GET", "shared", timedelta(seconds=60))
    assert httpx2.get(url).content == SOUND
    assert httpx2.get(url, headers={"Range": "bytes=0-1"}).status_code == 206
    assert "SignatureDoesNotMatch" in httpx2.get(url.replace("shared", "private")).text
    assert "SignatureDoesNotMatch" in httpx2.get(url, headers={"Host": "elsewhere:80"}).text
    assert "SignatureDoesNotMatch" in httpx2.get(url.replace("X-Amz-Expires=60", "X-Amz-Expires=600")).text
    assert "SignatureDoesNotMatch" in httpx2.delete(url).text
    assert "AccessDenied" in httpx2.get(url.partition("?")[0]).text
    brief = obstore.sign(store, "GET", "shared", timedelta(seconds=1))
    wait_until(lambda: httpx2.get(brief).status_code == 403, 10.0)
    assert "Request has expired" in httpx2.get(brief).text


@pytest.mark.parametrize("wrong", [{"secret_access_key": "guessed"}, {"access_key_id": "other"}])
def test_who_does_not_know_the_secret_is_refused(address, wrong):
    with pytest.raises((UnauthenticatedError, BaseError), match=r"403 Forbidden|PermissionDenied"):
        obstore.put(store_at(address, **wrong), "x", b"", use_multipart=False)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("slow-down", "SlowDown"),
        ("unavailable", "ServiceUnavailable"),
        ("internal-error", "InternalError"),
        ("rate", "RequestRateLimitExceeded"),
        ("skew", "RequestTimeTooSkewed"),
        ("lockout", "AuthenticationLockout"),
        ("reset", "error sending request"),
    ],
)
def test_a_put_that_fails_stores_nothing(store, control, kind, said):
    control.post("/_control/faults", json={"kinds": [kind], "next": 1})
    with pytest.raises(BaseError, match=said):
        obstore.put(store, kind, SOUND, use_multipart=False)
    assert kind not in objects(control)
    obstore.put(store, kind, SOUND, use_multipart=False)
    assert objects(control)[kind]["size"] == len(SOUND)


@pytest.mark.parametrize("kind", ["late-error", "late-reset"])
def test_a_put_that_fails_late_has_stored_it_all_the_same(store, control, kind):
    control.post("/_control/faults", json={"kinds": [kind]})
    with pytest.raises(GenericError):
        obstore.put(store, kind, SOUND, use_multipart=False)
    assert objects(control)[kind]["size"] == len(SOUND)


def test_bodies_go_wrong(store, control):
    obstore.put(store, "sound", SOUND)
    control.post("/_control/faults", json={"kinds": ["torn"], "next": 1})
    with pytest.raises(GenericError):
        obstore.get(store, "sound").bytes()
    control.post("/_control/faults", json={"slow": 0.1, "on": "GET", "next": 1})
    assert obstore.get(store, "sound").bytes() == SOUND
    control.post("/_control/faults", json={"delay": 0.05, "kinds": [], "next": 1})
    assert obstore.get(store, "sound").bytes() == SOUND


# --- signatures ----------------------------------------------------------------------------------

KEY = "AKIAIOSFODNN7EXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
THEN = datetime(2013, 5, 24, tzinfo=UTC).timestamp()
EMPTY = hashlib.sha256().hexdigest()


def check(target="/test.txt", headers=None, body=b"", now=THEN):
    sigv4.check("GET", target, headers or {}, body, key=KEY, secret=SECRET, now=now)


def signed(**changed):
    scope = f"{KEY}/20130524/us-east-1/s3/aws4_request"
    signature = "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    return {
        "host": "examplebucket.s3.amazonaws.com",
        "range": "bytes=0-9",
        "x-amz-content-sha256": EMPTY,
        "x-amz-date": "20130524T000000Z",
        "authorization": f"AWS4-HMAC-SHA256 Credential={scope},"
        f"SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,Signature={signature}",
    } | changed


def presigned(**changed):
    """Return the path of the presigned URL in Amazon's description."""
    query = {
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"{KEY}%2F20130524%2Fus-east-1%2Fs3%2Faws4_request",
        "X-Amz-Date": "20130524T000000Z",
        "X-Amz-Expires": "86400",
        "X-Amz-SignedHeaders": "host",
        "X-Amz-Signature": "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404",
    }
    query |= {name.replace("_", "-"): value for name, value in changed.items()}
    return "/test.txt?" + "&".join(f"{name}={value}" for name, value in query.items() if value)


HOST = {"host": "examplebucket.s3.amazonaws.com"}


def test_the_examples_of_amazons_description_are_accepted():
    check(headers=signed())
    check(presigned(), HOST)
    check(presigned(), HOST, now=THEN + 86_400)


@pytest.mark.parametrize(
    ("target", "headers", "now", "code"),
    [
        ("/test.txt", signed(range="bytes=0-10"), THEN, "SignatureDoesNotMatch"),
        ("/other.txt", signed(), THEN, "SignatureDoesNotMatch"),
        ("/test.txt?more", signed(), THEN, "SignatureDoesNotMatch"),
        ("/test.txt", signed(), THEN + 901, "RequestTimeTooSkewed"),
        ("/test.txt", signed(**{"x-amz-date": "yesterday"}), THEN, "AccessDenied"),
        ("/test.txt", signed(**{"x-amz-content-sha256": "0" * 64}), THEN, "XAmzContentSHA256Mismatch"),
        ("/test.txt", signed(authorization="AWS4-HMAC-SHA256 Credential=x"), THEN, "AccessDenied"),
        ("/test.txt", {}, THEN, "AccessDenied"),
        (presigned(), HOST, THEN + 86_401, "AccessDenied"),
        (presigned(), HOST, THEN - 901, "AccessDenied"),
        (presigned(X_Amz_Expires="604801"), HOST, THEN, "AuthorizationQueryParametersError"),
        (presigned(X_Amz_Expires="soon"), HOST, THEN, "AuthorizationQueryParametersError"),
        (presigned(X_Amz_Date=None), HOST, THEN, "AuthorizationQueryParametersError"),
        (presigned(X_Amz_Credential="other/1"), HOST, THEN, "InvalidAccessKeyId"),
        (presigned(X_Amz_SignedHeaders="range"), HOST, THEN, "SignatureDoesNotMatch"),
    ],
)
def test_what_s3_refuses_is_refused(target, headers, now, code):
    with pytest.raises(sigv4.RefusedError) as refusal:
        check(target, headers, now=now)
    assert refusal.value.code == code
