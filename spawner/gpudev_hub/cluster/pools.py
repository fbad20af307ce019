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
    return settings.policy.on(_plain_policy(gpus))


def _plain_policy(gpus: Gpus) -> Policy:
    if isinstance(gpus, SimulatedGpus):
        return Policy(
            pools=(
                PoolSettings(
                    name=SIMULATED,
                    gpus_per_node=gpus.gpus,
                    images=IMAGES,
                    label=f"{gpus.nodes} × {gpus.gpus} simulated GPUs",
                    simulated=True,
                    max_gang=min(gpus.nodes, 2),
                ),
            )
        )
    count = max(gpus.count().values())
    model = gpus.model()
    return Policy(
        pools=(
            PoolSettings(
                name=pool_name(model),
                gpus_per_node=count,
                images=IMAGES,
                label=f"{count} × {model}",
                max_gang=1,
            ),
        )
    )


def pool_name(model: str) -> str:
    """Return a short name for a GPU model: ``NVIDIA A100-SXM4-80GB`` → ``a100``."""
    words = [word for word in re.split(r"[^a-z0-9]+", model.lower()) if re.search(r"[a-z]\d|\d[a-z]", word)]
    return words[0] if words else "gpu"
