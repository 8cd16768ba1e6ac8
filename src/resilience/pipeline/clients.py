"""How many requests a client makes for one call, by its own retries; found out without importing any.

What is read are the clients' own settings, public where they have such, so a client that has been told not to
retry is seen not to. Known are redis-py, botocore (boto3), urllib3, requests, httpx and obstore.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_BOTOCORE: Final = {"legacy": 5, "standard": 3, "adaptive": 3}
"""Attempts in all by mode, where nothing else is set; DynamoDB's legacy is 10."""

_OBSTORE_RETRIES: Final = 10
"""Of Rust's `object_store`, where `retry_config` is left out."""


def requests_of(client: object) -> int:
    """Return how many requests `client` makes at most for one call of it.

    Raises:
        TypeError: It is none that is known; say the number instead.
    """
    package = type(client).__module__.partition(".")[0]
    for base in type(client).__mro__:
        read = _READERS.get(base.__module__.partition(".")[0])
        if read is not None:
            return 1 + max(0, read(client))
    raise TypeError(
        f"{client!r}, of {package}, is no client that is known here: say how many requests it makes for one "
        "call, as in below=3; 1 if it does not retry"
    )


def _redis(client: Any) -> int:
    retry = client.get_retry()
    retries: int = 0 if retry is None else retry.get_retries()
    return retries


def _botocore(client: Any) -> int:
    retries: Mapping[str, Any] = client.meta.config.retries or {}
    total = retries.get("total_max_attempts")
    if total is None:
        mode = retries.get("mode", "legacy")
        is_dynamo = mode == "legacy" and client.meta.service_model.service_name == "dynamodb"
        total = 10 if is_dynamo else _BOTOCORE[mode]
    return int(total) - 1


def _urllib3(client: Any) -> int:
    if hasattr(client, "connection_pool_kw"):  # a PoolManager
        retries = client.connection_pool_kw.get("retries")
        if retries is None:
            retries = _default_of_urllib3(client)
    else:
        retries = client.retries
    return _total(retries)


def _default_of_urllib3(client: Any) -> Any:
    import sys  # noqa: PLC0415 - the module is there, since its object is; nothing is imported

    return sys.modules[type(client).__module__.partition(".")[0]].Retry.DEFAULT


def _requests(session: Any) -> int:
    return max((_total(adapter.max_retries) for adapter in session.adapters.values()), default=0)


def _total(retries: Any) -> int:
    """Return the retries of a urllib3 `Retry`, or of what it is made from; None and False are none."""
    total = getattr(retries, "total", retries)
    return int(total or 0)


def _httpx(client: Any) -> int:
    mounted = [client._transport, *client._mounts.values()]  # noqa: SLF001 - it shows them nowhere else
    pools = [getattr(transport, "_pool", None) for transport in mounted]
    return max(getattr(pool, "_retries", 0) for pool in pools)


def _obstore(store: Any) -> int:
    config = getattr(store, "retry_config", None)
    if config is None:
        return _OBSTORE_RETRIES if hasattr(store, "client_options") else 0  # a store on the network
    return int(config.get("max_retries", _OBSTORE_RETRIES))


_READERS: Final[dict[str, Callable[[Any], int]]] = {
    "redis": _redis,
    "botocore": _botocore,
    "urllib3": _urllib3,
    "requests": _requests,
    "httpx": _httpx,
    "httpx2": _httpx,
    "obstore": _obstore,
}
