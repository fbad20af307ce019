"""What lies where: the folders on disk, the addresses in the cluster's own network, and its nodes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[3]

# All of it out of 198.18.0.0/15, which RFC 2544 sets aside for tests: nothing real answers there.
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
"""StorageClass of homes: ReadWriteMany, kept when its claim goes."""
MAX_NODES = 3


@dataclass(frozen=True)
class Node:
    """One real kubelet with a containerd of its own; ``number`` counts from 1 and fixes every address."""

    number: int
    labels: Mapping[str, str] = field(default_factory=dict)
    gpus: int = 8
    efa: int = 32

    @property
    def name(self) -> str:
        """The node's name in the cluster, and of its folders."""
        return f"node-{self.number}"

    @property
    def address(self) -> str:
        """Where its kubelet listens."""
        return str(HOSTS[10 + self.number])

    @property
    def pods(self) -> IPv4Network:
        """The addresses of its pods; the first is the gateway."""
        return list(PODS.subnets(new_prefix=24))[self.number]

    @property
    def capacity(self) -> dict[str, str]:
        """What a device plugin would have advertised."""
        return {GPU: str(self.gpus), EFA: str(self.efa)}


def make_nodes(count: int, labels: Mapping[str, str]) -> list[Node]:
    """``count`` alike nodes of one zone and placement group; ``labels`` add to the usual ones or replace."""
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
    """For those who come to the running cluster later."""
    (layout.run / "nodes.json").write_text(json.dumps([asdict(node) for node in nodes]))


def load_nodes(layout: Layout) -> list[Node]:
    """The nodes of the cluster that runs."""
    return [Node(**found) for found in json.loads((layout.run / "nodes.json").read_text())]


def host_addresses(nodes: list[Node]) -> list[IPv4Interface]:
    """What the host's own bridge carries: API server, DNS and the kubelets."""
    length = HOSTS.prefixlen
    return [
        IPv4Interface(f"{a}/{length}") for a in (API_ADDRESS, DNS_ADDRESS, *(node.address for node in nodes))
    ]


@dataclass(frozen=True)
class Layout:
    """The state folder. ``run`` belongs to one boot and is emptied by the next; the rest is cached."""

    root: Path

    @classmethod
    def default(cls) -> Layout:
        """From ``GPUDEV_CLUSTER_STATE``, else ``.tools/cluster`` in the checkout."""
        return cls(Path(os.environ.get("GPUDEV_CLUSTER_STATE") or CHECKOUT / ".tools" / "cluster").resolve())

    @property
    def binaries(self) -> Path:
        """Kubernetes, CoreDNS, kwok and helm."""
        return self.root / "bin"

    @property
    def images(self) -> Path:
        """Layers of images, and the packages they were made from."""
        return self.root / "images"

    @property
    def run(self) -> Path:
        """Sockets, process ids, logs, credentials and etcd's data of the one boot."""
        return self.root / "run"

    @property
    def logs(self) -> Path:
        """A file for each part of the cluster."""
        return self.run / "logs"

    @property
    def homes(self) -> Path:
        """The users' homes, one folder for each claim; gone at the next boot."""
        return self.run / "homes"

    @property
    def audit_log(self) -> Path:
        """Every request to the API server, one JSON object a line."""
        return self.run / "audit.log"

    @property
    def leader(self) -> Path:
        """The process id, as the machine sees it, of process 1 of the cluster's namespaces."""
        return self.run / "leader.pid"

    @property
    def ready(self) -> Path:
        """There once the cluster is up."""
        return self.run / "ready"

    @property
    def authority(self) -> Path:
        """The certificate that signs the API server's, and its clients'."""
        return self.run / "pki" / "ca.crt"

    @property
    def lock(self) -> Path:
        """Held for as long as a cluster of this folder lives."""
        return self.root / "lock"

    @property
    def kubeconfigs(self) -> Path:
        """``admin.conf``, and one for each part and node."""
        return self.run / "kubeconfig"

    @property
    def cgroup(self) -> str:
        """The one cgroup, in each hierarchy, under which all pods of this folder's clusters run."""
        return "gpudev-" + hashlib.sha256(str(self.root).encode()).hexdigest()[:10]

    def containerd_root(self, node: Node) -> Path:
        """Images and snapshots of a node: cached, so that a boot imports nothing."""
        return self.root / "containerd" / node.name

    def node(self, node: Node) -> Path:
        """Everything else of a node."""
        return self.run / node.name

    def containerd_socket(self, node: Node) -> Path:
        """Where a node's containerd answers."""
        return self.node(node) / "containerd.sock"
