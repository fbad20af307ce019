"""Whose request it is, where load balancers stand before the Hub's proxy."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

Network = IPv4Network | IPv6Network


def beyond(chain: str, balancers: Sequence[Network]) -> str:
    """Return an ``X-Forwarded-For`` without the balancers at its end: each hop appends who called it.

    What comes before the last address that remains is the caller's own claim, and proves nothing.
    """
    hops = [hop.strip() for hop in chain.split(",")]
    while len(hops) > 1 and _within(hops[-1], balancers):
        hops.pop()
    return ", ".join(hops)


def _within(hop: str, networks: Sequence[Network]) -> bool:
    try:
        address = ip_address(hop)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped  # as a proxy writes it that listens on both kinds
    return any(address in network for network in networks)
