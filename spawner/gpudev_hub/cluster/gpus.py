"""Which nodes with how many GPUs this machine has: through NVML, or simulated."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from typing import Any, Protocol


class GpusUnavailable(Exception):
    """NVML does not answer; nothing is known about the GPUs."""


class Gpus(Protocol):
    """Nodes and their GPUs."""

    def count(self) -> dict[str, int]:
        """GPUs by node. Raises ``GpusUnavailable``."""
        ...

    def model(self) -> str:
        """What kind of GPU. Raises ``GpusUnavailable``."""
        ...


@dataclass(frozen=True, slots=True)
class SimulatedGpus:
    """Nodes ``node-1`` … with GPUs that don't exist."""

    nodes: int
    gpus: int

    def count(self) -> dict[str, int]:
        """Always all of them."""
        return {f"node-{number}": self.gpus for number in range(1, self.nodes + 1)}

    def model(self) -> str:
        """Nothing that could be mistaken for hardware."""
        return "simulated GPU"


class RealGpus:
    """The GPUs of this machine: one node, named like the machine."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml

    def count(self) -> dict[str, int]:
        """Asks NVML anew, so that a GPU that fell off the bus is noticed."""
        try:
            return {node_name(): int(self._nvml.nvmlDeviceGetCount())}
        except self._nvml.NVMLError as error:
            raise GpusUnavailable(str(error)) from error

    def model(self) -> str:
        """Name of the first GPU: ``NVIDIA H200``. Raises ``GpusUnavailable``."""
        try:
            return str(self._nvml.nvmlDeviceGetName(self._nvml.nvmlDeviceGetHandleByIndex(0)))
        except self._nvml.NVMLError as error:
            raise GpusUnavailable(str(error)) from error


def node_name() -> str:
    """This machine's name as a node's."""
    return re.sub(r"[^a-z0-9-]+", "-", socket.gethostname().split(".")[0].lower()).strip("-") or "node-1"


def find_real() -> RealGpus | None:
    """The GPUs of this machine, if it has any and a driver that answers."""
    import pynvml

    try:
        pynvml.nvmlInit()
        gpus = RealGpus(pynvml)
        return gpus if any(gpus.count().values()) else None
    except (pynvml.NVMLError, GpusUnavailable):
        return None
