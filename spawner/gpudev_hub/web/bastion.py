"""Routes for the bastion, on the gate's listener, with their own secret. They work without the Hub."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated

import msgspec

from gpudev_hub.core.errors import Code, Refused
from gpudev_hub.ssh.bastion import LONGEST_REASON, Bastion, BastionConnection, BastionEvent, Instance

from .routes import Access, Call, Fingerprint, Text, route
from .servers import FINGERPRINT

_UNQUOTABLE = re.compile(r"[\"\\\x00-\x1f]")
_MOST = 20_000
"""Most connections or events of one request."""


class CutsAsked(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /bastion/cuts``: all connections of one bastion."""

    instance: Instance
    connections: Annotated[list[BastionConnection], msgspec.Meta(max_length=_MOST)]
    wait: Annotated[float, msgspec.Meta(ge=0, le=10)] = 0.0


class SessionEvents(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /bastion/sessions``: events since the last call, oldest first."""

    events: Annotated[list[BastionEvent], msgspec.Meta(max_length=_MOST)]


def lines_to_end(found: Iterable[tuple[BastionConnection, str]]) -> str:
    """Return the lines for connections to end: id and reason."""
    # The bastion's scripts repeat the reason in JSON, and cannot quote it.
    plain = [(one.id, _UNQUOTABLE.sub("'", reason)[:LONGEST_REASON]) for one, reason in found]
    return "".join(f"{name} {reason}\n" for name, reason in plain)


def _bastion(call: Call) -> Bastion:
    if call.site.bastion is None:
        raise Refused(Code.NOT_FOUND, "This hub has no bastion.")
    return call.site.bastion


@route("GET", "bastion/keys", access=Access.BASTION)
async def bastion_keys(call: Call, fingerprint: Fingerprint) -> Text:
    """Return the authorized_keys line that lets the offered key open its owner's servers; else nothing."""
    if not FINGERPRINT.fullmatch(fingerprint):
        raise Refused(Code.INVALID_REQUEST, f"{fingerprint[:64]!r} is not a SHA256 fingerprint.")
    lines = await _bastion(call).authorized_keys(fingerprint)
    return Text("".join(f"{line}\n" for line in lines))


@route("POST", "bastion/cuts", access=Access.BASTION)
async def bastion_cuts(call: Call, body: CutsAsked) -> Text:
    """Return the connections that must end now: a line each, the id and the reason."""
    bastion, cuts = _bastion(call), call.site.service.cuts
    bastion.asked(body.instance)
    latest = cuts.after(0).latest
    found = await bastion.to_end(body.connections)
    if not found and body.wait:
        await cuts.wait(latest, body.wait)
        found = await bastion.to_end(body.connections)
    return Text(lines_to_end(found))


@route("POST", "bastion/sessions", access=Access.BASTION)
async def bastion_sessions(call: Call, body: SessionEvents) -> None:
    """Record what happened at the bastion."""
    _bastion(call).record(body.events)
