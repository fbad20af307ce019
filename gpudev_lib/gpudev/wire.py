"""The JSON types of the API, version 1, used by the client and the service.

Times are RFC 3339 strings in UTC (``2026-11-23T14:10:00Z``). Durations are hours (float) unless the name says
otherwise. ``gpus`` is per node. Unknown fields in a request are refused. The OpenAPI document of the service
is made from these types.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

API = "api/v1"
"""Path of the API, below the path of the service (``/services/gpudev/``)."""

State = Literal["queued", "starting", "ready", "stopping", "ended"]
Server = Literal["starting", "running", "stopped", "unknown"]
Outcome = Literal[
    "released", "cancelled", "expired", "idle", "failed", "node_lost", "access_revoked", "ended_by_operator"
]


RequestId = Annotated[str, msgspec.Meta(min_length=8, max_length=64, pattern=r"^[A-Za-z0-9_-]+$(?!\n)")]
"""Chosen by the client, different for every new request."""


Reason = Annotated[str, msgspec.Meta(max_length=300)]
"""Why an operator acts, in a few words."""


class _Request(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """Base class of all request bodies."""


class ReserveRequest(_Request):
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
    """Name of the reservation. Default: two words that the service chooses."""
    image: Annotated[str, msgspec.Meta(max_length=512)] | None = None
    """Image of the server. Default: the default image of the pool."""
    request_id: RequestId | None = None
    """Chosen by the client: 8 to 64 of `A-Za-z0-9_-`. A retry with the same id gets the same reservation."""


class ExtendRequest(_Request):
    """``POST reservations/{id}/extend``."""

    hours: float
    request_id: RequestId | None = None
    """Chosen by the client: 8 to 64 of `A-Za-z0-9_-`. A retry with the same id does not extend again. The
    service remembers the last 8 ids of a reservation."""
    reason: Reason | None = None
    """Why an operator extends it. It is recorded in the history and shown to the owner."""


NodeAction = Literal["drain", "undrain", "lost"]


class NodeRequest(_Request):
    """``POST nodes/{name}`` (operators)."""

    action: NodeAction


Subject = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class RevocationsRequest(_Request):
    """``POST people/revocations`` (operators)."""

    subjects: Annotated[
        list[Annotated[str, msgspec.Meta(max_length=256)]], msgspec.Meta(min_length=1, max_length=10_000)
    ]
    """People of `GET people` with `held` true, as you saw them. Nobody else is affected."""


class Person(msgspec.Struct, kw_only=True):
    """A person who has logged in with GitHub."""

    subject: str
    login: str
    """The GitHub login now."""
    hub_user: str
    """The name in JupyterHub, which never changes."""
    access: Literal["allowed", "revoked", "unconfirmed"]
    """`unconfirmed`: GitHub has not confirmed the access for too long, so the person cannot get in now."""
    reason: str | None
    """Why the access was revoked."""
    since: str
    """When the access was given or revoked."""
    confirmed_at: str
    """When GitHub last confirmed the access."""
    operator: bool
    teams: list[str]
    held: bool
    """This person would have lost access in the last check, but too many would have at once."""


class People(msgspec.Struct, kw_only=True):
    """``GET people`` (operators)."""

    people: list[Person]
    """Everybody who has logged in with GitHub, by login; empty where the hub does not use GitHub."""
    problems: list[str]
    """What to look at now, in sentences."""
    checked_at: str | None
    """When everybody was last compared with GitHub; null if never."""


class TextPart(msgspec.Struct, kw_only=True):
    """A part of a text. The text is all parts joined."""

    text: str
    """The words; for a time, the time in UTC."""
    at: str | None = None
    """The time, to show in the local time zone; null for words, which may contain quoted text."""


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
    reason_parts: list[TextPart] = []
    """``reason`` in parts, with separate times."""
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


class Error(msgspec.Struct, kw_only=True):
    """Inside ``{"error": …}``."""

    code: str
    message: str
    hint: str = ""
    longest_hours: float | msgspec.UnsetType = msgspec.UNSET
    """Only in a refused extension: the longest one available, 0 for none."""


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
    reason_parts: list[TextPart] = []
    """``reason`` in parts, with separate times."""
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


LimitName = Literal[
    "running_gpus",
    "queued_requests",
    "hours_per_request",
    "hours_with_extensions",
    "gpu_hours",
    "gpu_hours_week",
    "gpu_hours_month",
]
"""``gpu_hours`` counts live reservations; the last two count hold time in one week or month (UTC)."""


class Limit(msgspec.Struct, kw_only=True):
    """A limit of a user. Amounts are GPUs, requests, hours or GPU-hours, as the name says."""

    name: LimitName
    gpu_type: str | None
    """The GPU type that it is for; null: all types together, except those with a limit of their own."""
    limit: float
    used: float | None
    """Held or waiting now, or held in the week or month; null for limits on one reservation."""
    reserved: float
    """What live reservations may still use, in addition to ``used``."""
    left: float | None
    source: str
    """Where it comes from: ``default``, ``team:ORG/TEAM`` or ``person:SUBJECT``."""
    renews_at: str | None = None
    """When the week or month ends."""


class Limits(msgspec.Struct, kw_only=True):
    """``GET me/limits``: every limit of the caller."""

    limits: list[Limit]


_Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
_Hours = Annotated[float, msgspec.Meta(gt=0, le=8784)]


class LimitValues(_Request):
    """Values of limits; those that are left out stay as they are."""

    running_gpus: _Count | None = None
    queued_requests: _Count | None = None
    hours_per_request: _Hours | None = None
    hours_with_extensions: _Hours | None = None
    gpu_hours: _Count | None = None
    gpu_hours_week: _Count | None = None
    gpu_hours_month: _Count | None = None


class SetLimitsRequest(_Request):
    """``PUT limits`` (operators)."""

    scope: Annotated[str, msgspec.Meta(max_length=300)]
    """``default``, ``team:ORG/TEAM`` or ``person:LOGIN``, also ``person:SUBJECT``."""
    limits: LimitValues
    gpu_type: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    """The GPU type that the limits are for. Default: all types."""
    reason: Reason | None = None
    """Why they are set. It is recorded in the history."""


class LimitRule(msgspec.Struct, kw_only=True):
    """Limits of one scope that are set."""

    scope: str
    login: str | None
    """The login of the person, if the scope is a person who is known."""
    gpu_type: str | None
    limits: dict[LimitName, float]
    set_by: str
    """Login of the operator, or the subject if the login is not known, or ``policy file``."""
    set_at: str | None
    reason: str


class LimitRules(msgspec.Struct, kw_only=True):
    """``GET limits`` (operators)."""

    rules: list[LimitRule]
    """Rules of operators, then limits of users in the policy file."""
    base: dict[LimitName, float]
    """Limits of everybody where no rule says otherwise: from the policy file, or built in."""


class LimitsChanged(msgspec.Struct, kw_only=True):
    """Answer to ``PUT limits`` and ``DELETE limits``."""

    rule: LimitRule | None
    """The rule as it is now; null if nothing is left of it."""
    warnings: list[str]
    """Who uses more than the new limits. Nothing that runs ends."""


class Me(msgspec.Struct, kw_only=True):
    """``GET me``: the user of the token or cookie, and their limits."""

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
    """GPU-hours (GPUs × hours) of all live reservations of the user."""
    max_gpu_hours: float | None = None
    """Limit of GPU-hours; null means no limit."""
    limits: list[Limit] = []
    """Every limit, with what is used and left."""


UsageBy = Literal["day", "person", "team", "pool", "size"]
UsageOwner = Literal["me", "all"]


class UsageRow(msgspec.Struct, kw_only=True):
    """The usage of one group."""

    key: str
    """The day (UTC), the subject of the person, the team, the pool, or the number of GPUs."""
    label: str
    """The group for people to read."""
    requests: int
    gpu_hours_reserved: float
    """What was asked for, and what extensions added."""
    gpu_hours_held: float
    """From the start until the GPUs were free again."""
    waits: int
    """How often a request waited in the queue until its start."""
    wait_hours: float
    """All these waits together."""
    longest_wait_hours: float
    starts: int
    """How often a server became ready."""
    early_releases: int
    gpu_hours_given_back: float
    """From early releases to the planned ends."""
    outcomes: dict[str, int]
    """How many reservations ended with each outcome."""


class Usage(msgspec.Struct, kw_only=True):
    """``GET usage``: sums over UTC days; running reservations count until ``now``."""

    by: UsageBy
    since: str
    """First day, ``2026-11-01``."""
    until: str
    """Last day, included."""
    owner: UsageOwner
    now: str
    complete: bool
    """False while the service still reads its history after a start: the sums are too low."""
    rows: list[UsageRow]
    """Groups without usage are left out. A person of several teams counts in each of them."""
    total: UsageRow


class SshHost(msgspec.Struct, kw_only=True):
    """A server that the caller can connect to."""

    id: str
    name: str | None
    alias: str
    """``gpu-NAME``, or ``gpu-ID`` without a name."""
    rank: int
    host: str
    port: int
    user: str
    host_key_alias: str
    ends_at: str | None
    owner: str = ""
    """Login of the owner who shares the server with the caller; empty for the caller's own server."""


class SshClosed(msgspec.Struct, kw_only=True):
    """A name of the caller without a server now: its reservation waits, starts or ends."""

    alias: str
    id: str


class GithubFact(msgspec.Struct, kw_only=True):
    """One fact about GitHub that the hub relies on."""

    name: str
    ok: bool
    found: str
    """What GitHub says."""
    todo: str = ""
    """What to do if the fact does not hold."""


class GithubCheck(msgspec.Struct, kw_only=True):
    """``GET github-check``: every fact, in the order in which faults are best corrected."""

    ok: bool
    """Whether every fact holds."""
    facts: list[GithubFact]


class DoctorFact(msgspec.Struct, kw_only=True):
    """One fact about the installation."""

    id: str
    """Identifies the check; does not change."""
    name: str
    ok: bool
    found: str
    todo: str = ""
    """What to do if the fact does not hold."""


class Doctor(msgspec.Struct, kw_only=True):
    """``GET doctor``: every fact, in the order in which faults are best corrected."""

    ok: bool
    """Whether every fact holds."""
    facts: list[DoctorFact]


class RefusedKey(msgspec.Struct, kw_only=True):
    """An SSH key of the caller that no server accepts."""

    key: str
    """Type and SHA256 fingerprint where they are readable, else the place of the key."""
    reason: str


class SshBastion(msgspec.Struct, kw_only=True):
    """The bastion through which servers are reached; the host CA signs its key."""

    host: str
    port: int
    user: str
    host_key_alias: str


class SshAccess(msgspec.Struct, kw_only=True):
    """``GET ssh``: what the client needs for its SSH settings."""

    known_hosts: str
    """The ``@cert-authority`` line."""
    hosts: list[SshHost]
    identity_file: str | None
    """A private key on the machine of the service, created for a demo user; null for the user's own key."""
    accepted_keys: list[str]
    """SHA256 fingerprints of the caller's keys that servers accept."""
    closed: list[SshClosed] = []
    """Names of live reservations without a server now."""
    refused_keys: list[RefusedKey] = []
    """The caller's keys that no server accepts."""
    bastion: SshBastion | None = None
    """How to reach the servers from outside; null: directly."""


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
    actor: str
    state: str
    planned_start: str | None
    guaranteed_by: str | None
    ends_at: str | None
    detail: str
    cause_parts: list[TextPart] = []
    """``cause`` in parts, like ``reason_parts`` of a reservation."""
    detail_parts: list[TextPart] = []


class History(msgspec.Struct, kw_only=True):
    """``GET reservations/{id}/history``."""

    items: list[HistoryItem]
    next: str | None = None


class AgentReport(_Request):
    """``POST servers/{id}/report``: which parts of a server answer, sent by its agent."""

    attempt: int
    rank: Annotated[int, msgspec.Meta(ge=0, le=64)]
    jupyter: bool | None
    """Null on nodes without Jupyter."""
    sshd: bool
    detail: Annotated[str, msgspec.Meta(max_length=2000)] = ""
    notice: Annotated[str, msgspec.Meta(max_length=2000)] = ""


class Notice(msgspec.Struct, kw_only=True):
    """A message to show in the terminals of the user."""

    seq: int
    text: str
    minutes: int | None = None


class Cut(msgspec.Struct, kw_only=True):
    """A person whose SSH connections the server must end."""

    subject: str
    fingerprints: list[str]
    """SHA256 fingerprints of keys that this person used."""


class Notices(msgspec.Struct, kw_only=True):
    """``GET servers/{id}/notices?after=SEQ&cut_after=NUMBER&wait=SECONDS``."""

    notices: list[Notice]
    ends_at: str | None
    cut: list[Cut] = []
    cut_after: int = 0
    """The number to send the next time."""
    check: bool = False
    """Entries of `cut` may be missing: check every open connection with ``keys``."""


class ServerStatus(msgspec.Struct, kw_only=True):
    """``GET servers/{id}``: the reservation of the server that asks, with what a countdown needs."""

    reservation: Reservation
    outcome: Outcome | None
    """While ``stopping``: the outcome that it will have."""
    seconds_left: float | None
    """Until ``ends_at`` by the clock of the service, so that no other clock matters; null without an end."""
    warn_minutes: list[int]
    """Minutes before the end at which the owner is warned."""


class ErrorBody(msgspec.Struct, kw_only=True):
    """Body of every answer that is not 2xx."""

    error: Error
