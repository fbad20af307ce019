"""The pools: free GPUs, and the timeline."""

from __future__ import annotations

from typing import Literal

import msgspec

from gpudev.wire.base import Error
from gpudev.wire.reservations import Reservation, State
from gpudev.wire.sentences import Sentence


class SizeAvailability(msgspec.Struct, kw_only=True):
    """What would happen if the caller requested this size now."""

    gpus: int
    nodes: int
    free_now: int
    """How many of this size are free for ``hours``, before the limits of the caller."""
    earliest_start: str | None
    """Planned start for ``hours``; null if it would be refused or blocked (see ``reason``)."""
    longest_now: float | None = None
    """If it would not start now for ``hours``: the longest hold time that would; null if there is none."""
    starts_now: bool = False
    """Whether it would start now."""
    reason: str | None = None
    """Why it would not start now: the `reason` that the reservation would have."""
    reason_data: Sentence | None = None
    """``reason`` as data."""
    refused: Error | None = None
    """The error that the request would get; null if it would be accepted."""
    max_hours: float | None = None
    """The longest hold time that the caller's limits allow for this size; 0 if they do not allow it."""


class PoolAvailability(msgspec.Struct, kw_only=True):
    """One pool."""

    gpu_type: str
    label: str
    simulated: bool
    gpus_per_node: int
    nodes_up: int
    gpus_total: int
    gpus_free: int
    queued: int
    images: list[str]
    max_hours: float
    sizes: list[SizeAvailability]


class Availability(msgspec.Struct, kw_only=True):
    """``GET availability?hours=4``."""

    hours: float
    pools: list[PoolAvailability]


class TimelineBar(msgspec.Struct, kw_only=True):
    """GPUs of a reservation on one node, held or planned."""

    id: str
    name: str | None
    owner: str
    mine: bool
    gpus: int
    nodes: int
    state: State
    start: str
    end: str


class TimelineNode(msgspec.Struct, kw_only=True):
    """A node on the pool page."""

    name: str
    status: Literal["up", "down", "unknown", "drained"]
    gpus: int
    bars: list[TimelineBar]
    reason: str | None = None
    """Why nothing new starts on a drained node; null if an operator drained it."""
    until: str | None = None
    """When the servers on the node must have ended, because the node itself ends."""


class TimelinePool(msgspec.Struct, kw_only=True):
    """A pool on the pool page."""

    gpu_type: str
    label: str
    simulated: bool
    nodes: list[TimelineNode]
    waiting: list[Reservation]


class Timeline(msgspec.Struct, kw_only=True):
    """``GET timeline``: held and planned GPUs, and the queue."""

    now: str
    pools: list[TimelinePool]
