"""What can happen (events).

``decide(world, event, now)`` (``decisions/decide.py``) turns one event into the changes to commit and the
effects (``effects.py``) to perform once they are durable. Events carry everything they need.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gpudev_hub.core.limits.rules import Name

from .model import Millis, Node, Outcome, Owner, Presence, Request

# Requests: answered to somebody.


@dataclass(frozen=True, slots=True)
class Submit:
    """A new request. The service mints ``id``; the request is already validated (``request.py``)."""

    id: str
    owner: Owner
    request: Request
    request_id: str | None = None
    names: tuple[str, ...] = ()
    """A request without a name gets the first of these that the owner's reservations do not use."""


@dataclass(frozen=True, slots=True)
class End:
    """Cancel (queued) or release (starting, ready) a reservation, or end it for another reason."""

    id: str
    actor: str
    outcome: Outcome | None = None
    """``None``: cancelled or released, as the state says."""
    reason: str = ""
    """An operator's, on one printable line; its owner reads it."""


@dataclass(frozen=True, slots=True)
class Extend:
    """Prolong the hold by ``by`` milliseconds; all or nothing."""

    id: str
    actor: str
    by: Millis
    request_id: str | None = None
    """The same one again means the same extension, not another."""
    reason: str = ""
    """An operator's, on one printable line; its owner reads it."""


@dataclass(frozen=True, slots=True)
class Mint:
    """Hand out an id for a spawn page."""

    id: str
    subject: str


@dataclass(frozen=True, slots=True)
class Resume:
    """Start the server of a READY reservation again (its user stopped it, and wants it back)."""

    id: str
    actor: str


@dataclass(frozen=True, slots=True)
class Share:
    """Give a person access to the server of a reservation until it ends."""

    id: str
    actor: str
    guest: Owner
    """Known, and allowed to use the service: the caller has checked both."""


@dataclass(frozen=True, slots=True)
class Unshare:
    """Take a guest's access away, and end their connections."""

    id: str
    actor: str
    subject: str


@dataclass(frozen=True, slots=True)
class SetLimits:
    """An operator sets limits of a scope; those that are not named stay as they are."""

    scope: str
    """``default``, ``team:org/slug`` or ``person:SUBJECT``."""
    pool: str | None
    """``None``: for all pools."""
    values: Mapping[Name, int]
    """As in ``access_model.LimitRule``: GPUs, requests, milliseconds or GPU-hours."""
    actor: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ClearLimits:
    """An operator removes limits of a scope: the next wider rule holds again."""

    scope: str
    pool: str | None
    actor: str
    names: tuple[Name, ...] = ()
    """Those to remove; empty: all."""
    reason: str = ""


# Access.


@dataclass(frozen=True, slots=True)
class PersonSeen:
    """GitHub confirmed that a person may get in, at a login or in a sweep."""

    subject: str
    hub_user_wanted: str
    """The name in the Hub that a new person gets, if nobody has it."""
    login: str
    teams: tuple[str, ...]
    operator: bool
    confirmed_at: Millis
    """When GitHub was asked."""


@dataclass(frozen=True, slots=True)
class AccessLost:
    """A person may no longer get in."""

    subject: str
    reason: str
    """In words that complete "access was revoked:"."""
    actor: str
    checked_at: Millis | None = None
    """When GitHub was asked; a later confirmation outweighs it. ``None``: now."""


@dataclass(frozen=True, slots=True)
class Swept:
    """Everybody was compared with GitHub, by a sweep that began at this instant."""

    at: Millis


# Observations.


@dataclass(frozen=True, slots=True)
class NodesObserved:
    """All nodes as now seen (a full list; a node not in it is gone)."""

    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class NodeUnknown:
    """Nothing could be learnt of the node; frees nothing, gets nothing new."""

    name: str


@dataclass(frozen=True, slots=True)
class OperatorNode:
    """An operator drains a node, puts it back, or says it is lost for good."""

    name: str
    action: str
    """``drain`` | ``undrain`` | ``lost``"""
    actor: str


@dataclass(frozen=True, slots=True)
class ServerObserved:
    """What the cluster shows of the server of one attempt (all nodes of a gang taken together)."""

    id: str
    attempt: int
    presence: Presence
    detail: str = ""
    """Why it ended, when known: an exit code, ``OOM``."""
    complete: bool = True
    """False with ``PRESENT``: some rank of a gang is gone while others are there."""
    outage: bool = False
    """With ``ABSENT``: it did not fail, its machine was shut down; the restart does not count."""


@dataclass(frozen=True, slots=True)
class ServerReady:
    """Jupyter answers and the service itself did a key exchange with every sshd of the attempt."""

    id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class StartTrouble:
    """Something keeps the attempt from getting ready; it may still get so."""

    id: str
    attempt: int
    detail: str


@dataclass(frozen=True, slots=True)
class ServerNotice:
    """What its owner should know of the server of an attempt, in words; empty: nothing any more."""

    id: str
    attempt: int
    text: str


@dataclass(frozen=True, slots=True)
class StartFailed:
    """The Hub or the engine could not start the attempt."""

    id: str
    attempt: int
    reason: str
    node: str | None = None
    """The node at fault, if a node is."""


@dataclass(frozen=True, slots=True)
class StopIntent:
    """The user himself stopped the server in the Hub; the slots are kept for the restart window."""

    id: str


@dataclass(frozen=True, slots=True)
class OwnerKnown:
    """Whether the Hub knows the owner (it can start nothing for one who never logged in)."""

    subject: str
    known: bool


@dataclass(frozen=True, slots=True)
class Outage:
    """The service, the Hub or the cluster API was away between these instants: allowances stood still."""

    since: Millis
    until: Millis
    what: str
    lasting: bool = False
    """True: it still is."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed: act on everything that is due (``next_due`` says when that is next)."""


@dataclass(frozen=True, slots=True)
class Compress:
    """One slice of the cascade that follows freed time; stops after ``budget_ms`` of CPU."""

    budget_ms: int = 15


Event = (
    Submit
    | End
    | Extend
    | Mint
    | Resume
    | Share
    | Unshare
    | SetLimits
    | ClearLimits
    | PersonSeen
    | AccessLost
    | Swept
    | NodesObserved
    | NodeUnknown
    | OperatorNode
    | ServerObserved
    | ServerReady
    | ServerNotice
    | StartFailed
    | StartTrouble
    | StopIntent
    | OwnerKnown
    | Outage
    | Tick
    | Compress
)
