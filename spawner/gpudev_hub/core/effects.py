"""What is to be done once a decision is durable (effects), and the answer of a decision.

Effects are idempotent, performed after the commit, and retried with back-off.
"""

from __future__ import annotations

from dataclasses import dataclass

from .model import Reservation


@dataclass(frozen=True, slots=True)
class StartServer:
    """Ask the Hub to start the server of this attempt."""

    id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class StopServer:
    """Ask the Hub to stop (and forget) the server; the engine removes it itself if that takes too long."""

    id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Warn:
    """Tell the owner, wherever he is, that the end is near."""

    id: str
    minutes: int


@dataclass(frozen=True, slots=True)
class Tell:
    """Tell the owner something else in words (a place moved, the hold shortened)."""

    id: str
    message: str


@dataclass(frozen=True, slots=True)
class RevokeAccess:
    """Delete the Hub tokens of a person, except those of servers that still run."""

    subject: str


@dataclass(frozen=True, slots=True)
class CutSessions:
    """End the live connections of a person to one server, or to all servers."""

    id: str | None
    subject: str


Effect = StartServer | StopServer | Warn | Tell | RevokeAccess | CutSessions


@dataclass(slots=True)
class Decision:
    """Answer, changes and effects of one event."""

    reservation: Reservation | None
    """The reservation that the event was about, as it is after the event and what became possible by it."""
    asked: Reservation | None
    """As it is once the first ``parts`` of the changes are durable: what was asked for then is."""
    parts: int
    effects: list[tuple[int, Effect]]
    """Each to be performed once so many parts are durable."""
    more: bool = False
    """True: freed time is left to be compressed; a ``Compress`` event should follow."""
