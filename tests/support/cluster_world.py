"""Settings and launches of a hub on Kubernetes, for tests."""

from __future__ import annotations

from typing import Any

import msgspec

from gpudev_hub.cluster_settings import ClusterSettings
from gpudev_hub.core.gate import Launch, SshMaterial
from gpudev_hub.core.model import NodeSlots


def settings_of(**fields: Any) -> ClusterSettings:
    """Return settings with one pool of p5.48xlarge; ``fields`` replaces or adds fields."""
    found: dict[str, Any] = {
        "public_url": "https://gpudev.example",
        "hub_api": "http://hub:8081/hub/api",
        "service_url": "http://gpudev-service.gpudev:8100",
        "gate_url": "http://gpudev-service.gpudev:8101",
        "store": {"table": "gpudev", "region": "us-east-2"},
        "pools": [
            {
                "name": "h100",
                "gpus_per_node": 8,
                "images": ["example/server:1"],
                "cpus_per_node": 176,
                "memory_gib_per_node": 1800,
            }
        ],
        "home": {"storage_class": "gpudev-home"},
        "github": {
            "app_id": 4242,
            "client_id": "Iv23liTheApp",
            "client_secret_file": "/etc/gpudev/github/client-secret",
            "private_key_file": "/etc/gpudev/github/private-key.pem",
        },
        **fields,
    }
    return msgspec.convert(found, ClusterSettings)


def launch_of(
    gpus: int = 8, nodes: int = 1, devices: tuple[dict[str, str], ...] = (), id: str = "a1"
) -> Launch:
    """Return the launch of attempt 3 of alice's reservation."""
    return Launch(
        id=id,
        attempt=3,
        name="demo",
        subject="hub:alice",
        hub_user="alice",
        gpu_type="h100",
        gpus=gpus,
        allocation=tuple(NodeSlots(f"node-{n + 1}", tuple(range(gpus))) for n in range(nodes)),
        simulated=False,
        image="example/server:1",
        ends_at=1_893_456_000_000,
        token="server-token",
        service_url="http://gpudev-service.gpudev:8100/services/gpudev/",
        known_hosts="@cert-authority * ssh-ed25519 AAAA",
        ssh=tuple(SshMaterial(f"host-key-{n}", "cert", "gang-key", "gang-public") for n in range(nodes)),
        devices=devices,
    )
