"""The rules that stand in for a network plug-in, and with them who reaches whom by our NetworkPolicies."""

from __future__ import annotations

import re

import pytest

from cluster_world import launch_of, settings_of
from gpudev_hub.cluster.labels import OWN_POLICY
from gpudev_hub.core.gate import Launch
from gpudev_hub.hub.pods import network_policy, pod
from harness_policies import Endpoint, ruleset, selects
from manifests import Object, labels_of_the_chart, load, one

ALICE_0 = "198.19.1.10"
ALICE_1 = "198.19.2.10"
CAROL_0 = "198.19.1.12"
CAROL_1 = "198.19.2.12"
OLDER_0 = "198.19.1.13"
OLDER_1 = "198.19.2.13"
BOB = "198.19.1.11"
PROBES = ("198.19.1.14", "198.19.2.14")
HUB = "198.19.3.1"
PROXY = "198.19.3.2"
SERVICE = "198.19.3.3"
BASTION = "198.19.3.4"
DNS = "198.19.3.5"
OTHER = "198.19.3.6"
POD_IDENTITY = "169.254.170.23"


PAIRS = {name: launch_of(nodes=2, id=name) for name in ("alice", "carol", "older")}


def labels_of(launch: Launch, rank: int = 0) -> dict[str, str]:
    """As the spawner writes them."""
    found: dict[str, str] = pod(launch, rank, settings_of(), "home")["metadata"]["labels"]
    return found


def older(rank: int) -> dict[str, str]:
    """As the spawner wrote them before a pair had a policy of its own."""
    return {name: value for name, value in labels_of(PAIRS["older"], rank).items() if name != OWN_POLICY}


def policies(layer: str) -> list[Object]:
    """Those of the chart, and what the Hub makes beside alice's and carol's pair."""
    owner = {"kind": "Pod", "name": "of-rank-0", "uid": "u"}
    made = [network_policy(PAIRS[name], owner) for name in ("alice", "carol")]
    for policy in made:
        policy["metadata"]["namespace"] = settings_of().namespace
    return [*load(layer), *made]


def part(name: str, component: str) -> dict[str, str]:
    return {"app.kubernetes.io/name": name, "app.kubernetes.io/component": component}


WHO = [
    Endpoint("gpudev-servers", labels_of(PAIRS["alice"], 0), ALICE_0),
    Endpoint("gpudev-servers", labels_of(PAIRS["alice"], 1), ALICE_1),
    Endpoint("gpudev-servers", labels_of(PAIRS["carol"], 0), CAROL_0),
    Endpoint("gpudev-servers", labels_of(PAIRS["carol"], 1), CAROL_1),
    Endpoint("gpudev-servers", older(0), OLDER_0),
    Endpoint("gpudev-servers", older(1), OLDER_1),
    Endpoint("gpudev-servers", labels_of(launch_of()), BOB),
    *(Endpoint("gpudev-servers", part("gpudev", "policy-probe"), address) for address in PROBES),
    Endpoint("gpudev", labels_of_the_chart("hub"), HUB),
    Endpoint("gpudev", labels_of_the_chart("proxy"), PROXY),
    Endpoint("gpudev", part("gpudev", "service"), SERVICE),
    Endpoint("gpudev", part("gpudev", "bastion"), BASTION),
    Endpoint("kube-system", {"k8s-app": "kube-dns"}, DNS),
    Endpoint("default", part("gpudev", "server"), OTHER),
]


SERVERS = (ALICE_0, ALICE_1, CAROL_0, CAROL_1, OLDER_0, OLDER_1, BOB)


def rules(direction: str, address: str, layer: str = "kubernetes") -> set[str]:
    """What of one direction is let through at an address."""
    text = ruleset(policies(layer), WHO)
    side = "saddr" if direction == "egress" else "daddr"
    chain = re.search(rf"ip {side} {re.escape(address)} jump (\w+)", text)
    assert chain is not None, f"nothing restricts the {direction} of {address}"
    body = re.search(rf"chain {chain[1]} {{\n(.*?)\n  }}", text, re.DOTALL)
    assert body is not None
    lines = [line.strip() for line in body[1].splitlines()]
    assert lines.pop() == "drop"
    assert all(line.endswith(" return") for line in lines)
    return {line.removesuffix(" return") for line in lines}


SPECIAL = (
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "198.18.0.0/15",
)
INTERNET = {
    "ip daddr 0.0.0.0/0 ip daddr != { " + ", ".join(SPECIAL) + " }",
    "ip6 daddr ::/0 ip6 daddr != { ::1/128, fc00::/7, fe80::/10 }",
}
NAMES = {f"ip daddr {DNS} udp dport 53", f"ip daddr {DNS} tcp dport 53"}
DOORS = {
    f"ip saddr {HUB} tcp dport 8888",
    f"ip saddr {PROXY} tcp dport 8888",
    f"ip saddr {SERVICE} tcp dport 2222",
    f"ip saddr {BASTION} tcp dport 2222",
}
OUTSIDE = {
    f"ip daddr {SERVICE} tcp dport 8100",
    f"ip daddr {HUB} tcp dport 8081",
    f"ip daddr {PROXY} tcp dport 8000",
    f"ip daddr {PROXY} tcp dport 8443",
}


def test_a_server_of_one_node_is_reached_by_its_doors_alone() -> None:
    assert rules("ingress", BOB) == DOORS
    assert rules("egress", BOB) == NAMES | OUTSIDE | INTERNET


@pytest.mark.parametrize("ranks", [{ALICE_0, ALICE_1}, {CAROL_0, CAROL_1}, {OLDER_0, OLDER_1}])
def test_nodes_of_a_reservation_reach_each_other_and_no_other_server(
    ranks: set[str],
) -> None:
    """Also those of a pair that runs since before pairs had policies: an upgrade cuts nobody."""
    for address in ranks:
        assert rules("ingress", address) == DOORS | {f"ip saddr {rank}" for rank in ranks}
        assert rules("egress", address) == NAMES | OUTSIDE | INTERNET | {f"ip daddr {rank}" for rank in ranks}


def test_a_probe_reaches_what_servers_do_and_is_reached_by_nobody() -> None:
    for address in PROBES:
        assert rules("egress", address) == NAMES | OUTSIDE | INTERNET
        assert rules("egress", address, "aws") == NAMES | OUTSIDE | INTERNET | {
            f"ip daddr {probe} tcp dport 2222" for probe in PROBES
        }
        assert rules("ingress", address, "aws") == set()


def test_the_gate_is_the_hubs_and_the_bastions_alone() -> None:
    ingress = rules("ingress", SERVICE)
    gate = {f"ip saddr {HUB} tcp dport 8101", f"ip saddr {BASTION} tcp dport 8101"}
    assert {rule for rule in ingress if "8101" in rule} == gate
    public = {f"ip saddr {who} tcp dport 8100" for who in (HUB, PROXY, *SERVERS, *PROBES)}
    assert ingress == public | gate


def test_metrics_are_for_the_scrapers_addresses_alone() -> None:
    """They ask for no login. By default nobody is let through."""
    scrapers = ("10.0.2.0/28", "10.0.2.16/28")
    ingress = rules("ingress", SERVICE, "aws")
    assert ingress - rules("ingress", SERVICE) == {f"ip saddr {it} tcp dport 8102" for it in scrapers}
    assert not any("8102" in rule for rule in rules("ingress", SERVICE))
    # A second lock, should a scraper's network be so wide that servers are in it.
    for server in (ALICE_0, BOB):
        assert not any("8102" in rule for rule in rules("egress", server, "aws"))


def test_the_bastion_reaches_sshds_and_the_gate_and_nothing_else() -> None:
    """Not the Kubernetes API, the instance metadata, DNS, the internet, or any other port of a server."""
    assert rules("egress", BASTION) == {f"ip daddr {SERVICE} tcp dport 8101"} | {
        f"ip daddr {who} tcp dport 2222" for who in SERVERS
    }
    assert rules("ingress", BASTION) == {"ip saddr 0.0.0.0/0 tcp dport 2222", "ip6 saddr ::/0 tcp dport 2222"}


def test_the_service_looks_at_sshds_and_at_nothing_else_of_a_server() -> None:
    egress = rules("egress", SERVICE)
    servers = {rule for rule in egress if any(who in rule for who in SERVERS)}
    assert servers == {f"ip daddr {who} tcp dport 2222" for who in SERVERS}
    assert NAMES | {f"ip daddr {HUB} tcp dport 8081"} <= egress
    assert all("169.254.0.0/16" in rule for rule in egress if "0.0.0.0/0" in rule)
    # The agent that gives it its role, and never the instance metadata, which gives the node's.
    link_local = {rule for rule in egress if "ip daddr 169.254." in rule}
    assert link_local == {f"ip daddr {POD_IDENTITY}/32 tcp dport 80"}
    for other in (HUB, PROXY, BASTION, BOB, ALICE_0):
        assert not any("ip daddr 169.254." in rule for rule in rules("egress", other))


def test_what_no_policy_selects_is_left_alone() -> None:
    text = ruleset(load(), WHO)
    assert f" {DNS} jump" not in text
    assert f" {OTHER} jump" not in text


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        ({}, True),
        ({"matchLabels": {"a": "1"}}, True),
        ({"matchLabels": {"a": "2"}}, False),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}, True),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, False),
        ({"matchExpressions": [{"key": "b", "operator": "NotIn", "values": ["1"]}]}, True),
        ({"matchExpressions": [{"key": "b", "operator": "Exists"}]}, False),
        ({"matchExpressions": [{"key": "b", "operator": "DoesNotExist"}]}, True),
    ],
)
def test_selectors_match_as_kubernetes_says(selector: Object, matches: bool) -> None:
    assert selects(selector, {"a": "1"}) is matches


def policy(port: Object, *, egress: bool = False) -> Object:
    body = {"egress": [{"ports": [port]}]} if egress else {"ingress": [{"ports": [port]}]}
    kinds = ["Egress" if egress else "Ingress"]
    return {
        "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": "n"},
        "spec": {"podSelector": {}, "policyTypes": kinds, **body},
    }


def test_ports_by_number_range_name_and_protocol() -> None:
    there = Endpoint("n", {}, "198.19.1.1", {"http": 8081})
    assert "tcp dport 8081 return" in ruleset([policy({"port": "http"})], [there])
    assert "udp dport 1-9 return" in ruleset([policy({"port": 1, "endPort": 9, "protocol": "UDP"})], [there])
    assert "meta l4proto udp return" in ruleset([policy({"protocol": "UDP"})], [there])
    assert "return" not in ruleset([policy({"port": "absent"})], [there])
    with pytest.raises(ValueError, match="names the port http of nobody in particular"):
        ruleset([policy({"port": "http"}, egress=True)], [there])


def test_an_operator_that_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown operator Like"):
        selects({"matchExpressions": [{"key": "a", "operator": "Like"}]}, {})


def test_nothing_to_enforce_is_a_table_all_the_same() -> None:
    assert "drop" not in ruleset([], [])
    assert one(load(), "NetworkPolicy", "nothing-else", "gpudev-servers")["spec"]["podSelector"] == {}
