"""One node: its containerd, its kubelet and its images."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from .debian import CNI_PLUGINS
from .layout import DNS_ADDRESS, Layout, Node
from .oci import Image, write_archive
from .server_image import PAUSE

_UNUSED = (
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.tracing.processor.v1.otlp",
)
LEASE = 8
"""Seconds of a kubelet's lease. It is renewed after a quarter of them, well within NODE_UNKNOWN_AFTER."""


def kubelet(node: Node) -> str:
    """Name of its process."""
    return f"kubelet-{node.number}"


def containerd(node: Node) -> str:
    """Name of its process."""
    return f"containerd-{node.number}"


def containerd_command(layout: Layout, node: Node) -> list[str]:
    """Return the command of a node's containerd. Kubelets that share one would kill each other's pods."""
    folder = layout.node(node)
    (folder / "cni").mkdir(parents=True, exist_ok=True)
    (folder / "cni" / "10-bridge.conflist").write_text(json.dumps(_network(layout, node)))
    config = folder / "containerd.toml"
    config.write_text(
        f"""version = 2
root = "{layout.containerd_root(node)}"
state = "{folder / "containerd"}"
disabled_plugins = [{", ".join(f'"{plugin}"' for plugin in _UNUSED)}]
[grpc]
address = "{layout.containerd_socket(node)}"
[plugins."io.containerd.internal.v1.opt"]
path = "{folder / "opt"}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{CNI_PLUGINS}"
conf_dir = "{folder / "cni"}"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"""
    )
    return ["containerd", f"--config={config}", "--log-level=warn"]


def _network(layout: Layout, node: Node) -> dict[str, Any]:
    addresses = {
        "type": "host-local",
        "dataDir": str(layout.node(node) / "addresses"),
        "ranges": [[{"subnet": str(node.pods)}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {
        "type": "bridge",
        "bridge": f"pods{node.number}",
        "isGateway": True,
        "hairpinMode": True,
        "ipam": addresses,
    }
    return {"cniVersion": "1.0.0", "name": f"pods{node.number}", "plugins": [bridge]}


def kubelet_command(layout: Layout, node: Node) -> list[str]:
    """Return the command of a node's kubelet. It has its own address, so it can use the port for exec."""
    folder = layout.node(node)
    config = folder / "kubelet.json"
    config.write_text(json.dumps(_kubelet_configuration(layout, node), indent=1))
    labels = ",".join(f"{key}={value}" for key, value in sorted(node.labels.items()))
    return [
        str(layout.binaries / "kubelet"),
        f"--config={config}",
        f"--kubeconfig={layout.kubeconfigs / node.name}.conf",
        f"--root-dir={folder / 'kubelet'}",
        f"--cert-dir={folder / 'certificates'}",
        f"--node-ip={node.address}",
        f"--hostname-override={node.name}",
        f"--node-labels={labels}",
        "--v=1",
    ]


def _kubelet_configuration(layout: Layout, node: Node) -> dict[str, Any]:
    folder = layout.node(node)
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": node.address,
        "healthzBindAddress": node.address,
        "containerRuntimeEndpoint": f"unix://{layout.containerd_socket(node)}",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(layout.authority)},
        },
        "authorization": {"mode": "Webhook"},
        "clusterDNS": [DNS_ADDRESS],
        "clusterDomain": "cluster.local",
        "resolvConf": "",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{layout.cgroup}/{node.name}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "enforceNodeAllocatable": [],
        # Interval between checks of a pod's disk usage.
        "volumeStatsAggPeriod": "5s",
        # Other programs also fill the machine's disk. That must not end pods or remove images.
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1Mi", "imagefs.available": "1Mi"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "makeIPTablesUtilChains": False,
        "podLogsDir": str(folder / "logs"),
        "volumePluginDir": str(folder / "volume-plugins"),
        "serializeImagePulls": False,
        "nodeLeaseDurationSeconds": LEASE,
        "nodeStatusUpdateFrequency": "2s",
    }


def import_image(layout: Layout, node: Node, image: Image) -> None:
    """Load an image on a node and unpack it. Only missing layers are copied."""
    record = layout.containerd_root(node) / "imported.json"
    known: dict[str, dict[str, Any]] = json.loads(record.read_text()) if record.exists() else {}
    wanted = {"layers": image.digests, "config": dict(image.config)}
    if known.get(image.reference) == wanted:
        return
    present = {digest for entry in known.values() for digest in entry["layers"]}
    command = [*ctr(layout, node), "images", "import", "-"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as importing:
        assert importing.stdin
        assert importing.stdout
        try:
            write_archive(image, present, importing.stdin)
        except BrokenPipeError:
            pass  # it ended early; its error is reported below
        said, _ = importing.communicate()
    if importing.returncode != 0:
        raise RuntimeError(f"{image.reference} could not be imported on {node.name}: {said.decode()}")
    record.write_text(json.dumps(known | {image.reference: wanted}))


def ctr(layout: Layout, node: Node) -> list[str]:
    """Return the start of a command line for a node's containerd, in the namespace of Kubernetes' images."""
    return ["ctr", f"--address={layout.containerd_socket(node)}", "--namespace=k8s.io"]
