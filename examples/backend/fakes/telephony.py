"""A telephony provider that speaks the real one's shapes, and fails when told to.

    python -m examples.backend.fakes.telephony --port 8001

Which calls there are is said in `provider`. All of these need HTTP Basic, key and token:

    GET    /v1/Accounts/{account}/Calls/{call_sid}.json    the details of a call, as strings
    GET    /v1/Accounts/{account}/Calls.json               the calls, page by page, the newest first
    GET    /recordings/{call_sid}.wav                      its recording; 404 if it is not there yet

A list is narrowed by `DateCreated=gte:…;lte:…`, `Sid` and `Status`, turned round by `SortBy=DateCreated:asc`,
and has `PageSize` calls a page: 50, or at most 100; `Metadata` tells where the next page is. With
`RecordingUrlValidity=5` to `60`, details have a `PreSignedRecordingUrl` too, which needs no login and holds
for so many minutes; then it is answered 403.

Control requests, beside those in `control`; requests are counted as `calls`, `lists` and `recordings`, and
what they are about is the call's id:

    PUT    /_control/calls/{call_sid}    {"RecordingUrl": null, "Status": "in-progress"}: changes its details
    POST   /_control/calls               {"count": 3, "webhook": {"url": …}}: places calls that end now
    GET    /_control/calls               the placed calls: {sid: {"size", "sha256", "status"}}
    GET    /_control/deliveries          what came of the webhooks
    PUT    /_control/knobs               {"limit": 200, "ready_after": 2.0}; see `provider.Knobs`

The kinds of faults:

    429 500 502 503 504        these statuses; 429 with a Retry-After of a second
    expired                    403 to a recording, as if its address had expired
    wrong-type wrong-length    a recording that is said to be HTML; a body that ends before it should
    torn slow reset hang       a body that breaks off or drags on; no answer, at once or after a minute
"""

from __future__ import annotations

import argparse
import base64
import binascii
import hashlib
import hmac
import json
import math
import re
import threading
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from examples.backend.fakes import control
from examples.backend.fakes.deliveries import Deliveries, Plan
from examples.backend.fakes.faults import Fault
from examples.backend.fakes.process import options_of, wait_for_the_end
from examples.backend.fakes.provider import (
    VALIDITIES,
    Provider,
    order_of,
    read,
    recording_of,
    written,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from examples.backend.fakes.provider import Call

__all__ = ["Fault", "Provider", "Server", "recording_of"]

CALL_PATH: Final = re.compile(r"/v1/Accounts/(?P<account>\w+)/Calls/(?P<sid>\w+)\.json")
CALLS_PATH: Final = re.compile(r"/v1/Accounts/(?P<account>\w+)/Calls\.json")
RECORDING_PATH: Final = re.compile(r"/recordings/(?P<sid>\w+)\.wav")
USUAL_PAGE: Final = 50
LARGEST_PAGE: Final = 100
MOST_AT_ONCE: Final = 10_000
"""Calls that one control request may place."""


class Server(control.Server):
    """The provider's HTTP server."""

    def __init__(self, port: int, provider: Provider) -> None:
        super().__init__(port, Handler, provider)
        self.provider = provider
        self.deliveries = Deliveries()

    def place_calls(
        self, count: int = 1, webhook: dict[str, Any] | None = None, ended_within: float = 0.0, **call: Any
    ) -> list[str]:
        """Place calls; return their ids.

        Args:
            count: How many.
            webhook: How each is announced, see `deliveries.Plan`; None for not at all.
            ended_within: Seconds over the last of which their ends are spread; the last one ends now.
            call: See `Provider.place_call`.
        """
        if not 1 <= count <= MOST_AT_ONCE:
            raise ValueError(f"count={count!r}: 1 to {MOST_AT_ONCE} is expected")
        plan = None if webhook is None else Plan(**webhook)
        sids = []
        for number in range(count):
            ago = ended_within * (count - 1 - number) / count
            placed = self.provider.place_call(**{"ended_ago": ago, **call})
            sids.append(placed.sid)
            if plan:
                details = self.provider.details(placed, self.address)
                event = {"CallSid": placed.sid, "DateUpdated": written(placed.ended_at)}
                told = {"Status": placed.status, "RecordingUrl": details["RecordingUrl"]}
                self.deliveries.announce(plan, {**event, **told}, number)
        return sids


class Handler(control.Handler):
    """Answers one connection's requests."""

    server: Server

    def serve(self) -> None:
        """Answer the API, and recordings."""
        split = urlsplit(self.path)
        query = dict(parse_qsl(split.query))
        if match := CALL_PATH.fullmatch(split.path):
            self._serve_api("calls", match["account"], query, match["sid"])
        elif match := CALLS_PATH.fullmatch(split.path):
            self._serve_api("lists", match["account"], query)
        elif match := RECORDING_PATH.fullmatch(split.path):
            self._serve_recording(match["sid"], query)
        else:
            self.refuse(404, "Not found")

    def _serve_api(self, kind: str, account: str, query: dict[str, str], sid: str = "") -> None:
        fault = self.server.provider.begin(kind, sid)
        if not self.suffer(fault) or not self._is_logged_in():
            return
        provider = self.server.provider
        allowance = provider.ask()
        headers = {}
        if allowance is not None:
            headers["X_RateLimit_Limit"] = str(allowance.limit)
            headers["X_RateLimit_Remaining"] = str(allowance.remaining)
            headers["X_RateLimit_Reset"] = str(math.ceil(allowance.resets_at))
            if not allowance.allowed:
                wait = str(math.ceil(max(allowance.resets_at - time.time(), 1.0)))
                self.refuse(429, "Too many requests", Retry_After=wait, **headers)
                return
        call = provider.call(sid) if sid else None
        if account != provider.account or (sid and call is None):
            self.refuse(404, f"The requested resource {sid} was not found", **headers)
            return
        try:
            validity = validity_of(query)
            body: dict[str, Any]
            if call:
                body = {"Call": provider.details(call, self.server.address, validity)}
            else:
                body = self._page(query, validity)
        except ValueError as refusal:
            self.refuse(400, str(refusal), **headers)
            return
        self.reply(200, json.dumps(body).encode(), {"Content-Type": "application/json", **headers}, fault)

    def _page(self, query: dict[str, str], validity: int | None) -> dict[str, Any]:
        """Return a page of the list of calls."""
        provider = self.server.provider
        size = int(query.get("PageSize", USUAL_PAGE))
        if not 1 <= size <= LARGEST_PAGE:
            raise ValueError(f"PageSize={size}: 1 to {LARGEST_PAGE} is expected")
        calls = [call for call in provider.calls() if matches(call, query)]
        if query.get("SortBy", "DateCreated:desc") == "DateCreated:desc":
            calls.reverse()
        cursors = [cursor_of(call) for call in calls]
        if "Before" in query:
            stop = position_of(query["Before"], cursors)
            start = max(0, stop - size)
        else:
            start = position_of(query["After"], cursors) + 1 if "After" in query else 0
            stop = min(start + size, len(calls))
        kept = {name: text for name, text in query.items() if name not in {"After", "Before"}}

        def address(**cursor: str) -> str:
            parameters = urlencode({**kept, "PageSize": size, **cursor})
            return f"/v1/Accounts/{provider.account}/Calls.json?{parameters}"

        return {
            "Metadata": {
                "Total": len(calls),
                "PageSize": size,
                "FirstPageUri": address(),
                "PrevPageUri": address(Before=cursors[start]) if 0 < start < len(calls) else None,
                "NextPageUri": address(After=cursors[stop - 1]) if 0 < stop < len(calls) else None,
            },
            "Calls": [provider.details(call, self.server.address, validity) for call in calls[start:stop]],
        }

    def _serve_recording(self, sid: str, query: dict[str, str]) -> None:
        fault = self.server.provider.begin("recordings", sid)
        if not self.suffer(fault):
            return
        provider = self.server.provider
        if "Signature" in query:
            expires = query.get("Expires", "")
            if not provider.is_signed(sid, expires, query["Signature"]):
                self.refuse(403, "The signature does not match", code="SignatureDoesNotMatch")
                return
            if float(expires) < time.time():
                self.refuse(403, "Request has expired", code="AccessDenied")
                return
        elif not self._is_logged_in():
            return
        call = provider.call(sid)
        if call is None or not call.is_recorded or call.ready_at > time.time():
            self.refuse(404, "No such recording", code="NoSuchKey")
            return
        content_type = {"Content-Type": fault.content_type or "audio/x-wav"}
        self.reply(200, recording_of(sid), content_type, fault)

    def _is_logged_in(self) -> bool:
        """Refuse who is not; return whether it is."""
        authorization = self.headers.get("Authorization", "")
        expected = self.server.provider.authorization
        known = hmac.compare_digest(authorization.encode(), expected.encode())
        if not known:
            self.refuse(401, "Authenticate")
        return known

    def refuse(self, status: int, message: str, *, code: str | None = None, **headers: str | None) -> None:
        """Answer with an error as the provider writes it, or as the store of its recordings does."""
        if code is not None:
            body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
            self.reply(status, body, {"Content-Type": "application/xml", **headers})
        else:
            error = {"Status": status, "Message": message, "Code": 10_000 + status}
            self.reply_json(status, {"RestException": error}, **headers)

    def control(self, request: list[str], body: dict[str, Any]) -> object:
        """Change, place and tell calls and turn knobs, beside what every fake does."""
        provider = self.server.provider
        match request:
            case ["PUT", "calls", sid]:
                provider.change_call(sid, body)
                return body
            case ["POST", "calls"]:
                return {"sids": self.server.place_calls(**body)}
            case ["GET", "calls"]:
                return {call.sid: known_of(call) for call in provider.calls()}
            case ["GET", "deliveries"]:
                return self.server.deliveries.counts()
            case ["PUT", "knobs"]:
                return provider.turn(body)
            case _:
                return super().control(request, body)


def validity_of(query: Mapping[str, str]) -> int | None:
    """Return for how many minutes presigned addresses are asked for; None if none are.

    Raises:
        ValueError: For too few, too many, or no number.
    """
    if "RecordingUrlValidity" not in query:
        return None
    minutes = int(query["RecordingUrlValidity"])
    if minutes not in VALIDITIES:
        raise ValueError(f"RecordingUrlValidity={minutes}: 5 to 60 is expected")
    return minutes


def matches(call: Call, query: Mapping[str, str]) -> bool:
    """Return whether a list with these filters has the call. Calls that are going on are in no list.

    Raises:
        ValueError: A filter cannot be read.
    """
    if call.status not in query.get("Status", call.status).split(",") or call.status == "in-progress":
        return False
    if call.sid not in query.get("Sid", call.sid).split(","):
        return False
    began = read(written(call.started_at))  # lists know whole seconds
    for bound in filter(None, query.get("DateCreated", "").split(";")):
        operator, _, instant = bound.partition(":")
        if operator not in {"gte", "lte"}:
            raise ValueError(f"DateCreated={bound!r}: gte or lte is expected")
        if (began < read(instant)) if operator == "gte" else (began > read(instant)):
            return False
    return True


def cursor_of(call: Call) -> str:
    """Return what stands for the call's place in a list."""
    return base64.urlsafe_b64encode(f"{order_of(call)}".encode()).decode()


def position_of(cursor: str, cursors: list[str]) -> int:
    """Return the place that a cursor stands for.

    Raises:
        ValueError: There is none.
    """
    try:
        base64.urlsafe_b64decode(cursor)
        return cursors.index(cursor)
    except (binascii.Error, ValueError):
        raise ValueError(f"{cursor!r} is no cursor of this list") from None


def known_of(call: Call) -> dict[str, Any]:
    """Return what a test wants to know of a placed call."""
    recording = recording_of(call.sid) if call.is_recorded else b""
    return {
        "status": call.status,
        "size": len(recording),
        "sha256": hashlib.sha256(recording).hexdigest(),
    }


def main() -> None:
    """Serve until somebody ends it, or until standard input closes if it shall not outlive its parent."""
    parser = argparse.ArgumentParser(prog="python -m examples.backend.fakes.telephony", description=__doc__)
    parser.add_argument("--account", default="demo")
    parser.add_argument("--key", default="demo-key")
    parser.add_argument("--token", default="demo-token")
    parser.add_argument("--calls", type=int, default=0, help="calls of the last day to begin with")
    options = options_of(parser)
    server = Server(options.port, Provider(options.account, options.key, options.token))
    if options.calls:
        server.place_calls(options.calls, ended_within=86_400.0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.address, flush=True)  # noqa: T201 - whoever started it waits for this line
    wait_for_the_end(with_parent=options.with_parent)


if __name__ == "__main__":
    main()
