"""Which addresses may be connected to: public ones, and those that the user allows.

It is decided where a socket connects, on the numeric address that it connects to. So neither the spelling of a URL nor
a name whose address changes between two look-ups matters.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Union

from .deadline import Deadline, TimedSocket

Address = Union[IPv4Address, IPv6Address]  # noqa: UP007 (Python 3.9, and below)
Network = Union[IPv4Network, IPv6Network]  # noqa: UP007

_NAT64 = IPv6Network("64:ff9b::/96")  # how a network without IPv4 names the IPv4 addresses of the world
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_TUNNELS = (IPv6Network("2001::/32"), IPv6Network("2002::/16"))  # Teredo, 6to4: they lead to the IPv4 address inside
_RELAY = IPv4Network("192.88.99.0/24")  # 6to4's relays


class ForbiddenAddressError(Exception):
    """An address that may not be connected to, or a name with no other address. The text says which."""


def is_permitted(address: Address, allow: Sequence[Network] = ()) -> bool:
    """Return whether a socket may connect to an address: a public one, or one inside of a network of `allow`."""
    address = _meant(address)
    return any(address in network for network in allow) or _is_public(address)


def _meant(address: Address) -> Address:
    """Return the IPv4 address to which an IPv6 address leads that only writes it differently."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return address.is_global and not address.is_multicast and address not in _RELAY
    return address in _GLOBAL_UNICAST and address.is_global and not any(address in tunnel for tunnel in _TUNNELS)


def connect(host: str, port: int, deadline: Deadline, allow: Sequence[Network]) -> TimedSocket:
    """Look a host up, once, and connect to the first of its permitted addresses that answers.

    The look-up is the system's, which knows no deadline; its own limit is set by `RES_OPTIONS` of the process.

    Raises:
        ForbiddenAddressError: The host has no permitted address.
        DeadlineError: The time is over.
        OSError: The host is unknown (socket.gaierror), or no address answers.
        UnicodeError: The host is not a possible name.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    permitted = [place for place in found if is_permitted(ip_address(str(place[4][0]).partition("%")[0]), allow)]
    if not permitted:
        raise ForbiddenAddressError(f"forbidden address: {found[0][4][0]}")
    for number, (family, kind, protocol, _, place) in enumerate(permitted):
        connecting = TimedSocket(family, kind, protocol)
        try:
            connecting.settimeout(deadline.remaining() / (len(permitted) - number))
            connecting.connect(place)
            connecting.deadline = deadline
            return connecting
        except OSError:
            connecting.close()
            if number + 1 == len(permitted):
                raise
        except BaseException:
            connecting.close()
            raise
    raise AssertionError("not reached")


def refuse_literal(host: str, allow: Sequence[Network]) -> None:
    """Refuse a host that is written as a forbidden address, for requests that a proxy looks up.

    Raises:
        ForbiddenAddressError: It is one, in any spelling.
        UnicodeError: The host is not a possible name.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        return  # a name
    for place in found:
        if not is_permitted(ip_address(str(place[4][0]).partition("%")[0]), allow):
            raise ForbiddenAddressError(f"forbidden address: {place[4][0]}")
