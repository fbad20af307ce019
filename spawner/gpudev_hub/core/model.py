"""The records of the domain: what the store keeps and every decision is made from.

All records are immutable; a change replaces a record. Instants are integer milliseconds since the epoch
(UTC), durations integer milliseconds. The words are those of ``docs/architecture.md``.
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
    """What was last observed of a reservation's server, apart from what is wanted."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPED = "stopped"
    UNKNOWN = "unknown"


class Presence(StrEnum):
    """An observation; ``UNKNOWN`` frees nothing and kills nothing."""

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
    """Whether a node may be planned on. Only ``UP`` offers slots; none of the others frees any."""

    UP = "up"
    DOWN = "down"
    UNKNOWN = "unknown"
    DRAINED = "drained"


class ClaimState(StrEnum):
    """``HELD``: the reservation's server may run there. ``RELEASING``: free once the server is seen gone."""

    HELD = "held"
    RELEASING = "releasing"


@dataclass(frozen=True, slots=True)
class Owner:
    """Who a reservation belongs to. Caps, history and audit key on ``subject``, never on a name."""

    subject: str
    """Opaque and for ever the same person: ``github:123``, ``local:alice``."""
    hub_user: str
    """The user's name in the Hub."""
    login: str
    """What is displayed."""


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
    """A planned stay, ``start`` included and ``end`` not."""

    start: Millis
    end: Millis
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CapacityBlock:
    """GPUs of AWS that were paid for until a fixed time; its nodes end with it."""

    reservation: str
    """Its id: ``cr-0123…``."""
    ends_at: Millis | None = None
    """The last known end; ``None``: never known."""
    trouble: str = ""
    """In words, why its end cannot be read at present."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node as last observed."""

    name: str
    pool: str
    gpus: int
    group: str
    """Zone and placement group; the nodes of a gang share it."""
    status: NodeStatus = NodeStatus.UP
    until: Millis | None = None
    """When servers on the node must have ended because the node itself ends, if it does."""
    drained: bool = False
    """An operator drained it here: however it is seen, ``status`` is never ``UP`` until he puts it back."""
    grace_until: Millis | None = None
    """While the node is down, unknown or unproven: until then the places planned on it stay, and nothing
    starts there. ``None``: the node is up, or is not planned on."""
    reason: str = ""
    """In words, why nothing new starts on the node as it was seen; empty if nothing is the matter with it."""
    unproven: bool = False
    """Nothing shows that network policies are enforced there, although the settings ask for that."""
    unhealthy: tuple[str, ...] = ()
    """Conditions of the node that say it is not well: ``AcceleratedHardwareReady``."""
    block: CapacityBlock | None = None
    """The capacity block that the node belongs to."""

    @property
    def drained_for(self) -> str:
        """Why the node is drained, in words; empty if an operator drained it, or it is not drained."""
        return self.reason if self.status is NodeStatus.DRAINED else ""

    @property
    def planned(self) -> bool:
        """Whether the plan may hold places on this node."""
        return self.status is NodeStatus.UP or self.grace_until is not None


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for, complete (defaults resolved) and validated (``request.py``)."""

    shape: Shape
    pool: str
    hold: Millis
    image: str
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Extension:
    """An extension that was granted, by the client's own id for it."""

    request_id: str
    by: Millis


@dataclass(frozen=True, slots=True)
class Reservation:
    """One request for a server and all that has become of it."""

    id: str
    seq: int
    """Queue order: the order of commits. Kept when a failed start goes back to the queue."""
    owner: Owner
    request: Request
    request_id: str | None
    """Chosen by the client; the same one again means the same request, not another."""
    created_at: Millis
    startup: Millis
    """Start-up allowance, as it was when asked."""
    teardown: Millis
    """Tear-down allowance, as it was when asked."""
    cap: int
    """Most GPUs the owner may hold at once in the pool: the highest that held since it was asked."""
    state: State = State.QUEUED
    place: Place | None = None
    """Planned start and nodes while queued; ``None`` while blocked."""
    promise: Millis | None = None
    """Guaranteed latest admission: the first planned start, changed only with a logged cause."""
    lost: Place | None = None
    """While blocked: the place it had. It gets that again if it is still free when it is planned again."""
    lost_promise: Millis | None = None
    """While blocked: what it was promised, which holds again unless its new place is later."""
    blocked: Text | None = None
    """In words, why there is no place, which holds up nobody; or why a server can't be started again."""
    excluded: frozenset[str] = frozenset()
    """Nodes at fault in failed starts of this reservation."""
    attempt: int = 0
    """Number of the claim that is or was last held; 0 before the first."""
    admitted_at: Millis | None = None
    """When ``starting`` was committed for the current stay."""
    start_deadline: Millis | None = None
    """When the start-up allowance is used up (while ``starting``); a restart has one of its own."""
    failed_starts: int = 0
    """How often the start-up allowance was used up; the third time is the end."""
    restarts: int = 0
    """How often the server came back by itself after it ended without release."""
    ready_at: Millis | None = None
    """The first READY of the current stay; the hold counts from here."""
    hard_end: Millis | None = None
    """When the slots must be free again; the visible end is ``hard_end - teardown``."""
    allocation: Allocation = ()
    server: ServerState | None = None
    """Last observation; ``None`` before the first start."""
    stopped_at: Millis | None = None
    """Since when the server is stopped while the slots are kept: its user's wish, or it is ``blocked``."""
    extended: Millis = 0
    """How much of ``request.hold`` was granted by extensions."""
    extensions: tuple[Extension, ...] = ()
    """The last ones that came with a request id, so that a repeated one is not granted again."""
    warned: tuple[int, ...] = ()
    """Warning thresholds (minutes before the end) already recorded; re-armed by an extension."""
    stop_outcome: Outcome | None = None
    """While ``stopping``: the outcome it will end with."""
    outcome: Outcome | None = None
    ended_at: Millis | None = None
    detail: Text = ""
    """The latest thing worth telling the owner, in words (a failure, a moved place)."""
    trouble: Text = ""
    """What keeps the start under way from being ready, in words; nothing once it is."""
    access_ends_at: Millis | None = None
    """When its server is stopped because its owner lost access, unless access comes back before."""
    notice: str = ""
    """What the server that runs says of itself, in words; its owner should know it."""
    guests: tuple[Guest, ...] = ()
    """Who may use the server beside its owner, the longest first."""
    version: int = 0
    """Grows with every change; clients long-poll on it."""

    @property
    def ends_at(self) -> Millis | None:
        """The end that the owner sees: tear-down comes after it."""
        return None if self.hard_end is None else self.hard_end - self.teardown

    @property
    def live(self) -> bool:
        """Not ended."""
        return self.state is not State.ENDED

    def guest(self, subject: str) -> Guest | None:
        """Return the guest with this subject; ``None`` if the server is not shared with them."""
        return next((guest for guest in self.guests if guest.subject == subject), None)

    @property
    def length(self) -> Millis:
        """Length of a place for a full new stay."""
        return self.startup + self.request.hold + self.teardown


@dataclass(frozen=True, slots=True)
class Claim:
    """Slots owned by one attempt of one reservation, whatever has become of the reservation."""

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
    """Whether the server of this attempt was ever seen present."""
    overruns: int = 0
    """How often the slots were not free when they should have been (``decisions/timers.py``)."""

    @property
    def key(self) -> tuple[str, int]:
        """(reservation, attempt)."""
        return (self.reservation, self.attempt)


@dataclass(frozen=True, slots=True)
class MintedId:
    """A reservation id handed out for a spawn page and not used yet."""

    id: str
    subject: str
    minted_at: Millis
