"""What the bastion asks, on the gate's listener with a secret of its own. Works while the Hub is down."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec

from gpudev_hub.core.errors import Code, Refused
from gpudev_hub.core.model import SECOND
from gpudev_hub.ssh.bastion import Bastion, Connection, Event

from .routes import Access, Call, Fingerprint, Text, route
from .servers import FINGERPRINT

_NoFingerprint = Annotated[str, msgspec.Meta(pattern="^(SHA256:[A-Za-z0-9+/]{43})?$")]
_Id = Annotated[str, msgspec.Meta(pattern="^[0-9]{1,20}-[0-9]{1,20}$")]
_NoId = Annotated[str, msgspec.Meta(pattern="^([0-9]{1,20}-[0-9]{1,20})?$")]
_Instance = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9-]{1,128}$")]
_Target = Annotated[str, msgspec.Meta(max_length=300)]
_REASON = 200
"""Most characters of a reason."""
_UNQUOTABLE = re.compile(r"[\"\\\x00-\x1f]")
_MOST = 20_000
"""Most connections or events of one request."""


class BastionConnection(msgspec.Struct, forbid_unknown_fields=True):
    """A connection that a bastion carries."""

    id: _Id
    """Number and start time of the process that carries it."""
    fingerprint: Fingerprint
    targets: list[_Target]
    permitted: list[_Target] = []
    """Targets that it may open."""


class CutsAsked(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /bastion/cuts``: all connections of one bastion."""

    instance: _Instance
    connections: Annotated[list[BastionConnection], msgspec.Meta(max_length=_MOST)]
    wait: Annotated[float, msgspec.Meta(ge=0, le=10)] = 0.0

    def live(self) -> list[Connection]:
        """Return the connections, with names that differ between bastions."""
        return [
            Connection(f"{self.instance}-{one.id}", one.fingerprint, tuple(one.targets), tuple(one.permitted))
            for one in self.connections
        ]

    def answer(self, found: Iterable[tuple[Connection, str]]) -> str:
        """Return the lines for connections to end."""
        lines = []
        for one, reason in found:
            # The bastion's scripts repeat the reason in JSON, and cannot quote it.
            plain = _UNQUOTABLE.sub("'", reason)[:_REASON]
            lines.append(f"{one.id.removeprefix(self.instance + '-')} {plain}\n")
        return "".join(lines)


class BastionEvent(msgspec.Struct, forbid_unknown_fields=True):
    """Something that a bastion logged."""

    at: Annotated[int, msgspec.Meta(ge=0)]
    """Seconds since 1970."""
    instance: _Instance
    event: Literal["opened", "asked", "denied", "refused", "closed", "cut"]
    connection: _NoId = ""
    fingerprint: _NoFingerprint = ""
    address: Annotated[str, msgspec.Meta(max_length=64)] = ""
    port: int = 0
    target: _Target = ""
    reason: Annotated[str, msgspec.Meta(max_length=_REASON)] = ""
    count: int = 1


class SessionEvents(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /bastion/sessions``: events since the last call, oldest first."""

    events: Annotated[list[BastionEvent], msgspec.Meta(max_length=_MOST)]

    def told(self) -> list[Event]:
        """Return the events, with names of connections that differ between bastions."""
        return [
            Event(
                kind=one.event,
                at=one.at * SECOND,
                connection=f"{one.instance}-{one.connection}" if one.connection else "",
                fingerprint=one.fingerprint,
                address=one.address,
                port=one.port,
                target=one.target,
                reason=one.reason,
                count=one.count,
            )
            for one in self.events
        ]


def _bastion(call: Call) -> Bastion:
    if call.site.bastion is None:
        raise Refused(Code.NOT_FOUND, "This hub has no bastion.", "")
    return call.site.bastion


@route("GET", "bastion/keys", access=Access.BASTION)
async def bastion_keys(call: Call, fingerprint: Fingerprint) -> Text:
    """Return the authorized_keys line that lets the offered key open its owner's servers; else nothing."""
    if not FINGERPRINT.fullmatch(fingerprint):
        raise Refused(Code.INVALID_REQUEST, f"{fingerprint[:64]!r} is not a SHA256 fingerprint.", "")
    lines = await _bastion(call).authorized_keys(fingerprint)
    return Text("".join(f"{line}\n" for line in lines))


@route("POST", "bastion/cuts", access=Access.BASTION)
async def bastion_cuts(call: Call, body: CutsAsked) -> Text:
    """Return the connections that must end now: a line each, the id and the reason."""
    bastion, cuts = _bastion(call), call.site.service.cuts
    bastion.asked(body.instance)
    live = body.live()
    latest = cuts.after(0).latest
    found = await bastion.to_end(live)
    if not found and body.wait:
        await cuts.wait(latest, body.wait)
        found = await bastion.to_end(live)
    return Text(body.answer(found))


@route("POST", "bastion/sessions", access=Access.BASTION)
async def bastion_sessions(call: Call, body: SessionEvents) -> None:
    """Record what happened at the bastion."""
    _bastion(call).record(body.told())
