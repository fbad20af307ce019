"""Reservations: requests, answers, logs and history."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from gpudev.wire.base import Reason, Request, RequestId
from gpudev.wire.sentences import Sentence

State = Literal["queued", "starting", "ready", "stopping", "ended"]
Server = Literal["starting", "running", "stopped", "unknown"]
Outcome = Literal[
    "released", "cancelled", "expired", "idle", "failed", "node_lost", "access_revoked", "ended_by_operator"
]


class ReserveRequest(Request):
    """``POST reservations``."""

    gpus: Annotated[int, msgspec.Meta(ge=-1_000_000, le=1_000_000)] | None = None
    """GPUs per node. Default: 1; with ``nodes``, all GPUs of a node. A size that no pool has is refused."""
    nodes: Annotated[int, msgspec.Meta(ge=-1_000_000, le=1_000_000)] | None = None
    """Number of whole nodes. Default: part of one node."""
    hours: float | None = None
    """Hold time. Default: the default of the service (4)."""
    gpu_type: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    """GPU type. Default: the default pool."""
    name: Annotated[str, msgspec.Meta(max_length=512)] | None = None
    """Name of the reservation, without the prefix `gpu-` of its SSH name: the service removes the prefix.

    Default: two words that the service chooses.
    """
    image: Annotated[str, msgspec.Meta(max_length=512)] | None = None
    """Image of the server. Default: the default image of the pool."""
    request_id: RequestId | None = None
    """Chosen by the client: 8 to 64 of `A-Za-z0-9_-`. A retry with the same id gets the same reservation."""


class ExtendRequest(Request):
    """``POST reservations/{id}/extend``."""

    hours: float
    request_id: RequestId | None = None
    """Chosen by the client: 8 to 64 of `A-Za-z0-9_-`. A retry with the same id does not extend again. The
    service remembers the last 8 ids of a reservation."""
    reason: Reason | None = None
    """Why an operator extends it. It is recorded in the history and shown to the owner."""


class NodeSlots(msgspec.Struct, kw_only=True):
    """GPUs that a reservation holds on one node."""

    node: str
    slots: list[int]


class Guest(msgspec.Struct, kw_only=True):
    """A user with whom the owner shares a server."""

    login: str
    """Their login now; it may have changed since the server was shared."""
    since: str


class Reservation(msgspec.Struct, kw_only=True):
    """A reservation. For users other than its owner and guests, ``url``, ``ssh_command`` and ``vscode_url``
    are null."""

    id: str
    name: str | None
    owner: str
    state: State
    server: Server | None
    gpus: int
    nodes: int
    total_gpus: int
    gpu_type: str
    image: str
    hours: float
    """Hold time, including extensions."""
    position: int | None
    """Place in the queue of the pool, 1 is next; null if it is not queued."""
    planned_start: str | None
    guaranteed_by: str | None
    """Guaranteed start: the latest time it starts. The history has the cause of each change."""
    likely_start: str | None
    reason: str | None
    """Why it waits, failed or changed; null where `state` and `outcome` say everything. Times are in UTC."""
    created_at: str
    starts_at: str | None
    """When it became ready. The hold time counts from here."""
    ends_at: str | None
    outcome: Outcome | None
    ended_at: str | None
    url: str | None
    ssh_command: str | None
    """SSH command for the first node."""
    vscode_url: str | None
    allocation: list[NodeSlots]
    version: int
    """Increases with every change. ``?wait=20&version=7`` answers when it is no longer 7."""
    mine: bool
    simulated: bool
    """Whether the GPUs are simulated, without real hardware."""
    ssh_commands: list[str] = []
    """SSH commands for all nodes, in order; empty if `ssh_command` is null."""
    reason_data: Sentence | None = None
    """``reason`` as data."""
    shared: bool = False
    """Whether the owner shares the server with the caller."""
    guests: list[Guest] = []
    """Users with whom the server is shared; shown to the owner, to these users, and to operators."""
    lab_shared: bool = True
    """Whether these users can open JupyterLab. They can always use SSH."""


class ReservationList(msgspec.Struct, kw_only=True):
    """``GET reservations``."""

    reservations: list[Reservation]
    next: str | None = None
    """Cursor of the next page; null on the last page."""


class Logs(msgspec.Struct, kw_only=True):
    """``GET reservations/{id}/logs``."""

    events: list[str]
    """Start events with their times, oldest first."""
    logs: dict[str, str]
    """Last lines by source: ``jupyter``, ``sshd``."""


class HistoryItem(msgspec.Struct, kw_only=True):
    """A change of a reservation."""

    at: str
    cause: str
    """The cause and its details, if there are any: ``start_failed: no answer``."""
    actor: str
    state: str
    planned_start: str | None
    guaranteed_by: str | None
    ends_at: str | None
    detail: str
    cause_code: str = ""
    """The cause alone: ``start_failed``."""
    cause_data: Sentence | None = None
    """Details of the cause as data."""
    detail_data: Sentence | None = None
    """``detail`` as data."""


class History(msgspec.Struct, kw_only=True):
    """``GET reservations/{id}/history``."""

    items: list[HistoryItem]
    next: str | None = None
