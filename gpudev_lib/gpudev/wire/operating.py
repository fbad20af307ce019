"""What operators do and read: nodes, people, and checks of the installation."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from gpudev.wire.base import Request

NodeAction = Literal["drain", "undrain", "lost"]


class NodeRequest(Request):
    """``POST nodes/{name}`` (operators)."""

    action: NodeAction


class RevocationsRequest(Request):
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
