"""The objects of a launch on Kubernetes: pods, a Secret, and for several nodes a Service and a NetworkPolicy.

Pure functions of the launch and the settings. Keys and tokens are only in the Secret, which its pods mount.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from gpudev_hub.cluster import labels
from gpudev_hub.cluster_settings import ClusterSettings, Pool
from gpudev_hub.core.gate import Launch
from gpudev_hub.server.gang import alias

ACCOUNT: Final = "dev"
UID: Final = 1000
HOME: Final = "/home/dev"
PYTHON: Final = "/opt/gpudev/bin/python"
SPEC: Final = "/etc/gpudev/spec.json"
MASTER_PORT: Final = 29500
SERVICE_ACCOUNT: Final = "gpudev-server"
PRIORITY: Final = "gpudev-server"
_MOUNTED: Final = {
    "home": HOME,
    "scratch": "/scratch",
    "shm": "/dev/shm",  # noqa: S108 (the mount point itself)
    "run": "/run/gpudev",
    "spec": "/etc/gpudev",
    "hugepages": "/dev/hugepages",
}
"""Where each volume is mounted."""
_Resources = dict[str, dict[str, str]]


def gang(launch: Launch) -> str:
    """Return the name of the Service, of the ranks' domain below the namespace's, and of the policy.

    Not an alias of any rank: a search through the namespace would find all of them under it.
    """
    return f"gang-{labels.object_name(launch.id, launch.attempt)}"


def host(launch: Launch, rank: int, settings: ClusterSettings) -> str:
    """Return the name by which the other ranks reach this rank."""
    if len(launch.allocation) == 1:
        return "127.0.0.1"
    return f"{alias(launch.id, rank)}.{_domain(launch, settings)}"


def secret(
    launch: Launch, settings: ClusterSettings, env: Mapping[str, str], jupyter: Sequence[str]
) -> dict[str, Any]:
    """Return the Secret of an attempt, which its pods read when they start.

    ``env``: JupyterHub's environment for the server; ``jupyter``: the command line of rank 0's Jupyter.
    """
    ranks = range(len(launch.allocation))
    spec = {
        "launch": msgspec.to_builtins(launch),
        "peers": [{"host": host(launch, rank, settings), "port": labels.SSHD_PORT} for rank in ranks],
        "jupyter": list(jupyter),
        "jupyter_port": labels.JUPYTER_PORT,
        "sshd_port": labels.SSHD_PORT,
        "env": {
            **env,
            "NNODES": str(len(launch.allocation)),
            "MASTER_ADDR": host(launch, 0, settings),
            "MASTER_PORT": str(MASTER_PORT),
            "GPUDEV_RESERVATION": launch.id,
            "GPUDEV_URL": settings.public_url.rstrip("/"),
            # The hub that the server's token belongs to, wherever its user points GPUDEV_URL.
            "JUPYTERHUB_PUBLIC_HUB_URL": f"{settings.public_url.rstrip('/')}/hub/",
        },
        "grace": max(1, settings.grace_seconds - 5),
        "forbidden": [urlsplit(settings.gate_url).netloc] if settings.policy_probe else [],
    }
    text = base64.b64encode(json.dumps(spec).encode()).decode()
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": labels.object_name(launch.id, launch.attempt), "labels": _labels(launch)},
        "type": "Opaque",
        "immutable": True,
        "data": {"spec.json": text},
    }


def token_in(secret: Mapping[str, Any]) -> str:
    """Return the Hub's token that a server was started with, from its Secret."""
    spec = json.loads(base64.b64decode(secret["data"]["spec.json"]))
    return str(spec["env"]["JUPYTERHUB_API_TOKEN"])


def service(launch: Launch, owner: Mapping[str, Any]) -> dict[str, Any]:
    """Return the Service with the names of a server's ranks; ``owner``: reference to rank 0's pod."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _gang_metadata(launch, owner),
        "spec": {
            "clusterIP": "None",
            # Ranks look for each other while they start.
            "publishNotReadyAddresses": True,
            "selector": {labels.RESERVATION: launch.id, labels.ATTEMPT: str(launch.attempt)},
        },
    }


def network_policy(launch: Launch, owner: Mapping[str, Any]) -> dict[str, Any]:
    """Return the policy that lets the ranks of a server, and no other pods, reach each other on every port.

    MPI and NCCL choose ports as they like. ``owner``: reference to rank 0's pod.
    """
    ranks = {"podSelector": {"matchLabels": {labels.RESERVATION: launch.id}}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _gang_metadata(launch, owner),
        "spec": {
            **ranks,
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [ranks]}],
            "egress": [{"to": [ranks]}],
        },
    }


def _gang_metadata(launch: Launch, owner: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": gang(launch), "labels": _labels(launch), "ownerReferences": [dict(owner)]}


def owner_reference(pod: Mapping[str, Any]) -> dict[str, Any]:
    """Return a reference by which objects are deleted with this pod. Stops also delete every pod."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "name": pod["metadata"]["name"],
        "uid": pod["metadata"]["uid"],
        "controller": False,
        "blockOwnerDeletion": False,
    }


def pod(
    launch: Launch, rank: int, settings: ClusterSettings, claim: str, owner: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the pod of one rank, bound to its planned node, with its share of the node.

    ``claim``: the owner's PersistentVolumeClaim; ``owner``: reference to rank 0's pod, for the other ranks.
    """
    pool = settings.pool(launch.gpu_type)
    resources = _resources(launch, rank, pool)
    volumes = _volumes(launch, claim, resources, pool)
    named = {
        **_labels(launch),
        labels.RANK: str(rank),
        labels.RANKS: str(len(launch.allocation)),
        # KubeSpawner watches pods with this label.
        "component": "singleuser-server",
    }
    metadata: dict[str, Any] = {"name": labels.object_name(launch.id, launch.attempt, rank), "labels": named}
    if owner is not None:
        metadata["ownerReferences"] = [dict(owner)]
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "serviceAccountName": SERVICE_ACCOUNT,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "priorityClassName": PRIORITY,
        "terminationGracePeriodSeconds": settings.grace_seconds,
        "affinity": {"nodeAffinity": _only_on(launch, rank)},
        "tolerations": [
            {"key": labels.GPU, "operator": "Exists", "effect": "NoSchedule"},
            # The service decides what may run on a cordoned node: nothing new, but a server that runs there
            # may restart after a crash.
            {"key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule"},
            # The service, not the taint manager, gives up servers on a silent node.
            {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"},
            {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"},
        ],
        "securityContext": {
            "runAsUser": UID,
            "runAsGroup": UID,
            "fsGroup": UID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(launch, rank, settings, resources, volumes)],
        "volumes": [{"name": name, **volume} for name, volume in volumes.items()],
    }
    if len(launch.allocation) > 1:
        named[labels.OWN_POLICY] = "true"
        spec["hostname"] = alias(launch.id, rank)
        spec["subdomain"] = gang(launch)
        spec["dnsConfig"] = {"searches": [_domain(launch, settings)]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _volumes(launch: Launch, claim: str, resources: _Resources, pool: Pool) -> dict[str, Any]:
    """Return the volumes of a pod by name."""
    shm = max(64, round(int(resources["limits"]["memory"].removesuffix("Mi")) * pool.shm_fraction))
    volumes: dict[str, Any] = {
        "home": {"persistentVolumeClaim": {"claimName": claim}},
        "scratch": {"emptyDir": {}},
        "shm": {"emptyDir": {"medium": "Memory", "sizeLimit": f"{shm}Mi"}},
        "run": {"emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
        "spec": {
            "secret": {"secretName": labels.object_name(launch.id, launch.attempt), "defaultMode": 0o440}
        },
    }
    if any(name.startswith("hugepages-") for name in resources["limits"]):
        volumes["hugepages"] = {"emptyDir": {"medium": "HugePages"}}
    return volumes


def _container(
    launch: Launch, rank: int, settings: ClusterSettings, resources: _Resources, volumes: Iterable[str]
) -> dict[str, Any]:
    mounts: list[dict[str, Any]] = [{"name": name, "mountPath": _MOUNTED[name]} for name in volumes]
    next(mount for mount in mounts if mount["name"] == "spec")["readOnly"] = True
    ports = [{"name": "sshd", "containerPort": labels.SSHD_PORT}]
    if rank == 0:
        ports.append({"name": "jupyter", "containerPort": labels.JUPYTER_PORT})
    context: dict[str, Any] = {"allowPrivilegeEscalation": settings.sudo}
    if not settings.sudo:
        context["capabilities"] = {"drop": ["ALL"]}
    return {
        "name": labels.CONTAINER,
        "image": launch.image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": [PYTHON, "-I", "-m", "gpudev_hub.server.pod", SPEC, str(rank)],
        "workingDir": HOME,
        "env": [{"name": "GPUDEV_NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
        "ports": ports,
        "resources": resources,
        "securityContext": context,
        "volumeMounts": mounts,
        # The launcher reports the end there, for the service.
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
    }


def _labels(launch: Launch) -> dict[str, str]:
    return {
        labels.RESERVATION: launch.id,
        labels.ATTEMPT: str(launch.attempt),
        "app.kubernetes.io/managed-by": "gpudev",
        "app.kubernetes.io/component": "server",
    }


def _domain(launch: Launch, settings: ClusterSettings) -> str:
    return f"{gang(launch)}.{settings.namespace}.svc.{settings.cluster_domain}"


def _only_on(launch: Launch, rank: int) -> dict[str, Any]:
    """Return an affinity by the node's name, so that the scheduler still checks that there is room."""
    field = {"key": "metadata.name", "operator": "In", "values": [launch.allocation[rank].node]}
    terms = {"nodeSelectorTerms": [{"matchFields": [field]}]}
    return {"requiredDuringSchedulingIgnoredDuringExecution": terms}


def _resources(launch: Launch, rank: int, pool: Pool) -> _Resources:
    """Return a share of the node by GPUs. CPUs are only requested, so idle CPUs can be used."""
    share = launch.gpus / pool.gpus_per_node
    devices = launch.devices[rank] if launch.devices else {}
    limits = {"memory": _mebibytes(pool.memory_gib_per_node * share), labels.GPU: str(launch.gpus), **devices}
    if pool.disk_gib_per_node is not None:
        limits["ephemeral-storage"] = _mebibytes(pool.disk_gib_per_node * share)
    return {"requests": {"cpu": f"{round(pool.cpus_per_node * share * 1000)}m", **limits}, "limits": limits}


def _mebibytes(gib: float) -> str:
    return f"{round(gib * 1024)}Mi"
