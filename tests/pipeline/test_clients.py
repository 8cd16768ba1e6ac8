"""Clients that retry by themselves, as they come and as they are told."""

from __future__ import annotations

import botocore.session
import httpx
import httpx2
import pytest
import redis
import redis.asyncio
import requests
import requests.adapters
import urllib3
from botocore.config import Config
from obstore.store import LocalStore, MemoryStore, S3Store
from redis.backoff import NoBackoff
from redis.retry import Retry

from resilience.pipeline.clients import requests_of


def aws(service="s3", **options):
    return botocore.session.get_session().create_client(
        service,
        region_name="us-east-1",
        aws_access_key_id="a",
        aws_secret_access_key="b",
        config=Config(**options) if options else None,
    )


def legacy(client):
    client.meta.config.retries = None
    return client


def requests_session(retries):
    session = requests.Session()
    session.mount("https://", requests.adapters.HTTPAdapter(max_retries=retries))
    return session


def without_adapters():
    session = requests.Session()
    session.adapters.clear()
    return session


class OwnRedis(redis.Redis):
    """Of a service, in a module of its own."""


CASES = {
    "redis": (redis.Redis, 11),
    "redis, own class": (OwnRedis, 11),
    "redis, awaited": (redis.asyncio.Redis, 11),
    "redis, told": (lambda: redis.Redis(retry=Retry(NoBackoff(), 2)), 3),
    "redis, off": (lambda: redis.Redis(retry=Retry(NoBackoff(), 0)), 1),
    "botocore": (aws, 3),
    "botocore, retries told": (lambda: aws(retries={"max_attempts": 1}), 2),
    "botocore, attempts told": (lambda: aws(retries={"total_max_attempts": 4}), 4),
    "botocore, legacy": (lambda: legacy(aws()), 5),
    "botocore, DynamoDB, legacy": (lambda: legacy(aws("dynamodb")), 10),
    "urllib3": (urllib3.PoolManager, 4),
    "urllib3, told": (lambda: urllib3.PoolManager(retries=5), 6),
    "urllib3, off": (lambda: urllib3.PoolManager(retries=False), 1),
    "urllib3, pool": (lambda: urllib3.HTTPConnectionPool("localhost", retries=1), 2),
    "requests": (requests.Session, 1),
    "requests, told": (lambda: requests_session(3), 4),
    "requests, no adapters": (without_adapters, 1),
    "httpx": (httpx.Client, 1),
    "httpx, told": (lambda: httpx.Client(transport=httpx.HTTPTransport(retries=2)), 3),
    "httpx, mounted": (lambda: httpx.Client(mounts={"all://": httpx.HTTPTransport(retries=1)}), 2),
    "httpx, awaited": (httpx.AsyncClient, 1),
    "httpx, no pool": (lambda: httpx.Client(transport=httpx.MockTransport(lambda request: None)), 1),
    "httpx2": (lambda: httpx2.Client(transport=httpx2.HTTPTransport(retries=2)), 3),
    "obstore": (lambda: S3Store("b", region="us-east-1"), 11),
    "obstore, told": (lambda: S3Store("b", region="us-east-1", retry_config={"max_retries": 2}), 3),
    "obstore, local": (lambda: LocalStore("/tmp"), 1),
    "obstore, memory": (MemoryStore, 1),
}


@pytest.mark.parametrize(("make", "requests_"), CASES.values(), ids=CASES)
def test_requests_for_one_call(make, requests_):
    assert requests_of(make()) == requests_


def test_a_stranger_is_not_guessed():
    with pytest.raises(TypeError, match="is no client that is known here: say how many requests it makes"):
        requests_of(object())


def test_redis_without_any_retry():
    client = redis.Redis()
    client.get_retry = lambda: None
    assert requests_of(client) == 1
