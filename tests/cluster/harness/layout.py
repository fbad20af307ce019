"""Paths on disk, addresses in the cluster's own network, and the nodes of the cluster."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[3]

# All addresses are from 198.18.0.0/15, which RFC 2544 reserves for tests, so no real machine has them.
HOSTS = IPv4Network("198.18.0.0/24")
API_ADDRESS = "198.18.0.1"
DNS_ADDRESS = "198.18.0.2"
SERVICES = IPv4Network("198.18.16.0/20")
API_SERVICE = str(SERVICES[1])
PODS = IPv4Network("198.19.0.0/16")
API_PORT = 6443

GPU = "nvidia.com/gpu"
EFA = "vpc.amazonaws.com/efa"
PLACEMENT_GROUP_LABEL = "gpudev/placement-group"
POOL_LABEL = "gpudev/pool"
HOME_CLASS = "gpudev-home"
"""StorageClass of homes: ReadWriteMany, and volumes are kept when their claim is deleted."""
MAX_NODES = 3


@dataclass(frozen=True)
class Node:
    """One real kubelet with its own containerd. ``number`` counts from 1 and determines all addresses."""

    number: int
    labels: Mapping[str, str] = field(default_factory=dict)
    gpus: int = 8
    efa: int = 32

    @property
    def name(self) -> str:
        """The name of the node in the cluster, and of its folders."""
        return f"node-{self.number}"

    @property
    def address(self) -> str:
        """The address of the kubelet."""
        return str(HOSTS[10 + self.number])

    @property
    def pods(self) -> IPv4Network:
        """The network of the node's pods. Its first address is the gateway."""
        return list(PODS.subnets(new_prefix=24))[self.number]

    @property
    def capacity(self) -> dict[str, str]:
        """The resources that a device plugin would report."""
        return {GPU: str(self.gpus), EFA: str(self.efa)}


def make_nodes(count: int, labels: Mapping[str, str]) -> list[Node]:
    """Return ``count`` equal nodes in one zone and placement group. ``labels`` add or replace labels."""
    if not 1 <= count <= MAX_NODES:
        raise ValueError(
            f"{count} nodes asked for; this cluster has 1 to {MAX_NODES} real ones (kwok makes more)"
        )
    usual = {
        "topology.kubernetes.io/region": "test",
        "topology.kubernetes.io/zone": "test-a",
        "node.kubernetes.io/instance-type": "p5.48xlarge",
        PLACEMENT_GROUP_LABEL: "group-1",
        POOL_LABEL: "h100",
    }
    return [Node(number, usual | dict(labels)) for number in range(1, count + 1)]


def save_nodes(layout: Layout, nodes: list[Node]) -> None:
    """Write the nodes to a file, for processes that join the running cluster later."""
    (layout.run / "nodes.json").write_text(json.dumps([asdict(node) for node in nodes]))


def load_nodes(layout: Layout) -> list[Node]:
    """Return the nodes of the running cluster."""
    return [Node(**found) for found in json.loads((layout.run / "nodes.json").read_text())]


def host_addresses(nodes: list[Node]) -> list[IPv4Interface]:
    """Return the addresses of API server, DNS and kubelets, which the host's bridge has."""
    length = HOSTS.prefixlen
    return [
        IPv4Interface(f"{a}/{length}") for a in (API_ADDRESS, DNS_ADDRESS, *(node.address for node in nodes))
    ]


@dataclass(frozen=True)
class Layout:
    """The state folder. ``run`` belongs to one boot, and the next boot empties it. The rest is a cache."""

    root: Path

    @classmethod
    def default(cls) -> Layout:
        """Return the folder in ``GPUDEV_CLUSTER_STATE``, or else ``.tools/cluster`` in the checkout."""
        return cls(Path(os.environ.get("GPUDEV_CLUSTER_STATE") or CHECKOUT / ".tools" / "cluster").resolve())

    @property
    def binaries(self) -> Path:
        """Kubernetes, CoreDNS, kwok and helm."""
        return self.root / "bin"

    @property
    def images(self) -> Path:
        """Layers of images, and the packages in them."""
        return self.root / "images"

    @property
    def run(self) -> Path:
        """Sockets, process ids, logs, credentials and etcd's data of the current boot."""
        return self.root / "run"

    @property
    def logs(self) -> Path:
        """Logs: one file for each part of the cluster."""
        return self.run / "logs"

    @property
    def homes(self) -> Path:
        """The users' homes, one folder for each claim. The next boot deletes them."""
        return self.run / "homes"

    @property
    def audit_log(self) -> Path:
        """The audit log: every request to the API server, one JSON object per line."""
        return self.run / "audit.log"

    @property
    def leader(self) -> Path:
        """The file with the process id, outside of the namespaces, of process 1 of the cluster."""
        return self.run / "leader.pid"

    @property
    def ready(self) -> Path:
        """A file that exists once the cluster is up."""
        return self.run / "ready"

    @property
    def authority(self) -> Path:
        """The certificate that signs the certificates of the API server and its clients."""
        return self.run / "pki" / "ca.crt"

    @property
    def lock(self) -> Path:
        """The lock that is held while a cluster of this folder runs."""
        return self.root / "lock"

    @property
    def kubeconfigs(self) -> Path:
        """The folder of kubeconfig files: ``admin.conf``, and one for each part and node."""
        return self.run / "kubeconfig"

    @property
    def cgroup(self) -> str:
        """The cgroup of all pods of this folder's clusters, one in each hierarchy."""
        return "gpudev-" + hashlib.sha256(str(self.root).encode()).hexdigest()[:10]

    def containerd_root(self, node: Node) -> Path:
        """Images and snapshots of a node. They are cached, so that the next boot need not import them."""
        return self.root / "containerd" / node.name

    def node(self, node: Node) -> Path:
        """The folder for all other files of a node."""
        return self.run / node.name

    def containerd_socket(self, node: Node) -> Path:
        """The socket of a node's containerd."""
        return self.node(node) / "containerd.sock"
