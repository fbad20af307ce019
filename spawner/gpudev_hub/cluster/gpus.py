"""Nodes and GPUs of this machine: through NVML, or simulated."""

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
        """Return the GPUs by node. Raises ``GpusUnavailable``."""
        ...

    def model(self) -> str:
        """Return the kind of GPU. Raises ``GpusUnavailable``."""
        ...


@dataclass(frozen=True, slots=True)
class SimulatedGpus:
    """Nodes ``node-1`` … with GPUs that do not exist."""

    nodes: int
    gpus: int

    def count(self) -> dict[str, int]:
        return {f"node-{number}": self.gpus for number in range(1, self.nodes + 1)}

    def model(self) -> str:
        """Return a name that cannot be mistaken for hardware."""
        return "simulated GPU"


class RealGpus:
    """The GPUs of this machine: one node, named like the machine."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml

    def count(self) -> dict[str, int]:
        """Ask NVML each time, so that a GPU that fell off the bus is noticed. Raises ``GpusUnavailable``."""
        try:
            return {node_name(): int(self._nvml.nvmlDeviceGetCount())}
        except self._nvml.NVMLError as error:
            raise GpusUnavailable(str(error)) from error

    def model(self) -> str:
        """Return the name of the first GPU: ``NVIDIA H200``. Raises ``GpusUnavailable``."""
        try:
            return str(self._nvml.nvmlDeviceGetName(self._nvml.nvmlDeviceGetHandleByIndex(0)))
        except self._nvml.NVMLError as error:
            raise GpusUnavailable(str(error)) from error


def node_name() -> str:
    """Return this machine's name as the name of a node."""
    return re.sub(r"[^a-z0-9-]+", "-", socket.gethostname().split(".")[0].lower()).strip("-") or "node-1"


def find_real() -> RealGpus | None:
    """Return the GPUs of this machine, if it has any and a driver that answers."""
    import pynvml

    try:
        pynvml.nvmlInit()
        gpus = RealGpus(pynvml)
        return gpus if any(gpus.count().values()) else None
    except (pynvml.NVMLError, GpusUnavailable):
        return None
