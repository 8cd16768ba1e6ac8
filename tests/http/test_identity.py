"""Who is asking."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience.http.identity import client_address, client_key, parse_address

PROXIES = ["10.0.0.0/8", "fd00::/8"]


# --- addresses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        (" 192.0.2.1\t", "192.0.2.1"),
        ("192.0.2.1:4711", "192.0.2.1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("[::ffff:c000:201]:80", "192.0.2.1"),
        ("::1", "::1"),
        ("[192.0.2.1]:80", "192.0.2.1"),
    ],
)
def test_an_address_is_read(text, address):
    assert str(parse_address(text)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "unknown",
        "_hidden",
        "192.0.2",
        "192.0.2.256",
        "192.0.2.01",
        "192.0.2.1:",
        "192.0.2.1:port",
        "192.0.2.1:123456",
        "[2001:db8::1",
        "2001:db8::1]",
        "2001:db8::g",
        "fe80::1%eth0",
        "١٩٢.0.2.1",
        "192.0.2.1\n",
        "192.0.2.1, 192.0.2.2",
        "1" * 10_000,
    ],
)
def test_anything_else_is_no_address(text):
    assert parse_address(text) is None


@given(st.text(max_size=50))
def test_reading_never_fails(text):
    address = parse_address(text)
    assert address is None or ip_address(str(address)) == address


# --- keys ----------------------------------------------------------------------------------------


def test_an_ipv4_client_is_counted_by_address():
    assert client_key("192.0.2.1") == "192.0.2.1"


def test_an_ipv6_client_is_counted_by_network():
    assert client_key("2001:db8:1:2:3:4:5:6") == "2001:db8:1:2::/64"
    assert client_key("2001:db8:1:2:3:4:5:6", prefix=48) == "2001:db8:1::/48"


def test_what_is_no_address_is_its_own_key():
    assert client_key("local") == "local"


# --- clients -------------------------------------------------------------------------------------


def forwarded_for(*lines, header="x-forwarded-for"):
    return [(header, line) for line in lines]


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("fe80::1%eth0", "fe80::1"),
        ("", "local"),
        (None, "local"),
        ("testclient", "local"),
    ],
)
def test_without_proxies_the_client_is_the_peer(peer, address):
    assert client_address(peer) == address
    assert client_address(peer, forwarded_for("6.6.6.6")) == address


@pytest.mark.parametrize(
    ("lines", "address"),
    [
        (["203.0.113.9"], "203.0.113.9"),
        (["6.6.6.6, 203.0.113.9"], "203.0.113.9"),
        (["6.6.6.6, 203.0.113.9, 10.0.0.7,10.1.1.1"], "203.0.113.9"),
        (["6.6.6.6", "203.0.113.9"], "203.0.113.9"),
        (["6.6.6.6, 203.0.113.9", "10.0.0.7"], "203.0.113.9"),
        (["203.0.113.9:4711"], "203.0.113.9"),
        (["[2001:db8::1]:4711, fd00::1"], "2001:db8::1"),
        (["::ffff:203.0.113.9"], "203.0.113.9"),
        (["::ffff:10.0.0.7"], "10.0.0.7"),
        (["10.0.0.7, 10.0.0.8"], "10.0.0.7"),
        (["not read, 203.0.113.9"], "203.0.113.9"),
        (["203.0.113.9, unknown"], "10.0.0.2"),
        (["203.0.113.9, _hidden, 10.0.0.7"], "10.0.0.2"),
        (["203.0.113.9,"], "10.0.0.2"),
        ([""], "10.0.0.2"),
        ([], "10.0.0.2"),
    ],
)
def test_behind_proxies_the_list_is_walked_from_the_right(lines, address):
    assert client_address("10.0.0.2", forwarded_for(*lines), PROXIES) == address


@pytest.mark.parametrize(
    ("lines", "address"),
    [
        (["for=203.0.113.9"], "203.0.113.9"),
        (['For="203.0.113.9:4711";proto=https;by=10.0.0.2'], "203.0.113.9"),
        (["for=203.0.113.9:4711"], "203.0.113.9"),
        (['for=6.6.6.6, for="[2001:db8::1]:80", for=10.0.0.7'], "2001:db8::1"),
        (["for=6.6.6.6", "for=203.0.113.9"], "203.0.113.9"),
        (['for="203.0.113\\.9"'], "203.0.113.9"),
        (['by="a,b;c";for=203.0.113.9'], "203.0.113.9"),
        ([" for=203.0.113.9 ; proto=http , for=10.0.0.7 "], "203.0.113.9"),
        (["proto=https"], "10.0.0.2"),
        (["for=unknown"], "10.0.0.2"),
        (['for="_hidden"'], "10.0.0.2"),
        (["for=203.0.113.9;for=6.6.6.6"], "10.0.0.2"),
        (["for = 203.0.113.9"], "10.0.0.2"),
        (["for=203.0.113.9, nonsense"], "10.0.0.2"),
        (["203.0.113.9"], "10.0.0.2"),
        ([""], "10.0.0.2"),
        (['for="203.0.113.9'], "10.0.0.2"),
        (['for=6.6.6.6;by=", for="[2001:db8::9]"'], "10.0.0.2"),
        (['for=6.6.6.6;by=", for=203.0.113.9'], "10.0.0.2"),
    ],
)
def test_forwarded_is_walked_likewise(lines, address):
    headers = forwarded_for(*lines, header="Forwarded")
    assert client_address("10.0.0.2", headers, PROXIES, header="Forwarded") == address


def test_a_header_with_one_address():
    headers = {"X-Real-IP": "203.0.113.9"}
    assert client_address("10.0.0.2", headers, PROXIES, header="x-real-ip") == "203.0.113.9"


def test_a_proxy_behind_a_unix_socket_is_trusted_by_a_word():
    headers = forwarded_for("203.0.113.9")
    assert client_address(None, headers, ["local"]) == "203.0.113.9"
    assert client_address(None, headers, ["10.0.0.0/8"]) == "local"
    assert client_address("198.51.100.1", headers, ["local"]) == "198.51.100.1"


def test_networks_may_be_objects_and_single_addresses():
    headers = forwarded_for("203.0.113.9")
    assert client_address("10.0.0.2", headers, [ip_network("10.0.0.0/8")]) == "203.0.113.9"
    assert client_address("10.0.0.2", headers, ["10.0.0.2"]) == "203.0.113.9"


@pytest.mark.parametrize("network", ["10.0.0.1/8", "proxy", "", "10.0.0.0/33"])
def test_a_network_that_cannot_be_read_is_refused(network):
    with pytest.raises(ValueError, match="cannot trust"):
        client_address("10.0.0.2", (), [network])


@given(st.lists(st.text(max_size=40), max_size=4), st.sampled_from(["x-forwarded-for", "forwarded"]))
def test_the_result_is_always_an_address(lines, header):
    found = client_address("10.0.0.2", forwarded_for(*lines, header=header), PROXIES, header=header)
    assert str(ip_address(found)) == found


@given(st.text(alphabet='for=";,\\[]:.0123456789 by', max_size=60))
def test_what_a_client_puts_before_it_cannot_move_what_a_proxy_appends(forged):
    honest = 'for="[2001:db8::9]:47011"'
    found = client_address(
        "10.0.0.2", forwarded_for(f"{forged}, {honest}", header="forwarded"), PROXIES, header="forwarded"
    )
    assert found in {"2001:db8::9", "10.0.0.2"}
