"""Simulated nodes, for tests of scale: kwok keeps them alive and simulates their pods."""

from __future__ import annotations

import subprocess
from pathlib import Path

from .binaries import MODULES, ensure_binaries, go
from .cluster import Cluster
from .layout import EFA, GPU, PODS, Layout

_ANNOTATION = ("kwok.x-k8s.io/node", "fake")
_STAGES = ("node/fast", "node/heartbeat-with-lease", "pod/fast")
_POD_ADDRESSES = list(PODS.subnets(new_prefix=17))[1]


def start_kwok(cluster: Cluster) -> None:
    """Start kwok. Before, run ``python -m harness prepare --all`` once: there is no network inside."""
    config = cluster.layout.run / "kwok.yaml"
    config.write_text(stages_file(cluster.layout).read_text())
    cluster.processes.start(
        "kwok",
        [
            str(cluster.layout.binaries / "kwok"),
            f"--kubeconfig={cluster.admin}",
            f"--config={config}",
            f"--manage-nodes-with-annotation-selector={'='.join(_ANNOTATION)}",
            f"--cidr={_POD_ADDRESSES}",
            "--node-lease-duration-seconds=3600",
        ],
    )


def make_simulated_nodes(cluster: Cluster, count: int, *, zone: str = "test-a") -> None:
    """Create ``count`` nodes, named ``fake-1`` and so on, with 8 GPUs and 32 EFA interfaces each."""
    capacity = {GPU: "8", EFA: "32", "cpu": "192", "memory": "2Ti", "pods": "110"}
    usual = dict(cluster.nodes[0].labels)
    for number in range(1, count + 1):
        name = f"fake-{number}"
        labels = usual | {"topology.kubernetes.io/zone": zone, "kubernetes.io/hostname": name}
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "annotations": dict([_ANNOTATION]), "labels": labels},
            "status": {"capacity": capacity, "allocatable": capacity},
        }
        cluster.api.post("/api/v1/nodes", json=node).raise_for_status()


def prepare_kwok(layout: Layout) -> None:
    """Build kwok, and write the rules for its nodes and pods next to it. kwok has no built-in rules."""
    ensure_binaries(layout, ["kwok"])
    module = MODULES / "kwok"
    command = [go(module, layout), "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kwok"]
    root = Path(
        subprocess.run(command, cwd=module, capture_output=True, text=True, check=True).stdout.strip()
    )
    files = [
        path
        for stage in _STAGES
        for path in sorted((root / "kustomize" / "stage" / stage).glob("*.yaml"))
        if path.name != "kustomization.yaml"
    ]
    stages_file(layout).write_text("\n---\n".join(path.read_text() for path in files))


def stages_file(layout: Layout) -> Path:
    """Return the file with the rules, next to the binary."""
    return layout.binaries / "kwok-stages.yaml"
