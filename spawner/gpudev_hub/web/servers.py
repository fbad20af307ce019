"""Routes for running servers, with their own tokens. They work without the Hub."""

from __future__ import annotations

import re
from typing import Annotated

from msgspec import Meta

from gpudev import wire
from gpudev_hub.core.decisions.timers import armed
from gpudev_hub.core.errors import Code, Refused
from gpudev_hub.core.model import SECOND, Reservation
from gpudev_hub.core.words import counted
from gpudev_hub.service.readiness import Report
from gpudev_hub.times import instant

from .auth import Identity
from .present import millis
from .reservation_api import OF_A_REFUSED_EXTENSION
from .routes import Access, Call, Fingerprint, Text, Version, Wait, route
from .settings import MAX_WAIT
from .site import Site

FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
ONE = f"{wire.API}/servers/{{id}}"
After = Annotated[int, Meta(ge=0, description="Number of the last notice you know.")]
CutAfter = Annotated[
    int,
    Meta(
        ge=0, description="Number from the previous answer. Without it, the answer does not wait for `cut`."
    ),
]
WaitForNotice = Annotated[
    float, Meta(ge=0, le=MAX_WAIT, description="Seconds to wait for a notice before the answer.")
]


def status_of(site: Site, record: Reservation) -> wire.ServerStatus:
    """Return the reservation as its owner sees it, with the time left."""
    outcome = record.outcome or record.stop_outcome
    return wire.ServerStatus(
        reservation=site.presenter.reservation(record, Identity(record.owner, operator=False)),
        outcome=None if outcome is None else outcome.value,
        seconds_left=None if record.ends_at is None else (record.ends_at - site.service.clock.now()) / SECOND,
        warn_minutes=list(armed(record, site.service.policy.warn_minutes)),
    )


@route("GET", ONE, access=Access.SERVER)
async def server_status(call: Call, wait: Wait = 0.0, version: Version | None = None) -> wire.ServerStatus:
    """Return the reservation of this server and the time left."""
    record = call.server
    if wait and version in (None, record.version):
        with call.site.polls.one(call.caller):
            record = await call.site.service.reads.wait_change(record.id, record.version, wait)
    return status_of(call.site, record)


@route("POST", f"{ONE}/extend", *OF_A_REFUSED_EXTENSION, access=Access.SERVER)
async def server_extend(call: Call, body: wire.ExtendRequest) -> wire.ServerStatus:
    """Extend the reservation of this server, all or nothing, in the name of its owner."""
    by = millis(body.hours)
    record = call.server
    done = await call.site.service.extend(record.id, record.owner.subject, by, body.request_id)
    return status_of(call.site, done)


@route("DELETE", ONE, Code.WRONG_STATE, access=Access.SERVER)
async def server_release(call: Call) -> wire.ServerStatus:
    """Release the reservation of this server in the name of its owner."""
    record = call.server
    return status_of(call.site, await call.site.service.end(record.id, record.owner.subject))


@route("POST", f"{ONE}/report", access=Access.SERVER)
async def report(call: Call, body: wire.AgentReport) -> None:
    """Report what answers on a server; sent by the server's agent."""
    record = call.server
    if body.attempt != record.attempt:
        raise Refused(
            Code.FORBIDDEN,
            f"Attempt {body.attempt} of {record.id} reported with the token of attempt {record.attempt}.",
        )
    if body.rank >= max(1, len(record.allocation)):
        raise Refused(
            Code.INVALID_REQUEST,
            f"Reservation {record.id} has {counted(len(record.allocation), 'server')}; "
            f"there is no rank {body.rank}.",
            "Ranks count from 0.",
        )
    call.site.reports.spend(call.caller)
    report = Report(body.jupyter, body.sshd, body.detail, body.notice)
    call.site.service.readiness.report(record.id, record.attempt, body.rank, report)


@route("GET", f"{ONE}/notices", access=Access.SERVER)
async def notices(
    call: Call, after: After = 0, cut_after: CutAfter | None = None, wait: WaitForNotice = 0.0
) -> wire.Notices:
    """Return the notices to show in the user's terminals, and whose connections to end."""
    record, service = call.server, call.site.service
    with call.site.polls.one(call.caller):
        found = await service.news(record.id, after, cut_after, wait)
    latest = service.view.reservations.get(record.id, record)
    return wire.Notices(
        notices=[wire.Notice(seq=n.seq, text=n.text, minutes=n.minutes) for n in found.notices],
        ends_at=instant(latest.ends_at),
        cut=[wire.Cut(subject=c.subject, fingerprints=list(c.fingerprints)) for c in found.cuts.cuts],
        cut_after=found.cuts.latest,
        check=found.cuts.missed,
    )


@route("GET", f"{ONE}/keys", access=Access.SERVER)
async def keys(call: Call, fingerprint: Fingerprint) -> Text:
    """Return the authorized_keys lines that let the offered key in; empty if there are none."""
    if not FINGERPRINT.fullmatch(fingerprint):
        raise Refused(Code.INVALID_REQUEST, f"{fingerprint[:64]!r} is not a SHA256 fingerprint.")
    lines = await call.site.access.authorized_keys(call.server.id, fingerprint)
    return Text("".join(f"{line}\n" for line in lines))
