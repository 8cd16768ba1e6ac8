"""The fake provider's status webhooks: delivered late, twice, in disorder, or not at all.

A delivery that is not answered with 2xx within 15 seconds is made again, twice at most, as the real provider
does. With a secret, deliveries are signed as Standard Webhooks has it; the real provider signs nothing.
"""

from __future__ import annotations

import base64
import dataclasses
import heapq
import hmac
import http.client
import itertools
import json
import random
import threading
import time
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

SENDERS: Final = 8
"""Threads that deliver."""
PATIENCE: Final = 15.0
"""Seconds in which a delivery must be answered."""
ATTEMPTS: Final = 3
PAUSE: Final = 1.0
"""Seconds between two attempts at a delivery."""
GOOD: Final = range(200, 300)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a call's webhook is delivered. Each field is a key of the control request."""

    url: str
    """Where to, by http."""
    copies: int = 1
    """How often."""
    delay: float = 0.0
    """Seconds before the first."""
    spread: float = 0.0
    """Seconds over which deliveries are scattered, which brings them into disorder."""
    lost: float = 0.0
    """Which share of calls has no delivery at all, 0 to 1."""
    seed: int | None = None
    """What chance depends on, together with the call's number; None for another chance in each run."""
    form: bool = False
    """Send a form instead of JSON."""
    secret: str = ""
    """Sign by Standard Webhooks with this secret, `whsec_` and base64; "" signs nothing."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Delivery:
    """One delivery that is due at some time."""

    due_at: float
    """Monotonic seconds."""
    number: int
    """Decides between those that are due at the same time."""
    attempt: int = dataclasses.field(default=1, compare=False)
    plan: Plan = dataclasses.field(compare=False)
    body: bytes = dataclasses.field(compare=False)
    headers: dict[str, str] = dataclasses.field(compare=False)


class Deliveries:
    """Delivers in threads of its own. Any number of threads may use it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[Delivery] = []
        self._numbers = itertools.count()
        self._counts: Counter[str] = Counter(accepted=0, refused=0, failed=0, given_up=0, lost=0, pending=0)
        self._senders: list[threading.Thread] = []

    def announce(self, plan: Plan, event: Mapping[str, str | None], number: int) -> bool:
        """Deliver an event by the plan; return whether it is delivered at all.

        Args:
            plan: How.
            event: What it says.
            number: The call's, for chance.
        """
        chance = random.Random(None if plan.seed is None else f"{plan.seed} {number}")  # noqa: S311 - no secret
        with self._changed:
            if chance.random() < plan.lost:
                self._counts["lost"] += 1
                return False
            for _ in range(plan.copies):
                due_at = time.monotonic() + plan.delay + chance.random() * plan.spread
                self._add(_delivery(plan, event, due_at, next(self._numbers)))
            self._counts["pending"] += plan.copies
            while len(self._senders) < SENDERS:
                self._senders.append(threading.Thread(target=self._send_for_ever, daemon=True))
                self._senders[-1].start()
            return True

    def counts(self) -> dict[str, int]:
        """Return how many deliveries were accepted, refused, failed, given up, lost, and are pending."""
        with self._changed:
            return dict(self._counts)

    def _add(self, delivery: Delivery) -> None:
        heapq.heappush(self._waiting, delivery)
        self._changed.notify()

    def _send_for_ever(self) -> None:
        while True:
            delivery = self._next()
            outcome = _send(delivery)
            with self._changed:
                self._counts[outcome] += 1
                if outcome == "accepted" or delivery.attempt == ATTEMPTS:
                    self._counts["pending"] -= 1
                    self._counts["given_up"] += outcome != "accepted"
                else:
                    again_at = time.monotonic() + PAUSE
                    self._add(dataclasses.replace(delivery, due_at=again_at, attempt=delivery.attempt + 1))

    def _next(self) -> Delivery:
        """Return the next delivery as soon as it is due."""
        with self._changed:
            while not self._waiting or self._waiting[0].due_at > time.monotonic():
                self._changed.wait(self._waiting[0].due_at - time.monotonic() if self._waiting else None)
            return heapq.heappop(self._waiting)


def _delivery(plan: Plan, event: Mapping[str, str | None], due_at: float, number: int) -> Delivery:
    if plan.form:
        body = urlencode({name: value or "" for name, value in event.items()}).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
    else:
        body, headers = json.dumps(event).encode(), {"Content-Type": "application/json"}
    return Delivery(due_at=due_at, number=number, plan=plan, body=body, headers=headers)


def _send(delivery: Delivery) -> str:
    """Make one attempt; return what came of it."""
    to = urlsplit(delivery.plan.url)
    headers = delivery.headers | signature_headers(delivery.plan.secret, delivery.body)
    connection = http.client.HTTPConnection(to.netloc, timeout=PATIENCE)
    try:
        connection.request("POST", to.path, delivery.body, headers)
        answer = connection.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException):
        return "failed"
    finally:
        connection.close()
    return "accepted" if answer.status in GOOD else "refused"


def signature_headers(secret: str, body: bytes) -> dict[str, Any]:
    """Return the headers that sign a body by Standard Webhooks; none without a secret."""
    if not secret:
        return {}
    message, now = f"msg_{uuid.uuid4().hex}", str(int(time.time()))
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signature = hmac.digest(key, f"{message}.{now}.".encode() + body, "sha256")
    return {
        "webhook-id": message,
        "webhook-timestamp": now,
        "webhook-signature": f"v1,{base64.b64encode(signature).decode()}",
    }
