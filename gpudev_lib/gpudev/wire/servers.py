"""What a server reports, and what it reads."""

from __future__ import annotations

from typing import Annotated

import msgspec

from gpudev.wire.base import Request
from gpudev.wire.reservations import Outcome, Reservation


class AgentReport(Request):
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
