"""Nodes and GPUs of this machine, read through NVML or simulated, and the policy of their only pool."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from typing import Any, Protocol

from gpudev_hub.core.policy import Policy, PoolSettings
from gpudev_hub.settings import Settings

SIMULATED = "simulated"
IMAGES = ("default",)
"""The only image: on one machine, every server has the same programs."""


class GpusUnavailable(Exception):
    """NVML does not answer, so nothing is known about the GPUs."""


class Gpus(Protocol):
    """Nodes and their GPUs."""

    def count(self) -> dict[str, int]:
        """Return the GPUs by node. Raises ``GpusUnavailable``."""
        ...

    def model(self) -> str:
        """Return the kind of GPU. Raises ``GpusUnavailable``."""
        ...


@dataclass(frozen=True, slots=True)
class SimulatedGpus:
    """Simulated GPUs, on nodes named ``node-1``, ``node-2`` and so on."""

    nodes: int
    gpus: int

    def count(self) -> dict[str, int]:
        return {f"node-{number}": self.gpus for number in range(1, self.nodes + 1)}

    def model(self) -> str:
        """Return a name that nobody can mistake for hardware."""
        return "simulated GPU"


class RealGpus:
    """The GPUs of this machine, as one node with the name of the machine."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml

    def count(self) -> dict[str, int]:
        """Ask NVML on each call, to notice a GPU that fell off the bus. Raises ``GpusUnavailable``."""
        try:
            return {node_name(): int(self._nvml.nvmlDeviceGetCount())}
        except self._nvml.NVMLError as error:
            raise GpusUnavailable(str(error)) from error

    def model(self) -> str:
        """Return the name of the first GPU, such as ``NVIDIA H200``. Raises ``GpusUnavailable``."""
        try:
            return str(self._nvml.nvmlDeviceGetName(self._nvml.nvmlDeviceGetHandleByIndex(0)))
        except self._nvml.NVMLError as error:
            raise GpusUnavailable(str(error)) from error


def node_name() -> str:
    """Return the name of this machine, in the form of a node's name."""
    return re.sub(r"[^a-z0-9-]+", "-", socket.gethostname().split(".")[0].lower()).strip("-") or "node-1"


def find_real() -> RealGpus | None:
    """Return the GPUs of this machine; ``None`` if it has none, or no driver that answers."""
    import pynvml

    try:
        pynvml.nvmlInit()
        gpus = RealGpus(pynvml)
        return gpus if any(gpus.count().values()) else None
    except (pynvml.NVMLError, GpusUnavailable):
        return None


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
