"""gpudev's NetworkPolicies on real connections: allowed ones pass, and all others are dropped."""

from __future__ import annotations

import os
import shutil

import pytest

from cluster_world import launch_of, settings_of
from gpudev_hub.core.gate import Launch
from gpudev_hub.hub import pods
from harness_policies import Endpoint, ruleset
from manifests import Object, hub_values, labels_of_the_chart, load
from reach import reached

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("nft") or not shutil.which("ip"),
        reason="network namespaces need root, nft and ip: NO NETWORK POLICY is tried on real connections",
    ),
]


ALICE, CAROL = (launch_of(nodes=2, id=name) for name in ("alice", "carol"))


def server(launch: Launch, rank: int = 0) -> dict[str, str]:
    """Return the server's pod and policies as the spawner writes them."""
    labels: dict[str, str] = pods.pod(launch, rank, settings_of(), "home")["metadata"]["labels"]
    return labels


ADDRESSES = {
    "alice-0": "198.18.1.1",
    "alice-1": "198.18.1.2",
    "carol-0": "198.18.1.9",
    "carol-1": "198.18.1.10",
    "bob": "198.18.1.3",
    "hub": "198.18.1.4",
    "proxy": "198.18.1.5",
    "service": "198.18.1.6",
    "dns": "198.18.1.7",
    "bastion": "198.18.1.8",
    "metadata": "169.254.169.254",
    "pod-identity": "169.254.170.23",
    "machine": "10.0.0.9",
    "website": "192.0.2.80",
}
LABELS = {
    "alice-0": ("gpudev-servers", server(ALICE)),
    "alice-1": ("gpudev-servers", server(ALICE, 1)),
    "carol-0": ("gpudev-servers", server(CAROL)),
    "carol-1": ("gpudev-servers", server(CAROL, 1)),
    "bob": ("gpudev-servers", server(launch_of(id="bob"))),
    "hub": ("gpudev", labels_of_the_chart("hub")),
    "proxy": ("gpudev", labels_of_the_chart("proxy")),
    "service": ("gpudev", {"app.kubernetes.io/name": "gpudev", "app.kubernetes.io/component": "service"}),
    "dns": ("kube-system", {"k8s-app": "kube-dns"}),
    "bastion": ("gpudev", {"app.kubernetes.io/name": "gpudev", "app.kubernetes.io/component": "bastion"}),
}
ALLOWED = [
    ("proxy", "bob", 8888),
    ("hub", "bob", 8888),
    ("service", "bob", 2222),
    ("hub", "service", 8101),
    ("proxy", "service", 8100),
    ("bob", "service", 8100),
    ("bob", "hub", 8081),
    ("bob", "dns", 53),
    ("bob", "website", 443),
    ("service", "pod-identity", 80),
    ("alice-0", "alice-1", 2222),
    ("alice-1", "alice-0", 29500),
    ("carol-0", "carol-1", 29500),
    ("website", "bastion", 2222),
    ("bastion", "service", 8101),
    ("bastion", "bob", 2222),
    ("bastion", "alice-1", 2222),
]
DENIED = [
    ("proxy", "bob", 2222),
    ("service", "bob", 8888),
    ("dns", "bob", 8888),
    ("bob", "service", 8101),
    ("proxy", "service", 8101),
    ("proxy", "bob", 8080),
    ("hub", "metadata", 80),
    ("alice-0", "bob", 2222),
    ("alice-0", "carol-0", 29500),
    ("alice-1", "carol-0", 2222),
    ("carol-1", "alice-0", 29500),
    ("bob", "alice-0", 29500),
    ("bob", "metadata", 80),
    ("bob", "machine", 443),
    ("alice-0", "metadata", 80),
    ("service", "metadata", 80),
    ("service", "bob", 22),
    ("website", "bastion", 22),
    ("website", "bob", 2222),
    ("bastion", "service", 8100),
    ("bastion", "bob", 8888),
    ("bastion", "bob", 22),
    ("bastion", "hub", 8081),
    ("bastion", "proxy", 8000),
    ("bastion", "dns", 53),
    ("bastion", "metadata", 80),
    ("service", "metadata", 80),
    ("service", "pod-identity", 443),
    ("bob", "pod-identity", 80),
    ("hub", "pod-identity", 80),
    ("bastion", "machine", 6443),
    ("bastion", "website", 443),
    ("proxy", "bastion", 8080),
]


def policies_of_pairs() -> list[Object]:
    """Return the policies that the Hub makes for pairs."""
    made = [pods.network_policy(launch, {"uid": "of rank 0's pod"}) for launch in (ALICE, CAROL)]
    for policy in made:
        policy["metadata"]["namespace"] = settings_of().namespace
    return made


def policies_of_the_chart() -> list[Object]:
    """Return what gpudev's values add to the chart's policies of Hub and proxy."""
    values = hub_values()
    parts = {"hub": values["hub"]["networkPolicy"], "proxy": values["proxy"]["chp"]["networkPolicy"]}
    return [
        {
            "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": "gpudev"},
            "spec": {
                "podSelector": {"matchLabels": labels_of_the_chart(name)},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": found.get("ingress", []),
                "egress": found["egress"],
            },
        }
        for name, found in parts.items()
    ]


def test_allowed_connections_pass_and_the_others_are_dropped() -> None:
    who = [Endpoint(*LABELS[name], address) for name, address in ADDRESSES.items() if name in LABELS]
    rules = ruleset([*load(), *policies_of_the_chart(), *policies_of_pairs()], who)
    assert reached(rules, ADDRESSES, ALLOWED + DENIED) == ALLOWED


def test_without_the_rules_all_of_them_pass() -> None:
    """Otherwise the denied connections above would prove nothing."""
    assert reached(ruleset([], []), ADDRESSES, ALLOWED + DENIED) == ALLOWED + DENIED
