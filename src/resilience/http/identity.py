"""Who is asking: the client's address, as far as it can be known, and the key to count it by.

Rules:
    - The peer's address is the only one that nobody can invent. What headers say counts only as far as the
      peer, and then each proxy before it, is trusted by its network.
    - Proxies append, so the list is walked from the right; the first address that is not a trusted proxy's
      is the client. What stands further left is the client's own invention.
    - Only the one header that is configured counts. A proxy that sets `X-Forwarded-For` passes a forged
      `Forwarded` through untouched.
    - Anything that is no address (`unknown`, `_hidden`, garbage) ends the walk: then it is the peer.
    - An IPv4 address mapped into IPv6 is that IPv4 address. IPv6 clients are counted by /64, since one
      client has all of it.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from resilience.http.headers import header_values

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from resilience.http.headers import Headers

    Address = ipaddress.IPv4Address | ipaddress.IPv6Address
    Network = ipaddress.IPv4Network | ipaddress.IPv6Network

NO_ADDRESS: Final = "local"
"""What a peer without an address is called: one behind a Unix socket. Trust it by this word."""


def client_address(
    peer: str | None,
    headers: Headers = (),
    trusted: Iterable[str | Network] = (),
    *,
    header: str = "x-forwarded-for",
) -> str:
    """Return the address of the client behind `peer`.

    Args:
        peer: The address at the other end of the connection; None or empty for a Unix socket.
        headers: The request's headers, a mapping or pairs; names in any case.
        trusted: The networks of your own proxies, such as `"10.0.0.0/8"`; `"local"` for a proxy that
            comes by a Unix socket.
        header: Which header your proxies write: `"x-forwarded-for"`, `"forwarded"` (RFC 7239), or one that
            holds a single address, such as `"x-real-ip"`.

    Returns:
        The address in its canonical form, without a port; `"local"` for a peer without one.

    Raises:
        ValueError: A trusted network cannot be read.

    Example:
        >>> client_address("10.0.0.2", {"X-Forwarded-For": "6.6.6.6, 203.0.113.9, 10.0.0.7"}, ["10.0.0.0/8"])
        '203.0.113.9'
        >>> client_address("198.51.100.1", {"X-Forwarded-For": "6.6.6.6"}, ["10.0.0.0/8"])
        '198.51.100.1'
    """
    networks = [network if not isinstance(network, str) else _network(network) for network in trusted]
    address = None if not peer else parse_address(peer.partition("%")[0])
    own = NO_ADDRESS if address is None else str(address)
    if not _is_trusted(address, networks):
        return own
    found = own
    for entry in _entries_from_the_right(headers, header.lower()):
        address = None if entry is None else parse_address(entry)
        if address is None:
            return own
        found = str(address)
        if not _is_trusted(address, networks):
            break
    return found


def client_key(address: str, prefix: int = 64) -> str:
    """Return what to count a client by: its IPv4 address, or its IPv6 network.

    Args:
        address: As `client_address` returns it.
        prefix: How many bits of an IPv6 address tell clients apart, 1 to 128.

    Example:
        >>> client_key("2001:db8::aa:1"), client_key("::ffff:192.0.2.1")
        ('2001:db8::/64', '192.0.2.1')
    """
    parsed = parse_address(address)
    if parsed is None:
        return address
    if parsed.version == 4:  # noqa: PLR2004 - IPv4
        return str(parsed)
    return str(ipaddress.IPv6Network((int(parsed), prefix), strict=False))


def parse_address(text: str) -> Address | None:
    """Return the address in `text`, with or without brackets and port, or None if there is none.

    Example:
        >>> [str(parse_address(text)) for text in ("192.0.2.1:80", "[2001:db8::1]:80", "::ffff:192.0.2.1")]
        ['192.0.2.1', '2001:db8::1', '192.0.2.1']
    """
    match = _ADDRESS.fullmatch(text.strip(" \t"))
    if match is None:
        return None
    try:
        address = ipaddress.ip_address(match["v6"] or match["v4"])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


_ADDRESS: Final = re.compile(
    r"(?P<v4>[0-9.]{7,15})(?::[0-9]{1,5})?"
    r"|(?P<bracket>\[)?(?P<v6>[0-9A-Fa-f:.]{2,45})(?(bracket)\](?::[0-9]{1,5})?)",
    re.ASCII,
)


@lru_cache(maxsize=1024)
def _network(text: str) -> Network | None:
    if text == NO_ADDRESS:
        return None
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(
            f"cannot trust {text!r}: name a network such as '10.0.0.0/8', an address, or {NO_ADDRESS!r}"
        ) from error


def _is_trusted(address: Address | None, networks: list[Network | None]) -> bool:
    if address is None:
        return None in networks
    return any(network is not None and address in network for network in networks)


def _entries_from_the_right(headers: Headers, header: str) -> Iterator[str | None]:
    """Yield what each proxy says it was asked by, the nearest first; None for what cannot be read."""
    for line in reversed(header_values(headers, header)):
        yield from reversed(_forwarded(line) if header == "forwarded" else line.split(","))


# --- Forwarded (RFC 7239) ------------------------------------------------------------------------

_PAIR: Final = re.compile(
    r"[ \t]*(?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+)="
    r'(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<token>[^\s",;=]+))'
    r"[ \t]*(?P<end>[;,]|$)"
)


def _forwarded(line: str) -> list[str | None]:
    """Return the `for` of each element of one line; only None if the line is not well-formed.

    Nothing is skipped over: with one lenient step, a client could open a quotation that swallows what the
    proxy appends after it.
    """
    elements: list[str | None] = []
    node: str | None = None
    position = 0
    while position < len(line):
        pair = _PAIR.match(line, position)
        if pair is None or (pair["name"].lower() == "for" and node is not None):
            return [None]
        if pair["name"].lower() == "for":
            node = pair["token"] or re.sub(r"\\(.)", r"\1", pair["quoted"])
        if pair["end"] != ";":
            elements.append(node)
            node = None
        position = pair.end()
    return elements
