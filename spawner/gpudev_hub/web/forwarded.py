"""Client addresses of requests that pass load balancers in front of the Hub's proxy."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

Network = IPv4Network | IPv6Network


def beyond(chain: str, balancers: Sequence[Network]) -> str:
    """Return an ``X-Forwarded-For`` header without the balancers at its end.

    Each hop appends the address of its client, so the last remaining address is the real client. Addresses
    before it come from the client and prove nothing.
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
        address = address.ipv4_mapped  # proxies that listen on IPv6 write IPv4 addresses so
    return any(address in network for network in networks)
