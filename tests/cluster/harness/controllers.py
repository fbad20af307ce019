"""Stand-ins for parts of a real cluster: GPUs of a device plugin, and volumes created for claims.

``python -m harness controllers`` runs in the cluster's namespaces for as long as the cluster does.
"""

from __future__ import annotations

import os
import threading
from functools import partial

import httpx

from .api import MERGE, Object, client, follow
from .credentials import HARNESS
from .layout import GPU, HOME_CLASS, Layout, Node, load_nodes

_OWNER = 1000
"""User and group of homes, the same as those of the servers' processes."""


def run(layout: Layout) -> None:
    """Run both loops for ever."""
    api = client(layout, layout.kubeconfigs / f"{HARNESS}.conf")
    nodes = {node.name: node for node in load_nodes(layout)}
    threading.Thread(
        target=follow, args=(api, "/api/v1/nodes", partial(advertise, api, nodes)), daemon=True
    ).start()
    follow(api, "/api/v1/persistentvolumeclaims", partial(provision, api, layout))


def advertise(api: httpx.Client, nodes: dict[str, Node], found: Object) -> None:
    """Give a newly registered node its GPUs and EFA interfaces. Tests may change its allocatable later."""
    name = found["metadata"]["name"]
    if name not in nodes or found["status"]["capacity"].get(GPU, "0") != "0":
        return
    capacity = nodes[name].capacity
    status = {"status": {"capacity": capacity, "allocatable": capacity}}
    api.patch(f"/api/v1/nodes/{name}/status", json=status, headers=MERGE).raise_for_status()


def provision(api: httpx.Client, layout: Layout, claim: Object) -> None:
    """Bind a claim of a home to a folder with its name, so that a new claim gets the same home."""
    meta, spec = claim["metadata"], claim["spec"]
    if spec.get("storageClassName") != HOME_CLASS or spec.get("volumeName") or "deletionTimestamp" in meta:
        return
    folder = layout.homes / meta["namespace"] / meta["name"]
    folder.mkdir(parents=True, exist_ok=True)
    os.chown(folder, _OWNER, _OWNER)
    folder.chmod(0o700)
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"home-{meta['uid']}"},
        "spec": {
            "accessModes": spec["accessModes"],
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": HOME_CLASS,
            "hostPath": {"path": str(folder), "type": "Directory"},
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                **{key: meta[key] for key in ("namespace", "name", "uid")},
            },
        },
    }
    answer = api.post("/api/v1/persistentvolumes", json=volume)
    if answer.status_code != httpx.codes.CONFLICT:  # it exists already but is not bound yet
        answer.raise_for_status()
