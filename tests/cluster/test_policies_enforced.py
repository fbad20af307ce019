"""Our NetworkPolicies on real connections: what is allowed passes, what is not is dropped."""

from __future__ import annotations

import os
import shutil

import pytest

from harness_policies import Endpoint, ruleset
from manifests import ROOT, Object, labels_of_the_chart, load, read_one
from reach import reached

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("nft") or not shutil.which("ip"),
        reason="network namespaces need root, nft and ip: NO NETWORK POLICY is tried on real connections",
    ),
]


def server(ranks: str) -> dict[str, str]:
    return {"app.kubernetes.io/component": "server", "gpudev/ranks": ranks}


ADDRESSES = {
    "alice-0": "198.18.1.1",
    "alice-1": "198.18.1.2",
    "bob": "198.18.1.3",
    "hub": "198.18.1.4",
    "proxy": "198.18.1.5",
    "service": "198.18.1.6",
    "dns": "198.18.1.7",
    "metadata": "169.254.169.254",
    "machine": "10.0.0.9",
    "website": "192.0.2.80",
}
LABELS = {
    "alice-0": ("gpudev-servers", server("2")),
    "alice-1": ("gpudev-servers", server("2")),
    "bob": ("gpudev-servers", server("1")),
    "hub": ("gpudev", labels_of_the_chart("hub")),
    "proxy": ("gpudev", labels_of_the_chart("proxy")),
    "service": ("gpudev", {"app.kubernetes.io/name": "gpudev", "app.kubernetes.io/component": "service"}),
    "dns": ("kube-system", {"k8s-app": "kube-dns"}),
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
    ("alice-0", "alice-1", 2222),
    ("alice-1", "alice-0", 29500),
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
    ("bob", "alice-0", 29500),
    ("bob", "metadata", 80),
    ("bob", "machine", 443),
    ("alice-0", "metadata", 80),
    ("service", "metadata", 80),
    ("service", "bob", 22),
]


def policies_of_the_chart() -> list[Object]:
    """What our values add to the chart's policies of Hub and proxy."""
    values = read_one(ROOT / "hub-config" / "values.yaml")
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
    rules = ruleset([*load(), *policies_of_the_chart()], who)
    assert reached(rules, ADDRESSES, ALLOWED + DENIED) == ALLOWED


def test_without_the_rules_all_of_them_pass() -> None:
    """Else what is denied above would prove nothing."""
    assert reached(ruleset([], []), ADDRESSES, ALLOWED + DENIED) == ALLOWED + DENIED
