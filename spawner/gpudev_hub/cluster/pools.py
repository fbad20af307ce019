"""The policy of a hub on one machine: one pool, of real or simulated GPUs."""

from __future__ import annotations

import re

from gpudev_hub.core.policy import Policy, PoolSettings
from gpudev_hub.settings import Settings

from .gpus import Gpus, SimulatedGpus, find_real

SIMULATED = "simulated"
IMAGES = ("default",)
"""On one machine every server has the same programs."""


def find_gpus(settings: Settings) -> Gpus:
    """Return the nodes and GPUs to offer."""
    if settings.pool is not None:
        return SimulatedGpus(*settings.pool)
    return find_real() or SimulatedGpus(2, 8)


def local_policy(gpus: Gpus, settings: Settings) -> Policy:
    """Return one pool with the operator's settings. Raises ``GpusUnavailable`` if real GPUs do not answer."""
    simulated = isinstance(gpus, SimulatedGpus)
    nodes, model = gpus.count(), gpus.model()
    count = max(nodes.values())
    pool = PoolSettings(
        name=SIMULATED if simulated else pool_name(model),
        gpus_per_node=count,
        images=IMAGES,
        label=f"{len(nodes)} × {count} simulated GPUs" if simulated else f"{count} × {model}",
        simulated=simulated,
        max_gang=min(len(nodes), 2),
    )
    return settings.policy.on(Policy(pools=(pool,)))


def pool_name(model: str) -> str:
    """Return a short name for a GPU model: ``NVIDIA A100-SXM4-80GB`` → ``a100``."""
    words = [word for word in re.split(r"[^a-z0-9]+", model.lower()) if re.search(r"[a-z]\d|\d[a-z]", word)]
    return words[0] if words else "gpu"
