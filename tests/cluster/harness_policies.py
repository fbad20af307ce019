"""Turns NetworkPolicies into nftables rules, because the test cluster's bridge plug-in enforces none.

The rules are a pure function of manifests and addresses. Like a network plug-in, they let an address that a
policy selects send or receive only what a policy allows. Answers pass. Traffic of nodes passes, as in
Kubernetes. When pods change, the new rules are loaded (``nft -f -``).

Traffic between pods of one bridge passes these rules only with ``net.bridge.bridge-nf-call-iptables`` = 1.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any, Final, Literal

Object = dict[str, Any]
Direction = Literal["ingress", "egress"]
DIRECTIONS: Final[Mapping[Direction, str]] = {"egress": "saddr", "ingress": "daddr"}
"""The side of a packet on which the selected pod is, by direction."""

TABLE: Final = "gpudev_policies"
_NAME: Final = "kubernetes.io/metadata.name"


@dataclass(frozen=True)
class Endpoint:
    """A pod, or a process beside the cluster that counts as one, with its IPv4 address."""

    namespace: str
    labels: Mapping[str, str]
    address: str
    ports: Mapping[str, int] = field(default_factory=dict)
    """Its named ports."""


def ruleset(
    objects: Iterable[Object], endpoints: Sequence[Endpoint], spared: Collection[tuple[str, Direction]] = ()
) -> str:
    """Return input for ``nft -f -``: a new table with rules for the NetworkPolicies in ``objects``.

    Namespaces in ``objects`` provide labels. ``spared``: addresses that are not restricted, by direction.
    Raises ``ValueError`` for a policy that it cannot translate, so that no part of a policy is ignored.
    """
    found = list(objects)
    policies = [item for item in found if item["kind"] == "NetworkPolicy"]
    namespaces = {
        item["metadata"]["name"]: item["metadata"].get("labels", {})
        for item in found
        if item["kind"] == "Namespace"
    }
    chains: list[str] = []
    jumps: list[str] = []
    for number, endpoint in enumerate(endpoints):
        for direction, side in DIRECTIONS.items():
            mine = [policy for policy in policies if _applies(policy, endpoint, direction)]
            if mine and (endpoint.address, direction) not in spared:
                rules = [
                    line
                    for policy in mine
                    for rule in policy["spec"].get(direction) or ()
                    for line in _lines(rule, policy, endpoint, direction, endpoints, namespaces)
                ]
                name = f"{direction}_{number}"
                chains.append(_chain(name, [*dict.fromkeys(rules), "drop"]))
                jumps.append(f"ip {side} {endpoint.address} jump {name}")
    known = ", ".join(sorted({endpoint.address for endpoint in endpoints}))
    hooks = [
        _base("forward", ["jump enforce"]),
        _base("input", ["jump enforce"]),
        # The node can reach every pod. Processes on the node that count as pods cannot.
        _base("output", [f"ip saddr {{ {known} }} jump enforce"] if known else []),
    ]
    enforce = _chain("enforce", ["ct state established,related accept", *jumps])
    body = "\n".join([*chains, enforce, *hooks])
    return f"table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n{body}\n}}\n"


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Return whether a label selector matches. An empty selector matches everything."""
    exact = all(labels.get(name) == value for name, value in selector.get("matchLabels", {}).items())
    return exact and all(_holds(term, labels) for term in selector.get("matchExpressions", ()))


def _holds(term: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value = labels.get(term["key"])
    match term["operator"]:
        case "In":
            return value in term["values"]
        case "NotIn":
            return value not in term["values"]
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
    raise ValueError(f"a label selector has the unknown operator {term['operator']}")


def _applies(policy: Object, endpoint: Endpoint, direction: Direction) -> bool:
    spec = policy["spec"]
    types = spec.get("policyTypes") or ["Ingress", *(["Egress"] if "egress" in spec else [])]
    return (
        policy["metadata"]["namespace"] == endpoint.namespace
        and direction.capitalize() in types
        and selects(spec["podSelector"], endpoint.labels)
    )


def _lines(
    rule: Mapping[str, Any],
    policy: Object,
    endpoint: Endpoint,
    direction: Direction,
    endpoints: Sequence[Endpoint],
    namespaces: Mapping[str, Mapping[str, str]],
) -> Iterator[str]:
    """Return what one rule of a policy allows, one line for each peer and port."""
    side = "saddr" if direction == "ingress" else "daddr"
    peers = rule.get("from" if direction == "ingress" else "to")
    for condition, target in _peers(peers, side, policy["metadata"]["namespace"], endpoints, namespaces):
        for port in rule.get("ports") or [None]:
            named = endpoint if direction == "ingress" else target
            if (dport := _port(port, named, policy)) is not None:
                yield " ".join(filter(None, [condition, dport, "return"]))


def _peers(
    peers: Sequence[Mapping[str, Any]] | None,
    side: str,
    own: str,
    endpoints: Sequence[Endpoint],
    namespaces: Mapping[str, Mapping[str, str]],
) -> Iterator[tuple[str, Endpoint | None]]:
    """Return conditions on the peer's address, each with the endpoint if it is known."""
    if not peers:
        yield "", None
        return
    for peer in peers:
        if "ipBlock" in peer:
            yield _block(peer["ipBlock"], side), None
            continue
        for other in endpoints:
            if "namespaceSelector" in peer:
                labels = {_NAME: other.namespace, **namespaces.get(other.namespace, {})}
                near = selects(peer["namespaceSelector"], labels)
            else:
                near = other.namespace == own
            if near and selects(peer.get("podSelector", {}), other.labels):
                yield f"ip {side} {other.address}", other


def _block(block: Mapping[str, Any], side: str) -> str:
    family = "ip6" if ip_network(block["cidr"]).version == 6 else "ip"
    condition = f"{family} {side} {block['cidr']}"
    if block.get("except"):
        condition += f" {family} {side} != {{ {', '.join(block['except'])} }}"
    return condition


def _port(port: Mapping[str, Any] | None, named: Endpoint | None, policy: Object) -> str | None:
    """Return the condition on the port; ``None`` if this endpoint has no port of that name."""
    if port is None:
        return ""
    protocol = port.get("protocol", "TCP").lower()
    number = port.get("port")
    if number is None:
        return f"meta l4proto {protocol}"
    if isinstance(number, str):
        if named is None:
            raise ValueError(
                f"the policy {policy['metadata']['name']} names the port {number} of nobody in particular,"
                " whose number can't be known here"
            )
        if number not in named.ports:
            return None
        number = named.ports[number]
    last = f"-{port['endPort']}" if "endPort" in port else ""
    return f"{protocol} dport {number}{last}"


def _chain(name: str, lines: Sequence[str]) -> str:
    return "\n".join([f"  chain {name} {{", *(f"    {line}" for line in lines), "  }"])


def _base(hook: str, lines: Sequence[str]) -> str:
    return _chain(f"on_{hook}", [f"type filter hook {hook} priority 10; policy accept;", *lines])
