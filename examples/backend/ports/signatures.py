"""Signed deliveries, as Standard Webhooks has it (standardwebhooks.com).

The package verifies the signature over the raw bytes, in constant time, and takes deliveries that are up to
five minutes old, or early. Of what is malformed it lets the exceptions of base64 and the like through; here
all of that is one answer, which does not say what was wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from standardwebhooks import Webhook, WebhookVerificationError

from resilience import authentication_error

if TYPE_CHECKING:
    from examples.backend.domain.webhooks import Headers

HEADERS: Final = ("webhook-id", "webhook-timestamp", "webhook-signature")
LONGEST_HEADER: Final = 1024
"""Characters; an id has some thirty, and a few signatures, while a secret is being changed, some hundred."""


class StandardSignatures:
    """Answers `examples.backend.domain.webhooks.Signatures`."""

    def check(self, secret: str, body: bytes, headers: Headers) -> str:
        """Return the id of a delivery that is signed with this secret, now.

        Raises:
            ServiceError: It is not (401).
        """
        given = {name: headers.get(name) or "" for name in HEADERS}
        refusal = authentication_error("The delivery is not signed as it should be")
        if not secret or any(not _is_sane(text) for text in given.values()):
            raise refusal
        try:
            Webhook(secret).verify(body, given, json_parse=False)
        except (WebhookVerificationError, ValueError):
            raise refusal from None
        return given["webhook-id"]


def _is_sane(text: str) -> bool:
    return len(text) <= LONGEST_HEADER and text.isascii() and text.isprintable()
