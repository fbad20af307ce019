"""The JSON of the API, version 1: what client and service exchange.

Times are RFC 3339 strings in UTC (``2026-11-23T14:10:00Z``), durations hours (float) unless the name says
otherwise, ``gpus`` is per node. Unknown fields in a request are refused. The OpenAPI document of the service
is made from these types.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

API = "api/v1"
"""Path of the API below the service's own (``/services/gpudev/``)."""

State = Literal["queued", "starting", "ready", "stopping", "ended"]
Server = Literal["starting", "running", "stopped", "unknown"]
Outcome = Literal[
    "released", "cancelled", "expired", "idle", "failed", "node_lost", "access_revoked", "ended_by_operator"
]


RequestId = Annotated[str, msgspec.Meta(min_length=8, max_length=64, pattern=r"^[A-Za-z0-9_-]+$(?!\n)")]
"""Chosen by the client, a new one for every new request."""


class _Request(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """Base of everything a client sends."""


class ReserveRequest(_Request):
    """``POST reservations``."""

    gpus: Annotated[int, msgspec.Meta(ge=-1024, le=1024)] | None = None
    """GPUs per node; left out with ``nodes``: whole nodes. Sizes no pool has are refused in words, 0 too."""
    nodes: Annotated[int, msgspec.Meta(ge=-1024, le=1024)] | None = None
    """Left out, like ``gpus``: one GPU of one node."""
    hours: float | None = None
    """Left out: the service's default (4)."""
    gpu_type: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    """Left out: the default pool."""
    name: Annotated[str, msgspec.Meta(max_length=512)] | None = None
    image: Annotated[str, msgspec.Meta(max_length=512)] | None = None
    request_id: RequestId | None = None
    """Chosen by the client, 8 to 64 of `A-Za-z0-9_-`. A retry with the same one gets the same reservation."""


class ExtendRequest(_Request):
    """``POST reservations/{id}/extend``."""

    hours: float
    request_id: RequestId | None = None
    """Chosen by the client, 8 to 64 of `A-Za-z0-9_-`. A retry with the same one is not granted again.
    The last 8 are remembered."""


NodeAction = Literal["drain", "undrain", "lost"]


class NodeRequest(_Request):
    """``POST nodes/{name}`` (operators)."""

    action: NodeAction


class TextPart(msgspec.Struct, kw_only=True):
    """A piece of a text. All of them together are the text."""

    text: str
    """Words; of an instant its time in UTC, in words."""
    at: str | None = None
    """The instant, to be shown in the reader's zone; null: words, which may quote anything."""


class NodeSlots(msgspec.Struct, kw_only=True):
    """GPUs of one node that a reservation holds."""

    node: str
    slots: list[int]


class Reservation(msgspec.Struct, kw_only=True):
    """A reservation as its owner sees it; to others ``url``, ``ssh_command`` and ``vscode_url`` are null."""

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
    """Hold time granted so far, extensions included."""
    position: int | None
    """Place in the queue of its pool, 1 = next; null when not queued."""
    planned_start: str | None
    guaranteed_by: str | None
    """Promised latest start; changes only with a logged cause."""
    likely_start: str | None
    reason: str | None
    """In words: why it waits, failed or changed. Times are UTC."""
    created_at: str
    starts_at: str | None
    """When it became ready (the hold counts from here)."""
    ends_at: str | None
    outcome: Outcome | None
    ended_at: str | None
    url: str | None
    ssh_command: str | None
    """To the first node."""
    vscode_url: str | None
    allocation: list[NodeSlots]
    version: int
    """Grows with every change; ``?wait=20&version=7`` answers when it is no longer 7."""
    mine: bool
    pretended: bool
    """True where GPUs are pretended (no real hardware behind them)."""
    ssh_commands: list[str] = []
    """One for each node, the first node's first; empty where `ssh_command` is null."""
    reason_parts: list[TextPart] = []
    """``reason`` in pieces, its instants apart from its words."""


class ReservationList(msgspec.Struct, kw_only=True):
    """``GET reservations``."""

    reservations: list[Reservation]
    next: str | None = None
    """Cursor of the next page."""


class Error(msgspec.Struct, kw_only=True):
    """Inside ``{"error": …}``."""

    code: str
    message: str
    hint: str = ""


class SizeAvailability(msgspec.Struct, kw_only=True):
    """What would become of the caller's request for this size, were it made now."""

    gpus: int
    nodes: int
    free_now: int
    """How many of this size are free for ``hours``, whoever asks."""
    earliest_start: str | None
    """Planned start for ``hours``; null: it would be refused, or blocked (``reason`` says why)."""
    longest_now: float | None = None
    """Where it would not start at once for ``hours``: the most hours for which it would; null: for none."""
    starts_now: bool = False
    """Whether it would start at once."""
    reason: str | None = None
    """Why it would not start at once, in words, with times in UTC: what its reservation would say."""
    reason_parts: list[TextPart] = []
    """``reason`` in pieces, its instants apart from its words."""
    refused: Error | None = None
    """The error that the request would be answered with; null: it would be accepted."""
    max_hours: float | None = None
    """The most hours that the caller's limits allow for this size; 0: none."""


class PoolAvailability(msgspec.Struct, kw_only=True):
    """One pool."""

    gpu_type: str
    label: str
    pretended: bool
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
    """One stay on one node, held or planned."""

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
    """One node of the pool page."""

    name: str
    status: Literal["up", "down", "unknown", "drained"]
    gpus: int
    bars: list[TimelineBar]


class TimelinePool(msgspec.Struct, kw_only=True):
    """One pool of the pool page."""

    gpu_type: str
    label: str
    pretended: bool
    nodes: list[TimelineNode]
    waiting: list[Reservation]


class Timeline(msgspec.Struct, kw_only=True):
    """``GET timeline``: who holds what until when, who waits."""

    now: str
    pools: list[TimelinePool]


class Me(msgspec.Struct, kw_only=True):
    """``GET me``: who the token or cookie belongs to, and his limits."""

    user: str
    subject: str
    operator: bool
    max_hours: float
    max_hours_extended: float
    max_running_gpus: int
    max_queued: int
    running_gpus: int
    queued: int
    gpu_types: list[str]
    gpu_hours: float = 0.0
    """GPUs × hours of all the caller's live reservations."""
    max_gpu_hours: float | None = None
    """Most GPU-hours at once; null: no limit."""


class SshHost(msgspec.Struct, kw_only=True):
    """One server that the caller may enter."""

    id: str
    name: str | None
    alias: str
    """``gpu-NAME``, or ``gpu-ID`` where there is no name."""
    rank: int
    host: str
    port: int
    user: str
    host_key_alias: str
    ends_at: str | None


class SshClosed(msgspec.Struct, kw_only=True):
    """One name of the caller's that leads to no server now: it waits, starts or ends."""

    alias: str
    id: str


class SshAccess(msgspec.Struct, kw_only=True):
    """``GET ssh``: everything the client's include file is made from."""

    known_hosts: str
    """``@cert-authority`` line."""
    hosts: list[SshHost]
    identity_file: str | None
    """A private key on this machine that the service made for a demo user; null: the user's own."""
    accepted_keys: list[str]
    """SHA256 fingerprints of the caller's keys that servers accept."""
    closed: list[SshClosed] = []
    """Names of live reservations that can't be entered now."""


class Logs(msgspec.Struct, kw_only=True):
    """``GET reservations/{id}/logs``."""

    events: list[str]
    """Start events, oldest first, each with its time."""
    logs: dict[str, str]
    """Last lines by source: ``jupyter``, ``sshd``."""


class HistoryItem(msgspec.Struct, kw_only=True):
    """One change in a reservation's life."""

    at: str
    cause: str
    actor: str
    state: str
    planned_start: str | None
    guaranteed_by: str | None
    ends_at: str | None
    detail: str
    cause_parts: list[TextPart] = []
    """``cause`` in pieces, like ``reason_parts`` of a reservation."""
    detail_parts: list[TextPart] = []


class History(msgspec.Struct, kw_only=True):
    """``GET reservations/{id}/history``."""

    items: list[HistoryItem]
    next: str | None = None


class AgentReport(_Request):
    """``POST servers/{id}/report``: a server's agent says what answers."""

    attempt: int
    rank: Annotated[int, msgspec.Meta(ge=0, le=64)]
    jupyter: bool | None
    """None on ranks without Jupyter."""
    sshd: bool
    detail: Annotated[str, msgspec.Meta(max_length=2000)] = ""
    notice: Annotated[str, msgspec.Meta(max_length=2000)] = ""


class Notice(msgspec.Struct, kw_only=True):
    """Something to tell the user in his terminals."""

    seq: int
    text: str
    minutes: int | None = None


class Notices(msgspec.Struct, kw_only=True):
    """``GET servers/{id}/notices?after=SEQ&wait=SECONDS``."""

    notices: list[Notice]
    ends_at: str | None


class ErrorBody(msgspec.Struct, kw_only=True):
    """Body of every answer that is not 2xx."""

    error: Error
