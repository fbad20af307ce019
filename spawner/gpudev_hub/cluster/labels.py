"""Labels, names, resources and the time limit of calls on Kubernetes.

The spawner writes them and the service reads them. Both find a server only by these.
"""

from __future__ import annotations

from typing import Final

GPU: Final = "nvidia.com/gpu"
EFA: Final = "vpc.amazonaws.com/efa"
HUGE_PAGES: Final = "hugepages-2Mi"

POOL: Final = "gpudev/pool"
"""Label of a node: its pool. Nothing is planned on a node without this label."""
ZONE: Final = "topology.kubernetes.io/zone"
PLACEMENT_GROUP: Final = "gpudev/placement-group"
UNTIL: Final = "gpudev/until"
"""Annotation of a node: when the node ends (RFC 3339). An operator writes it."""
CAPACITY_RESERVATION: Final = "gpudev/capacity-reservation"
"""Label of a node: the id of its capacity block, ``cr-…``."""

RESERVATION: Final = "gpudev/reservation"
ATTEMPT: Final = "gpudev/attempt"
RANK: Final = "gpudev/rank"
RANKS: Final = "gpudev/ranks"
"""Number of pods of this server, one per rank."""
OWN_POLICY: Final = "gpudev/own-policy"
"""Label of a pod whose server has a NetworkPolicy of its own, which lets its ranks reach each other."""

COMPONENT: Final = "app.kubernetes.io/component"
POLICY_PROBE: Final = "policy-probe"
"""Component of the pods that are Ready only while their node enforces network policies."""

CONTAINER: Final = "server"
"""Name of the only container of a server's pod."""
JUPYTER_PORT: Final = 8888
SSHD_PORT: Final = 2222

REQUEST_TIMEOUT: Final = 10.0
"""Timeout of one call of the Kubernetes API, in seconds."""


def selector(id: str, attempt: int | None = None) -> str:
    """Return the label selector of everything that belongs to a reservation, or to one attempt of it."""
    return f"{RESERVATION}={id}" if attempt is None else f"{RESERVATION}={id},{ATTEMPT}={attempt}"


def object_name(id: str, attempt: int, rank: int = 0) -> str:
    """Return the name of a rank's pod; rank 0's is also the name of the attempt's Secret."""
    return f"{id}-{attempt}" if rank == 0 else f"{id}-{attempt}-{rank}"
