"""The records of the domain: what the store keeps and every decision is made from.

Records are immutable; a change replaces a record. Instants are integer milliseconds since the epoch (UTC),
durations integer milliseconds. ``docs/architecture.md`` explains the terms.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from .sentences import Text

Millis = int
"""An instant (milliseconds since the epoch, UTC) or a duration in milliseconds."""

SECOND: Millis = 1_000
MINUTE: Millis = 60 * SECOND
HOUR: Millis = 60 * MINUTE


class State(StrEnum):
    """Where a reservation is in its life (``lifecycle.py`` has the legal moves)."""

    QUEUED = "queued"
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    ENDED = "ended"


class ServerState(StrEnum):
    """The last observation of a reservation's server, whatever its state should be."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPED = "stopped"
    UNKNOWN = "unknown"


class Presence(StrEnum):
    """An observation. ``UNKNOWN`` frees no slot and stops no server."""

    PRESENT = "present"
    ABSENT = "absent"
    UNKNOWN = "unknown"


class Outcome(StrEnum):
    """Why a reservation ended."""

    RELEASED = "released"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    IDLE = "idle"
    FAILED = "failed"
    NODE_LOST = "node_lost"
    ACCESS_REVOKED = "access_revoked"
    ENDED_BY_OPERATOR = "ended_by_operator"


class NodeStatus(StrEnum):
    """Whether a node may be planned on. Only ``UP`` offers slots; no other status frees any."""

    UP = "up"
    DOWN = "down"
    UNKNOWN = "unknown"
    DRAINED = "drained"


class ClaimState(StrEnum):
    """``HELD``: the server may run there. ``RELEASING``: the slots are free once the server is gone."""

    HELD = "held"
    RELEASING = "releasing"


@dataclass(frozen=True, slots=True)
class Owner:
    """Who a reservation belongs to. Caps, history and audit refer to ``subject``, never to a name."""

    subject: str
    """Opaque, and always the same person: ``github:123``, ``local:alice``."""
    hub_user: str
    """The user's name in the Hub."""
    login: str
    """The name that is displayed."""


@dataclass(frozen=True, slots=True)
class Guest:
    """A person with whom the owner shares one server, until the reservation ends."""

    subject: str
    hub_user: str
    login: str
    """As it was when the server was shared. Display only."""
    since: Millis


@dataclass(frozen=True, slots=True)
class Shape:
    """``nodes`` nodes with ``gpus`` GPUs on each; ``nodes > 1`` means whole nodes."""

    gpus: int
    nodes: int = 1

    @property
    def total_gpus(self) -> int:
        """GPUs of all nodes together."""
        return self.gpus * self.nodes


@dataclass(frozen=True, slots=True)
class NodeSlots:
    """Slots of one node."""

    node: str
    slots: tuple[int, ...]


Allocation = tuple[NodeSlots, ...]
"""The slots of a claim, one entry per node; entry ``i`` is the node of rank ``i``."""


@dataclass(frozen=True, slots=True)
class Place:
    """A planned stay, with ``start`` and without ``end``."""

    start: Millis
    end: Millis
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CapacityBlock:
    """GPUs bought from AWS until a fixed time; its nodes end with it."""

    reservation: str
    """Its id: ``cr-0123…``."""
    ends_at: Millis | None = None
    """The last known end; ``None``: never known."""
    trouble: str = ""
    """Why its end cannot be read now."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node as last observed."""

    name: str
    pool: str
    gpus: int
    group: str
    """Zone and placement group; all nodes of a gang share it."""
    status: NodeStatus = NodeStatus.UP
    until: Millis | None = None
    """When servers must have ended because the node itself ends, if it does."""
    drained: bool = False
    """Whether an operator drained it. ``status`` is never ``UP`` until an operator undrains it."""
    grace_until: Millis | None = None
    """While the node is down, unknown or unproven: until then it keeps its planned places, and nothing starts
    there. ``None``: the node is up, or is not planned on."""
    reason: str = ""
    """Why nothing new starts on the node as observed; empty if nothing prevents it."""
    unproven: bool = False
    """Whether network policies are not shown to be enforced there, although the settings require that."""
    unhealthy: tuple[str, ...] = ()
    """Conditions that report trouble with the node: ``AcceleratedHardwareReady``."""
    block: CapacityBlock | None = None
    """The capacity block that the node belongs to."""

    @property
    def drained_for(self) -> str:
        """Why the node is drained; empty if an operator drained it, or it is not drained."""
        return self.reason if self.status is NodeStatus.DRAINED else ""

    @property
    def planned(self) -> bool:
        """Whether the plan may hold places on this node."""
        return self.status is NodeStatus.UP or self.grace_until is not None


@dataclass(frozen=True, slots=True)
class Request:
    """A complete and validated request, with defaults resolved (``request.py``)."""

    shape: Shape
    pool: str
    hold: Millis
    image: str
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Extension:
    """A granted extension, with the client's id for it."""

    request_id: str
    by: Millis


@dataclass(frozen=True, slots=True)
class Reservation:
    """One request for a server, and its life so far."""

    id: str
    seq: int
    """Queue order: the order of commits. A failed start keeps it when it goes back to the queue."""
    owner: Owner
    request: Request
    request_id: str | None
    """Chosen by the client; the same id again means the same request."""
    created_at: Millis
    startup: Millis
    """Start-up allowance at the time of the request."""
    teardown: Millis
    """Tear-down allowance at the time of the request."""
    cap: int
    """Most GPUs the owner may hold at once in the pool: the highest limit since the request."""
    state: State = State.QUEUED
    place: Place | None = None
    """Planned start and nodes while queued; ``None`` while blocked."""
    promise: Millis | None = None
    """Guaranteed latest admission: the first planned start, changed only with a logged cause."""
    lost: Place | None = None
    """While blocked: its former place, which it gets again if that is still free."""
    lost_promise: Millis | None = None
    """While blocked: its former promise, which holds again unless the new place is later."""
    blocked: Text | None = None
    """Why it has no place (it then delays no other request), or why its server cannot be started again."""
    excluded: frozenset[str] = frozenset()
    """Nodes at fault in failed starts of this reservation."""
    attempt: int = 0
    """Number of its latest claim; 0 before the first."""
    admitted_at: Millis | None = None
    """When ``starting`` was committed for the current stay."""
    start_deadline: Millis | None = None
    """When the start-up allowance is used up (while ``starting``); each restart has its own."""
    failed_starts: int = 0
    """How often the start-up allowance was used up (``Policy.start_attempts`` is the most)."""
    restarts: int = 0
    """How often the server was restarted after it ended without release."""
    ready_at: Millis | None = None
    """The first READY of the current stay; the hold starts here."""
    hard_end: Millis | None = None
    """When the slots must be free again; the visible end is ``hard_end - teardown``."""
    allocation: Allocation = ()
    server: ServerState | None = None
    """Last observation; ``None`` before the first start."""
    stopped_at: Millis | None = None
    """Since when the server is stopped while the slots are kept: by its owner, or while ``blocked``."""
    extended: Millis = 0
    """How much of ``request.hold`` was granted by extensions."""
    extensions: tuple[Extension, ...] = ()
    """The latest extensions with a request id, so that a repeated request is not granted twice."""
    warned: tuple[int, ...] = ()
    """Warning thresholds (minutes before the end) already recorded; an extension re-arms them."""
    stop_outcome: Outcome | None = None
    """While ``stopping``: the outcome it will end with."""
    outcome: Outcome | None = None
    ended_at: Millis | None = None
    detail: Text = ""
    """The latest message for the owner (a failure, a moved place)."""
    trouble: Text = ""
    """What keeps the present start from getting ready; empty once it is."""
    access_ends_at: Millis | None = None
    """When its server is stopped because its owner lost access, unless they get it back before."""
    notice: str = ""
    """What the running server reports to its owner."""
    guests: tuple[Guest, ...] = ()
    """Who may use the server as well as its owner, oldest first."""
    version: int = 0
    """Grows with every change; clients long-poll on it."""

    @property
    def ends_at(self) -> Millis | None:
        """The end that the owner sees; tear-down comes after it."""
        return None if self.hard_end is None else self.hard_end - self.teardown

    @property
    def live(self) -> bool:
        """Whether it has not ended."""
        return self.state is not State.ENDED

    def guest(self, subject: str) -> Guest | None:
        """Return the guest with this subject; ``None`` if the server is not shared with them."""
        return next((guest for guest in self.guests if guest.subject == subject), None)

    @property
    def length(self) -> Millis:
        """Length of a place for a whole new stay."""
        return self.startup + self.request.hold + self.teardown


@dataclass(frozen=True, slots=True)
class Claim:
    """Slots owned by one attempt of a reservation, even after the reservation has ended."""

    reservation: str
    attempt: int
    subject: str
    pool: str
    allocation: Allocation
    hard_end: Millis
    state: ClaimState = ClaimState.HELD
    presence: Presence = Presence.UNKNOWN
    """Last observation of the server."""
    seen: bool = False
    """Whether the server of this attempt was ever observed present."""
    overruns: int = 0
    """How often the slots were not free in time (``decisions/timers.py``)."""

    @property
    def key(self) -> tuple[str, int]:
        """(reservation, attempt)."""
        return (self.reservation, self.attempt)

    @property
    def gpus(self) -> int:
        """GPUs of all nodes together."""
        return sum(len(part.slots) for part in self.allocation)

    def is_on(self, node: str) -> bool:
        """Return whether it has slots of the node."""
        return any(part.node == node for part in self.allocation)


@dataclass(frozen=True, slots=True)
class MintedId:
    """An unused reservation id that was issued for a spawn page."""

    id: str
    subject: str
    minted_at: Millis
