"""Which addresses a socket may connect to, however they are written."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.stages.download.fetching.addresses import ForbiddenAddressError, connect, is_permitted
from pipeline.stages.download.fetching.deadline import Deadline
from tests.web_server import WebServer

NOT_PUBLIC = [
    IPv4Network(network)
    for network in (
        "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.2.0/24 192.168.0.0/16 "
        "198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4"
    ).split()
]
"""Networks that no image on the web is in, as IANA lists them."""

numbers = st.sampled_from(NOT_PUBLIC).flatmap(lambda n: st.integers(int(n[0]), int(n[-1])))


def _spellings(address: IPv4Address) -> list[str]:
    """The ways to write an IPv4 address that a resolver of the system reads."""
    a, b, c, d = address.packed
    return [
        str(address),
        str(int(address)),
        hex(int(address)),
        f"0{int(address):o}",
        f"0{a:o}.0{b:o}.0{c:o}.0{d:o}",
        f"{a:#x}.{b:#x}.{c:#x}.{d:#x}",
        f"{a}.{b}.{c << 8 | d}",
        f"{a}.{b << 16 | c << 8 | d}",
        f"::ffff:{address}",
        f"0:0:0:0:0:ffff:{a << 8 | b:x}:{c << 8 | d:x}",
        f"64:ff9b::{address}",
    ]


@given(numbers)
def test_no_spelling_of_a_private_address_is_connected_to(number: int) -> None:
    for spelling in _spellings(IPv4Address(number)):
        found = {ip_address(place[4][0]) for place in socket.getaddrinfo(spelling, 80, type=socket.SOCK_STREAM)}
        assert found
        assert not any(is_permitted(address) for address in found), spelling


@given(st.integers(0, 2**32 - 1).map(IPv4Address).filter(lambda a: not any(a in n for n in NOT_PUBLIC)))
def test_other_addresses_are_public(address: IPv4Address) -> None:
    reserved = any(address in IPv4Network(network) for network in ("192.0.0.0/24", "192.88.99.0/24"))
    assert is_permitted(address) or reserved
    assert is_permitted(IPv6Address(f"64:ff9b::{address}")) == is_permitted(address)


@pytest.mark.parametrize(
    "address",
    [
        "::",
        "::1",
        "::7f00:1",  # an old way to write 127.0.0.1
        "fe80::1",
        "fec0::1",
        "fc00::1",
        "fd12:3456::1",
        "ff02::1",
        "100::1",
        "2001:db8::1",
        "2001:0:7f00:1::",  # Teredo
        "2002:7f00:1::",  # 6to4
        "2002:808:808::",
        "64:ff9b:1::7f00:1",  # a network's own NAT64
        "64:ff9b::a9fe:a9fe",
        "::ffff:169.254.169.254",
    ],
)
def test_ipv6_address_that_is_not_public_is_refused(address: str) -> None:
    assert not is_permitted(IPv6Address(address))


def test_public_ipv6_address_is_permitted() -> None:
    assert is_permitted(IPv6Address("2606:2800:220:1::1"))


@pytest.mark.parametrize("address", ["10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::10.1.2.3", "fd00::1"])
def test_addresses_in_allow_are_permitted(address: str) -> None:
    allow = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]
    assert is_permitted(ip_address(address), allow)
    assert not is_permitted(ip_address("192.168.0.1"), allow)


@pytest.mark.parametrize("host", ["127.0.0.9", "2130706441", "0177.0.0.9", "0x7f000009", "127.9", "::ffff:127.0.0.9"])
def test_forbidden_address_gets_no_connection(web: WebServer, host: str) -> None:
    with pytest.raises(ForbiddenAddressError, match="forbidden address: "):
        connect(host, web.port, Deadline(5), [ip_network("127.0.0.2")])
    connect("127.0.0.2", web.port, Deadline(5), [ip_network("127.0.0.2")]).close()
    assert "127.0.0.9" not in web.connections
