"""Client addresses of requests that pass load balancers in front of the Hub's proxy."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Network = IPv4Network | IPv6Network


def beyond(chain: str, balancers: Sequence[Network]) -> str:
    """Return an ``X-Forwarded-For`` header without the balancers at its end.

    Each hop appends the address of its client, so the last remaining address is the real client. Addresses
    before it come from the client and prove nothing.
    """
    hops = [hop.strip() for hop in chain.split(",")]
    while len(hops) > 1 and (address := address_of(hops[-1])) is not None:
        if not any(address in network for network in balancers):
            break
        hops.pop()
    return ", ".join(hops)


def address_of(text: str) -> IPv4Address | IPv6Address | None:
    """Return the address; an IPv4 address if it is written as IPv6, as by proxies that listen on IPv6."""
    try:
        found = ip_address(text)
    except ValueError:
        return None
    return found if isinstance(found, IPv4Address) else found.ipv4_mapped or found
