"""What the parts of a running service share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from gpudev_hub.clock import Clock
from gpudev_hub.core.policy import Policy
from gpudev_hub.core.ports import Cluster, Hub, LaunchMaker, Store
from gpudev_hub.failpoints import Failpoint, nothing

from .metrics import Metrics
from .outages import Outages
from .remembered import Remembered

Probe = Callable[[str, int, str], Awaitable[bool]]
"""(host, port, host key alias) → whether an sshd there proves to be that host."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Adapters:
    """What a service is built on."""

    policy: Policy
    store: Store
    cluster: Cluster
    hub: Hub
    launches: LaunchMaker
    probe: Probe
    clock: Clock
    ids: Callable[[], str]
    """Makes a new random id at each call."""
    lab_shared: bool = True
    """Whether guests can open JupyterLab."""
    failpoint: Failpoint = nothing


class Context:
    """The adapters, the committed state, outages, metrics, and events that wake the parts."""

    def __init__(self, adapters: Adapters) -> None:
        self.adapters = adapters
        self.metrics = Metrics()
        self.remembered = Remembered(adapters.policy, adapters.store, adapters.clock)
        self.view = self.remembered.view
        self.writer_due = asyncio.Event()
        """Set when the writer has something to do."""
        self.outages = Outages(self.writer_due.set)
        self.reconcile_due = asyncio.Event()
        """Set to run a full pass now."""
