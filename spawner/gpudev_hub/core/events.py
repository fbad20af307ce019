"""What can happen (events).

``decide(world, event, now)`` (``decisions/decide.py``) turns one event into the changes to commit and the
effects (``effects.py``) to perform once they are durable. Events carry everything they need.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from gpudev_hub.core.limits.rules import Name

from .model import Millis, Node, Outcome, Owner, Presence, Request


class Event(msgspec.Struct, frozen=True):
    """Base class of all events."""


# Requests, which get an answer.


class Submit(Event, frozen=True):
    """A new request, already validated (``request.py``), with an id from the service."""

    id: str
    owner: Owner
    request: Request
    request_id: str | None = None
    names: tuple[str, ...] = ()
    """Names for a request without one: it gets the first that the owner's reservations do not use."""


class End(Event, frozen=True):
    """Cancel (queued) or release (starting, ready) a reservation, or end it for another reason."""

    id: str
    actor: str
    outcome: Outcome | None = None
    """``None``: cancelled or released, depending on the state."""
    reason: str = ""
    """An operator's reason, on one printable line, for the owner to read."""


class Extend(Event, frozen=True):
    """Prolong the hold by ``by`` milliseconds; all or nothing."""

    id: str
    actor: str
    by: Millis
    request_id: str | None = None
    """The same id again means the same extension."""
    reason: str = ""
    """An operator's reason, on one printable line, for the owner to read."""


class Mint(Event, frozen=True):
    """Issue an id for a spawn page."""

    id: str
    subject: str


class Resume(Event, frozen=True):
    """Start the server of a reservation again, after its user stopped it."""

    id: str
    actor: str


class Share(Event, frozen=True):
    """Give a person access to the server of a reservation until it ends."""

    id: str
    actor: str
    guest: Owner
    """A person who is known and may use the service: the caller has checked both."""


class Unshare(Event, frozen=True):
    """Remove a guest, and end their connections."""

    id: str
    actor: str
    subject: str


class SetLimits(Event, frozen=True):
    """Set limits of a scope, as an operator; limits that are not given stay as they are."""

    scope: str
    """``default``, ``team:org/slug`` or ``person:SUBJECT``."""
    pool: str | None
    """``None``: all pools."""
    values: Mapping[Name, int]
    """As in ``access_model.LimitRule``: GPUs, requests, milliseconds or GPU-hours."""
    actor: str
    reason: str = ""


class ClearLimits(Event, frozen=True):
    """Remove limits of a scope, as an operator; the next wider rule holds again."""

    scope: str
    pool: str | None
    actor: str
    names: tuple[Name, ...] = ()
    """Limits to remove; empty: all."""
    reason: str = ""


# Access.


class PersonSeen(Event, frozen=True):
    """GitHub confirmed that a person may get in, at a login or in a sweep."""

    subject: str
    hub_user_wanted: str
    """The name in the Hub for a new person, if it is free."""
    login: str
    teams: tuple[str, ...]
    operator: bool
    confirmed_at: Millis
    """When GitHub was asked."""


class AccessLost(Event, frozen=True):
    """A person may no longer get in."""

    subject: str
    reason: str
    """Completes "access was revoked:"."""
    actor: str
    checked_at: Millis | None = None
    """When GitHub was asked; a later confirmation overrides it. ``None``: now."""


class Swept(Event, frozen=True):
    """A sweep that began at this instant has compared everybody with GitHub."""

    at: Millis


# Observations.


class NodesObserved(Event, frozen=True):
    """All nodes as observed. A node that is not in the list is gone."""

    nodes: tuple[Node, ...]


class NodeUnknown(Event, frozen=True):
    """The state of a node is unknown. That frees nothing, and nothing new starts there."""

    name: str


class OperatorNode(Event, frozen=True):
    """An operator drains or undrains a node, or marks it as lost."""

    name: str
    action: str
    """``drain`` | ``undrain`` | ``lost``"""
    actor: str


class ServerObserved(Event, frozen=True):
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


class ServerReady(Event, frozen=True):
    """JupyterLab answers, and the service did a key exchange with every sshd of the attempt."""

    id: str
    attempt: int


class StartTrouble(Event, frozen=True):
    """Something keeps the attempt from getting ready, perhaps only for now."""

    id: str
    attempt: int
    detail: str


class ServerNotice(Event, frozen=True):
    """What the owner of a server should know; an empty text ends the notice."""

    id: str
    attempt: int
    text: str


class StartFailed(Event, frozen=True):
    """The Hub or the engine could not start the attempt."""

    id: str
    attempt: int
    reason: str
    node: str | None = None
    """The node at fault, if a node is."""


class StopIntent(Event, frozen=True):
    """The user stopped the server in the Hub; the slots are kept for the restart window."""

    id: str


class OwnerKnown(Event, frozen=True):
    """Whether the Hub knows the owner. It starts no servers for users who never logged in."""

    subject: str
    known: bool


class Outage(Event, frozen=True):
    """The service, the Hub or the cluster API did not answer, so allowances are prolonged."""

    since: Millis
    until: Millis
    what: str
    lasting: bool = False
    """Whether it still does not answer."""


class Tick(Event, frozen=True):
    """Time has passed: do everything that is due (``next_due`` returns when that is next)."""


class Compress(Event, frozen=True):
    """One slice of the cascade that uses freed time; it stops after ``budget_ms`` of CPU."""

    budget_ms: int = 15
