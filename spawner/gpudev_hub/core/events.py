"""What can happen (events).

``decide(world, event, now)`` (``decisions/decide.py``) turns one event into the changes to commit and the
effects (``effects.py``) to perform once they are durable. Events carry everything they need.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gpudev_hub.core.limits.rules import Name

from .model import Millis, Node, Outcome, Owner, Presence, Request

# Requests, which get an answer.


@dataclass(frozen=True, slots=True)
class Submit:
    """A new request, already validated (``request.py``), with an id from the service."""

    id: str
    owner: Owner
    request: Request
    request_id: str | None = None
    names: tuple[str, ...] = ()
    """Names for a request without one: it gets the first that the owner's reservations do not use."""


@dataclass(frozen=True, slots=True)
class End:
    """Cancel (queued) or release (starting, ready) a reservation, or end it for another reason."""

    id: str
    actor: str
    outcome: Outcome | None = None
    """``None``: cancelled or released, depending on the state."""
    reason: str = ""
    """An operator's reason, on one printable line, for the owner to read."""


@dataclass(frozen=True, slots=True)
class Extend:
    """Prolong the hold by ``by`` milliseconds; all or nothing."""

    id: str
    actor: str
    by: Millis
    request_id: str | None = None
    """The same id again means the same extension."""
    reason: str = ""
    """An operator's reason, on one printable line, for the owner to read."""


@dataclass(frozen=True, slots=True)
class Mint:
    """Issue an id for a spawn page."""

    id: str
    subject: str


@dataclass(frozen=True, slots=True)
class Resume:
    """Start the server of a reservation again, after its user stopped it."""

    id: str
    actor: str


@dataclass(frozen=True, slots=True)
class Share:
    """Give a person access to the server of a reservation until it ends."""

    id: str
    actor: str
    guest: Owner
    """A person who is known and may use the service: the caller has checked both."""


@dataclass(frozen=True, slots=True)
class Unshare:
    """Remove a guest, and end their connections."""

    id: str
    actor: str
    subject: str


@dataclass(frozen=True, slots=True)
class SetLimits:
    """Set limits of a scope, as an operator; limits that are not given stay as they are."""

    scope: str
    """``default``, ``team:org/slug`` or ``person:SUBJECT``."""
    pool: str | None
    """``None``: all pools."""
    values: Mapping[Name, int]
    """As in ``access_model.LimitRule``: GPUs, requests, milliseconds or GPU-hours."""
    actor: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ClearLimits:
    """Remove limits of a scope, as an operator; the next wider rule holds again."""

    scope: str
    pool: str | None
    actor: str
    names: tuple[Name, ...] = ()
    """Limits to remove; empty: all."""
    reason: str = ""


# Access.


@dataclass(frozen=True, slots=True)
class PersonSeen:
    """GitHub confirmed that a person may get in, at a login or in a sweep."""

    subject: str
    hub_user_wanted: str
    """The name in the Hub for a new person, if it is free."""
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
    """Completes "access was revoked:"."""
    actor: str
    checked_at: Millis | None = None
    """When GitHub was asked; a later confirmation overrides it. ``None``: now."""


@dataclass(frozen=True, slots=True)
class Swept:
    """A sweep that began at this instant has compared everybody with GitHub."""

    at: Millis


# Observations.


@dataclass(frozen=True, slots=True)
class NodesObserved:
    """All nodes as observed. A node that is not in the list is gone."""

    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class NodeUnknown:
    """The state of a node is unknown. That frees nothing, and nothing new starts there."""

    name: str


@dataclass(frozen=True, slots=True)
class OperatorNode:
    """An operator drains or undrains a node, or marks it as lost."""

    name: str
    action: str
    """``drain`` | ``undrain`` | ``lost``"""
    actor: str


@dataclass(frozen=True, slots=True)
class ServerObserved:
    """What the cluster shows of the server of one attempt (all ranks of a gang together)."""

    id: str
    attempt: int
    presence: Presence
    detail: str = ""
    """Why it ended, when known: an exit code, ``OOM``."""
    complete: bool = True
    """False with ``PRESENT``: some rank of a gang is gone while others exist."""
    outage: bool = False
    """With ``ABSENT``: it did not fail, its machine was shut down. The restart does not count."""


@dataclass(frozen=True, slots=True)
class ServerReady:
    """JupyterLab answers, and the service did a key exchange with every sshd of the attempt."""

    id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class StartTrouble:
    """Something keeps the attempt from getting ready, perhaps only for now."""

    id: str
    attempt: int
    detail: str


@dataclass(frozen=True, slots=True)
class ServerNotice:
    """What the owner of a server should know; an empty text ends the notice."""

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
    """The user stopped the server in the Hub; the slots are kept for the restart window."""

    id: str


@dataclass(frozen=True, slots=True)
class OwnerKnown:
    """Whether the Hub knows the owner. It starts no servers for users who never logged in."""

    subject: str
    known: bool


@dataclass(frozen=True, slots=True)
class Outage:
    """The service, the Hub or the cluster API did not answer, so allowances are prolonged."""

    since: Millis
    until: Millis
    what: str
    lasting: bool = False
    """Whether it still does not answer."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed: do everything that is due (``next_due`` returns when that is next)."""


@dataclass(frozen=True, slots=True)
class Compress:
    """One slice of the cascade that uses freed time; it stops after ``budget_ms`` of CPU."""

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
