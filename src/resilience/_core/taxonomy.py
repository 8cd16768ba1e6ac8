"""Which failures may pass by themselves: the tables.

`resilience.transient` looks an exception up in them; `docs/transient.md` prints them, and a test holds the
two together. A class is named as `package.ClassName`, the package being the first part of its module, so
that nothing needs to be imported and a class may move inside its package. The nearest named class along the
method resolution order decides, so that subclasses are covered too.
"""

from __future__ import annotations

import errno
from enum import Enum
from typing import Final, NamedTuple


class Failure(NamedTuple):
    """What an exception says about another attempt."""

    transient: bool
    """Whether the same call may well succeed a little later."""
    may_be_processed: bool
    """Whether the other side may have carried the call out. If not, it is always safe to repeat."""
    reason: str
    """What told, in a few words: `"errno ECONNRESET"`, `"HTTP 503"`, `"SQLSTATE 40001"`."""


class Rule(Enum):
    """How instances of a class are judged.

    "Unless refused" means: unless below it lies a certificate that was refused or a name that does not exist
    (`REFUSALS`); such a failure is never transient.
    """

    NEVER = "never"
    UNPROCESSED = "transient, not processed"
    PROCESSED = "transient, perhaps processed"
    CONNECT = "transient, not processed, unless refused"
    TRANSPORT = "transient, perhaps processed, unless refused"
    WRAPPED = "as what it wraps"
    UNKNOWN = "by its attributes, its cause, its message"
    GROUP = "transient if every leaf is"
    OS_ERROR = "by errno"
    NAME = "by EAI code"
    STATUS = "by HTTP status"
    SQLSTATE = "by SQLSTATE"
    LIBPQ = "by SQLSTATE, without one by libpq's message"
    MYSQL = "by MySQL error number"
    SQLITE = "by SQLite result code"
    AWS = "by AWS error code, then HTTP status"
    GRPC = "by gRPC status"
    OBJECT_STORE = "by the HTTP status or the kind of failure that its message tells"
    WEBSOCKET = "by close code"
    SERVICE_ERROR = "by `retryable`"
    RATE_LIMITED = "transient, not processed, if it says when to try again"


TYPES: Final[dict[str, dict[str, Rule]]] = {
    "builtins": {
        "Exception": Rule.UNKNOWN,
        "ExceptionGroup": Rule.GROUP,
        "OSError": Rule.OS_ERROR,
        "TimeoutError": Rule.PROCESSED,
        "ConnectionError": Rule.PROCESSED,
        "ConnectionRefusedError": Rule.UNPROCESSED,
        "BlockingIOError": Rule.NEVER,
        "ChildProcessError": Rule.NEVER,
        "FileExistsError": Rule.NEVER,
        "FileNotFoundError": Rule.NEVER,
        "InterruptedError": Rule.NEVER,
        "IsADirectoryError": Rule.NEVER,
        "NotADirectoryError": Rule.NEVER,
        "PermissionError": Rule.NEVER,
        "ProcessLookupError": Rule.NEVER,
        "ArithmeticError": Rule.NEVER,
        "AssertionError": Rule.NEVER,
        "AttributeError": Rule.NEVER,
        "BufferError": Rule.NEVER,
        "ImportError": Rule.NEVER,
        "LookupError": Rule.NEVER,
        "MemoryError": Rule.NEVER,
        "NameError": Rule.NEVER,
        "NotImplementedError": Rule.NEVER,
        "RecursionError": Rule.NEVER,
        "ReferenceError": Rule.NEVER,
        "StopAsyncIteration": Rule.NEVER,
        "StopIteration": Rule.NEVER,
        "SyntaxError": Rule.NEVER,
        "SystemError": Rule.NEVER,
        "TypeError": Rule.NEVER,
        "ValueError": Rule.NEVER,
        "Warning": Rule.NEVER,
    },
    "asyncio": {
        "IncompleteReadError": Rule.PROCESSED,
        "InvalidStateError": Rule.NEVER,
        "LimitOverrunError": Rule.NEVER,
    },
    "concurrent": {
        "BrokenExecutor": Rule.NEVER,
        "CancelledError": Rule.NEVER,
        "InvalidStateError": Rule.NEVER,
    },
    "http": {
        "HTTPException": Rule.NEVER,
        "BadStatusLine": Rule.PROCESSED,
        "IncompleteRead": Rule.PROCESSED,
        "RemoteDisconnected": Rule.PROCESSED,
    },
    "resilience": {
        "ServiceError": Rule.SERVICE_ERROR,
        "BulkheadFullError": Rule.NEVER,
        "CircuitOpenError": Rule.NEVER,
        "DeadlineExceeded": Rule.NEVER,
        "DeadlinePassed": Rule.NEVER,
        "OverloadedError": Rule.NEVER,
        "RateLimitedError": Rule.RATE_LIMITED,
        "TimeoutExceeded": Rule.PROCESSED,
    },
    "socket": {
        "gaierror": Rule.NAME,
        "herror": Rule.NEVER,
    },
    "sqlite3": {
        "Error": Rule.NEVER,
        "OperationalError": Rule.SQLITE,
    },
    "ssl": {
        "SSLError": Rule.NEVER,
        "SSLEOFError": Rule.PROCESSED,
        "SSLZeroReturnError": Rule.PROCESSED,
    },
    "subprocess": {
        "SubprocessError": Rule.NEVER,
        "TimeoutExpired": Rule.PROCESSED,
    },
    "urllib": {
        "HTTPError": Rule.STATUS,
        "URLError": Rule.WRAPPED,
        "ContentTooShortError": Rule.PROCESSED,
    },
    "aiohttp": {
        "ClientError": Rule.NEVER,
        "ClientConnectionError": Rule.TRANSPORT,
        "ClientConnectorError": Rule.CONNECT,
        "ClientConnectorCertificateError": Rule.NEVER,
        "ClientSSLError": Rule.WRAPPED,
        "ClientPayloadError": Rule.TRANSPORT,
        "ClientResponseError": Rule.STATUS,
        "ConnectionTimeoutError": Rule.UNPROCESSED,
        "InvalidURL": Rule.NEVER,
        "ServerFingerprintMismatch": Rule.NEVER,
    },
    "anyio": {
        "BrokenResourceError": Rule.TRANSPORT,
        "ClosedResourceError": Rule.NEVER,
        "ConnectionFailed": Rule.CONNECT,
    },
    "asyncpg": {
        "PostgresError": Rule.SQLSTATE,
        "InterfaceError": Rule.NEVER,
    },
    "botocore": {
        "BotoCoreError": Rule.NEVER,
        "ClientError": Rule.AWS,
        "ConnectionError": Rule.CONNECT,
        "ConnectionClosedError": Rule.TRANSPORT,
        "HTTPClientError": Rule.WRAPPED,
        "IncompleteReadError": Rule.PROCESSED,
        "ReadTimeoutError": Rule.PROCESSED,
        "ResponseStreamingError": Rule.TRANSPORT,
        "SSLError": Rule.WRAPPED,
    },
    "grpc": {
        "RpcError": Rule.GRPC,
        "FutureCancelledError": Rule.NEVER,
        "FutureTimeoutError": Rule.PROCESSED,
    },
    "httpcore": {
        "ConnectError": Rule.CONNECT,
        "ConnectTimeout": Rule.UNPROCESSED,
        "NetworkError": Rule.TRANSPORT,
        "PoolTimeout": Rule.UNPROCESSED,
        "ProtocolError": Rule.NEVER,
        "ProxyError": Rule.CONNECT,
        "RemoteProtocolError": Rule.PROCESSED,
        "TimeoutException": Rule.PROCESSED,
        "UnsupportedProtocol": Rule.NEVER,
    },
    "httpx": {
        "HTTPError": Rule.NEVER,
        "HTTPStatusError": Rule.STATUS,
        "ConnectError": Rule.CONNECT,
        "ConnectTimeout": Rule.UNPROCESSED,
        "NetworkError": Rule.TRANSPORT,
        "PoolTimeout": Rule.UNPROCESSED,
        "ProxyError": Rule.CONNECT,
        "RemoteProtocolError": Rule.PROCESSED,
        "TimeoutException": Rule.PROCESSED,
        "InvalidURL": Rule.NEVER,
        "StreamError": Rule.NEVER,
    },
    "mysql": {
        "Error": Rule.MYSQL,
    },
    "obstore": {
        "BaseError": Rule.NEVER,
        "GenericError": Rule.OBJECT_STORE,
    },
    "psycopg": {
        "Error": Rule.LIBPQ,
        "ConnectionTimeout": Rule.UNPROCESSED,
        "CancellationTimeout": Rule.NEVER,
    },
    "psycopg_pool": {
        "PoolClosed": Rule.NEVER,
        "PoolTimeout": Rule.UNPROCESSED,
        "TooManyRequests": Rule.UNPROCESSED,
    },
    "redis": {
        "RedisError": Rule.NEVER,
        "ConnectionError": Rule.TRANSPORT,
        "TimeoutError": Rule.PROCESSED,
        "AuthenticationError": Rule.NEVER,
        "AuthorizationError": Rule.NEVER,
        "ExternalAuthProviderError": Rule.NEVER,
        "MaxConnectionsError": Rule.NEVER,
        "BusyLoadingError": Rule.UNPROCESSED,
        "ClusterDownError": Rule.UNPROCESSED,
        "ReadOnlyError": Rule.UNPROCESSED,
        "TryAgainError": Rule.UNPROCESSED,
        "RedisClusterException": Rule.NEVER,
    },
    "requests": {
        "RequestException": Rule.NEVER,
        "HTTPError": Rule.STATUS,
        "ConnectionError": Rule.TRANSPORT,
        "ConnectTimeout": Rule.UNPROCESSED,
        "ProxyError": Rule.CONNECT,
        "SSLError": Rule.WRAPPED,
        "Timeout": Rule.PROCESSED,
        "ChunkedEncodingError": Rule.TRANSPORT,
    },
    "sqlalchemy": {
        "SQLAlchemyError": Rule.NEVER,
        "DBAPIError": Rule.WRAPPED,
        "DisconnectionError": Rule.UNPROCESSED,
        "TimeoutError": Rule.UNPROCESSED,
        "EmulatedDBAPIException": Rule.SQLSTATE,
    },
    "urllib3": {
        "HTTPError": Rule.NEVER,
        "ConnectTimeoutError": Rule.UNPROCESSED,
        "EmptyPoolError": Rule.UNPROCESSED,
        "IncompleteRead": Rule.PROCESSED,
        "MaxRetryError": Rule.WRAPPED,
        "NewConnectionError": Rule.CONNECT,
        "ProtocolError": Rule.TRANSPORT,
        "ProxyError": Rule.WRAPPED,
        "ReadTimeoutError": Rule.PROCESSED,
        "SSLError": Rule.WRAPPED,
    },
    "websockets": {
        "ConnectionClosed": Rule.WEBSOCKET,
    },
    # Their breakers and retries have decided already; a further attempt would only multiply theirs.
    "aiobreaker": {"CircuitBreakerError": Rule.NEVER},
    "circuitbreaker": {"CircuitBreakerError": Rule.NEVER},
    "pybreaker": {"CircuitBreakerError": Rule.NEVER},
    "tenacity": {"RetryError": Rule.NEVER},
}

# The same classes under another package's name.
TYPES["httpcore2"] = TYPES["httpcore"]
TYPES["httpx2"] = TYPES["httpx"]
TYPES["psycopg2"] = {"Error": Rule.LIBPQ}
TYPES["MySQLdb"] = TYPES["pymysql"] = TYPES["asyncmy"] = {"Error": Rule.MYSQL, "MySQLError": Rule.MYSQL}

# In the tables of codes below, the value says whether the call may have been carried out.
NOT_PROCESSED: Final = False
PERHAPS_PROCESSED: Final = True

HTTP_STATUS: Final = {
    408: NOT_PROCESSED,  # RFC 9110, 15.5.9: the server did not get the complete request in time
    413: NOT_PROCESSED,  # RFC 9110, 15.5.14: too large; transient only with Retry-After, which says so
    425: NOT_PROCESSED,  # RFC 8470, 5.2: unwilling to process what might be replayed
    429: NOT_PROCESSED,  # RFC 6585, 4: refused by a limit
    500: PERHAPS_PROCESSED,
    502: PERHAPS_PROCESSED,
    503: PERHAPS_PROCESSED,  # gateways send it also when the connection broke after the request was sent
    504: PERHAPS_PROCESSED,
}

ERRNO: Final = {
    getattr(errno, name): (name, may_be_processed)
    for name, may_be_processed in (
        ("ECONNREFUSED", NOT_PROCESSED),
        ("ECONNRESET", PERHAPS_PROCESSED),
        ("ECONNABORTED", PERHAPS_PROCESSED),
        ("EPIPE", PERHAPS_PROCESSED),
        ("ESHUTDOWN", PERHAPS_PROCESSED),
        ("ETIMEDOUT", PERHAPS_PROCESSED),
        ("EHOSTUNREACH", PERHAPS_PROCESSED),
        ("EHOSTDOWN", PERHAPS_PROCESSED),
        ("ENETUNREACH", PERHAPS_PROCESSED),
        ("ENETDOWN", PERHAPS_PROCESSED),
        ("ENETRESET", PERHAPS_PROCESSED),
        ("ENOBUFS", PERHAPS_PROCESSED),
    )
    if hasattr(errno, name)  # not every system has all of them
}

SQLSTATE: Final = {
    # A code of two characters stands for its class.
    "40001": NOT_PROCESSED,  # serialization_failure: the transaction was rolled back, repeat all of it
    "40P01": NOT_PROCESSED,  # deadlock_detected: likewise
    "55P03": NOT_PROCESSED,  # lock_not_available
    "53300": NOT_PROCESSED,  # too_many_connections
    "57P01": PERHAPS_PROCESSED,  # admin_shutdown: perhaps after the commit
    "57P02": PERHAPS_PROCESSED,  # crash_shutdown
    "57P03": NOT_PROCESSED,  # cannot_connect_now
    "08": PERHAPS_PROCESSED,  # connection_exception
    "08001": NOT_PROCESSED,  # sqlclient_unable_to_establish_sqlconnection
    "08004": NOT_PROCESSED,  # sqlserver_rejected_establishment_of_sqlconnection
}
SQLSTATE_NEVER: Final = frozenset({"08007"})  # transaction_resolution_unknown: someone has to look

LIBPQ_CONNECTING: Final = (
    "connection failed",
    "connection is bad",
    "connection to server ",
    "could not connect",
)
"""What libpq's messages say while it connects: then nothing has been sent."""

LIBPQ_TRANSIENT: Final = {
    "connection refused": NOT_PROCESSED,
    "is the server running": NOT_PROCESSED,
    "temporary failure in name resolution": NOT_PROCESSED,
    "the database system is": NOT_PROCESSED,  # starting up, shutting down, in recovery mode
    "too many clients": NOT_PROCESSED,
    "too many connections": NOT_PROCESSED,
    "remaining connection slots": NOT_PROCESSED,
    "no more connections allowed": NOT_PROCESSED,  # PgBouncer
    "query_wait_timeout": NOT_PROCESSED,  # PgBouncer
    "timeout expired": NOT_PROCESSED,  # connect_timeout
    "connection is closed": NOT_PROCESSED,
    "connection already closed": NOT_PROCESSED,
    "no route to host": PERHAPS_PROCESSED,
    "network is unreachable": PERHAPS_PROCESSED,
    "connection timed out": PERHAPS_PROCESSED,
    "connection reset": PERHAPS_PROCESSED,
    "connection socket closed": PERHAPS_PROCESSED,
    "broken pipe": PERHAPS_PROCESSED,
    "connection is lost": PERHAPS_PROCESSED,
    "server closed the connection": PERHAPS_PROCESSED,
    "connection has been closed": PERHAPS_PROCESSED,
    "terminating connection": PERHAPS_PROCESSED,
    "ssl syscall error": PERHAPS_PROCESSED,
    "could not receive data": PERHAPS_PROCESSED,
    "could not send data": PERHAPS_PROCESSED,
}

MYSQL: Final = {
    1040: NOT_PROCESSED,  # ER_CON_COUNT_ERROR: too many connections
    1053: PERHAPS_PROCESSED,  # ER_SERVER_SHUTDOWN
    1205: NOT_PROCESSED,  # ER_LOCK_WAIT_TIMEOUT: the statement was rolled back
    1213: NOT_PROCESSED,  # ER_LOCK_DEADLOCK: the transaction was rolled back, repeat all of it
    2002: NOT_PROCESSED,  # CR_CONNECTION_ERROR
    2003: NOT_PROCESSED,  # CR_CONN_HOST_ERROR
    2006: PERHAPS_PROCESSED,  # CR_SERVER_GONE_ERROR
    2013: PERHAPS_PROCESSED,  # CR_SERVER_LOST
    2055: PERHAPS_PROCESSED,  # CR_SERVER_LOST_EXTENDED
}

SQLITE: Final = {
    5: "SQLITE_BUSY",
    6: "SQLITE_LOCKED",
}
"""Primary result codes. The statement that met one has done nothing."""
SQLITE_MESSAGES: Final = ("database is locked", "database table is locked")
"""What they say, for an exception that lost its code (one that was pickled, say)."""

AWS: Final = {
    "BandwidthLimitExceeded": NOT_PROCESSED,
    "EC2ThrottledException": NOT_PROCESSED,
    "LimitExceededException": NOT_PROCESSED,
    "PriorRequestNotComplete": NOT_PROCESSED,
    "ProvisionedThroughputExceededException": NOT_PROCESSED,
    "RequestLimitExceeded": NOT_PROCESSED,
    "RequestThrottled": NOT_PROCESSED,
    "RequestThrottledException": NOT_PROCESSED,
    "RequestTimeout": PERHAPS_PROCESSED,
    "RequestTimeoutException": PERHAPS_PROCESSED,
    "SlowDown": NOT_PROCESSED,
    "ThrottledException": NOT_PROCESSED,
    "Throttling": NOT_PROCESSED,
    "ThrottlingException": NOT_PROCESSED,
    "TooManyRequestsException": NOT_PROCESSED,
    "TransactionInProgressException": NOT_PROCESSED,
}
"""The codes that botocore itself retries (`botocore.retries.standard`)."""

GRPC: Final = {
    "UNAVAILABLE": PERHAPS_PROCESSED,
    "DEADLINE_EXCEEDED": PERHAPS_PROCESSED,  # this attempt's timeout; the deadline of the whole call is ours
    "RESOURCE_EXHAUSTED": NOT_PROCESSED,  # only with a pushback: else it may be a full disk, a large message
}

OBJECT_STORE: Final = {
    "connect": NOT_PROCESSED,
    "request": PERHAPS_PROCESSED,
    "timeout": PERHAPS_PROCESSED,
    "interrupted": PERHAPS_PROCESSED,
}
"""The kinds of `HttpError` in Rust's object_store; they are to be had in the message only."""
OBJECT_STORE_REFUSED: Final = ("certificate", "name or service not known", "nodename nor servname")
"""What a failure to connect says when the name or the certificate was refused."""

WEBSOCKET: Final = {
    1001: PERHAPS_PROCESSED,  # going away
    1006: PERHAPS_PROCESSED,  # no closing handshake
    1011: PERHAPS_PROCESSED,  # internal error
    1012: PERHAPS_PROCESSED,  # service restart
    1013: PERHAPS_PROCESSED,  # try again later
    1014: PERHAPS_PROCESSED,  # bad gateway
}

REFUSALS: Final = frozenset({("ssl", "SSLError"), ("socket", "gaierror")})
"""What lies below a client's connection error where the name or the certificate was refused."""

MESSAGES: Final = ("timeout", "timed out", "temporarily unavailable")
"""What counts in the message of an exception that has no better sign."""
