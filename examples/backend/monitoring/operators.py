"""Who may look at the monitoring and give orders: operators, and nobody on their behalf.

With a token in the settings, whoever has it. Without one, this machine only, and only if the backend's public
address is this machine's too: else there is a proxy before it, and not every proxy says so (nginx, as it
comes, adds no header and writes `Host: 127.0.0.1`). And since a browser on this machine runs pages of
strangers, which can send requests to it, three more things are asked for:

- No proxy has passed the request on. What comes from one on this machine is from here only seemingly.
- The browser does not say that another site made it send this (`Sec-Fetch-Site`, `Origin`). Programs say
  neither. Without this, a page could have a breaker forced open: a form needs nobody's leave to be sent.
- `Host` names this machine. Without this, a page could have its own name point at this machine after it was
  loaded (DNS rebinding), and then read everything as if it were ours: to the browser it would be one site.

A token needs none of the three: no browser adds it by itself, nor lets another site's page do so.
"""

from __future__ import annotations

import hmac
import ipaddress
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from resilience import authentication_error, authorization_error

if TYPE_CHECKING:
    from examples.backend.api.http import Incoming

BY_PROXIES: Final = ("forwarded", "via", "x-forwarded-for", "x-real-ip")
"""Headers that say that somebody passed the request on."""


def require_operator(token: str, public_url: str, incoming: Incoming) -> None:
    """Let operators pass.

    Args:
        token: The monitoring token; empty if there is none.
        public_url: Where browsers find the backend; empty if it is nowhere but here.
        incoming: The request.

    Raises:
        ServiceError: Somebody else asks (401 or 403).
    """
    if token:
        given = (incoming.headers.get("authorization") or "").encode("utf-8", "replace")
        if not hmac.compare_digest(given, f"Bearer {token}".encode()):
            raise authentication_error("The monitoring token is needed")
        return
    if public_url and not is_this_machine(urlsplit(public_url).hostname or ""):
        raise authorization_error("Monitoring is closed, unless BACKEND_MONITORING_TOKEN is set")
    proxied = any(incoming.headers.get(name) is not None for name in BY_PROXIES)
    if proxied or incoming.peer is None or not is_this_machine(incoming.peer):
        raise authorization_error("Monitoring is open to this machine only, unless a token is set")
    host = _host(incoming)
    if not is_this_machine(host):
        raise authorization_error(
            f"Monitoring is open as localhost only, not as {host!r}, unless a token is set"
        )
    if _comes_from_another_site(incoming):
        raise authorization_error("This request came from another site")


def is_this_machine(name: str) -> bool:
    """Return whether an address, or a name, is certainly this machine's, whatever a name server may say.

    Example:
        >>> [is_this_machine(name) for name in ("127.0.0.1", "::1", "::ffff:127.0.0.1", "localhost")]
        [True, True, True, True]
        >>> [is_this_machine(name) for name in ("192.0.2.1", "localhost.example.com", "")]
        [False, False, False]
    """
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name == "localhost"
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _host(incoming: Incoming) -> str:
    """Return the name by which the client reached us, without its port."""
    try:
        return urlsplit(f"//{incoming.headers.get('host') or ''}").hostname or ""
    except ValueError:  # brackets that do not match
        return ""


def _comes_from_another_site(incoming: Incoming) -> bool:
    site, origin = incoming.headers.get("sec-fetch-site"), incoming.headers.get("origin")
    if site is not None and site not in {"same-origin", "none"}:
        return True
    host = incoming.headers.get("host")
    return origin is not None and origin not in {f"http://{host}", f"https://{host}"}
