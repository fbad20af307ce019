"""The bastion as pods of our manifest on the test cluster."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

from cluster_stack import ADDRESS, ClusterStack
from harness.bastion_image import bastion_image
from harness.cluster import Cluster
from hub_users import wait_for
from manifests import Object, load, one

HOME = "gpudev"
"""The namespace of the bastion."""
NAME = "gpudev-bastion"


@contextmanager
def deployed(cluster: Cluster, stack: ClusterStack, folder: Path) -> Iterator[str]:
    """The Deployment and what it needs; yields the address of its Service. ``folder``: for its key."""
    image = bastion_image(cluster.layout)
    cluster.load(image)
    cluster.apply(secret(stack, folder), endpoints(), deployment(image.reference))
    path = f"/apis/apps/v1/namespaces/{HOME}/deployments/{NAME}"
    try:
        wait_for(
            "the bastion's pods are ready",
            lambda: cluster.api.get(path).json().get("status", {}).get("availableReplicas") == 2,
        )
        service = cluster.api.get(f"/api/v1/namespaces/{HOME}/services/{NAME}").raise_for_status()
        yield service.json()["spec"]["clusterIP"]
    finally:
        for kind, name in (("deployment", NAME), ("secret", NAME), ("endpointslice", SLICE)):
            cluster.kubectl("delete", kind, name, f"--namespace={HOME}", "--ignore-not-found")


def deployment(image: str) -> Object:
    """The manifest's, with the image that the nodes have."""
    made = deepcopy(one(load(), "Deployment", NAME, HOME))
    (container,) = made["spec"]["template"]["spec"]["containers"]
    container |= {"image": image, "imagePullPolicy": "Never"}
    return made


def secret(stack: ClusterStack, folder: Path) -> Object:
    """The key and the certificate as docs/kubernetes.md makes them."""
    authority = folder / "host-ca"
    authority.write_bytes((stack.secrets / "host-ca").read_bytes())
    authority.chmod(0o600)
    for arguments in (
        ["-t", "ed25519", "-N", "", "-C", NAME, "-f", "host_ed25519"],
        ["-s", "host-ca", "-h", "-I", NAME, "-n", NAME, "host_ed25519.pub"],
    ):
        subprocess.run(["ssh-keygen", "-q", *arguments], cwd=folder, check=True)
    files = {name: (folder / name).read_bytes() for name in ("host_ed25519", "host_ed25519-cert.pub")}
    files["bastion-token"] = (stack.secrets / "bastion-token").read_bytes()
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": NAME, "namespace": HOME},
        "data": {name: base64.b64encode(value).decode() for name, value in files.items()},
    }


SLICE = "gpudev-service-beside-the-cluster"


def endpoints() -> Object:
    """Lead the gate's Service to the service beside the cluster."""
    labels = {
        "kubernetes.io/service-name": "gpudev-service",
        "endpointslice.kubernetes.io/managed-by": "tests",
    }
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": SLICE, "namespace": HOME, "labels": labels},
        "addressType": "IPv4",
        "ports": [{"name": "gate", "port": 8101, "protocol": "TCP"}],
        "endpoints": [{"addresses": [ADDRESS], "conditions": {"ready": True}}],
    }


def pods(cluster: Cluster) -> list[str]:
    """Names of its pods."""
    return [name for name in cluster.pods(HOME) if name.startswith(f"{NAME}-")]


def connections(cluster: Cluster) -> list[str]:
    """Users' connections that the pods carry now."""
    command = ("ls", "/run/gpudev/connections")
    return [one for pod in pods(cluster) for one in cluster.execute(HOME, pod, *command).split()]
