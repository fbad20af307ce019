"""What a running server may ask with its own token; all of it works while the Hub is down."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from gpudev import wire
from gpudev_hub.core.decisions.timers import armed
from gpudev_hub.core.errors import Code, Refused
from gpudev_hub.core.model import SECOND, Reservation
from gpudev_hub.core.words import counted
from gpudev_hub.service.readiness import Report

from .auth import Identity
from .present import millis
from .routes import Access, Call, Param, Route, Text, poll_params
from .settings import WebSettings
from .site import Site
from .times import instant

FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")


def _asking(call: Call) -> Reservation:
    assert call.server is not None
    return call.server


async def report(call: Call) -> None:
    """Report what answers on a server; sent by the server's agent."""
    body: wire.AgentReport = call.body
    record = _asking(call)
    if body.attempt != record.attempt:
        raise Refused(
            Code.FORBIDDEN,
            f"Attempt {body.attempt} of {record.id} reported with the token of attempt {record.attempt}.",
            "",
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


async def notices(call: Call) -> wire.Notices:
    """Return the notices to show in the user's terminals, and whose connections to end."""
    record, service = _asking(call), call.site.service
    after, cut_after, wait = call.query["after"], call.query["cut_after"], call.query["wait"]
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


async def keys(call: Call) -> Text:
    """Return the authorized_keys lines that let the offered key in; empty if there are none."""
    fingerprint = call.query["fingerprint"]
    if not FINGERPRINT.fullmatch(fingerprint):
        raise Refused(Code.INVALID_REQUEST, f"{fingerprint[:64]!r} is not a SHA256 fingerprint.", "")
    lines = await call.site.access.authorized_keys(_asking(call).id, fingerprint)
    return Text("".join(f"{line}\n" for line in lines))


def status_of(site: Site, record: Reservation) -> wire.ServerStatus:
    """Return the reservation as its owner sees it, with the time left."""
    outcome = record.outcome or record.stop_outcome
    return wire.ServerStatus(
        reservation=site.presenter.reservation(record, Identity(record.owner, operator=False)),
        outcome=None if outcome is None else outcome.value,
        seconds_left=None if record.ends_at is None else (record.ends_at - site.service.clock.now()) / SECOND,
        warn_minutes=list(armed(record, site.service.policy.warn_minutes)),
    )


async def server_status(call: Call) -> wire.ServerStatus:
    """Return the reservation of this server and the time left."""
    record = _asking(call)
    wait, version = call.query["wait"], call.query["version"]
    if wait and version in (None, record.version):
        with call.site.polls.one(call.caller):
            record = await call.site.service.reads.wait_change(record.id, record.version, wait)
    return status_of(call.site, record)


async def server_extend(call: Call) -> wire.ServerStatus:
    """Extend the reservation of this server, all or nothing, in the name of its owner."""
    body: wire.ExtendRequest = call.body
    by = millis(body.hours)
    record = _asking(call)
    done = await call.site.service.extend(record.id, record.owner.subject, by, body.request_id)
    return status_of(call.site, done)


async def server_release(call: Call) -> wire.ServerStatus:
    """Release the reservation of this server in the name of its owner."""
    record = _asking(call)
    return status_of(call.site, await call.site.service.end(record.id, record.owner.subject))


ONE = f"{wire.API}/servers/{{id}}"


def server_routes(settings: WebSettings) -> list[Route]:
    """The routes of servers, below ``api/v1/servers/``."""
    longest = settings.max_wait
    return [_status_route(longest), *_CHANGES, _notices_route(longest), _KEYS]


def _status_route(longest: float) -> Route:
    return Route(
        "GET",
        ONE,
        server_status,
        Access.SERVER,
        answers=wire.ServerStatus,
        query=poll_params(longest),
    )


_CHANGES = [
    Route(
        "POST",
        f"{ONE}/extend",
        server_extend,
        Access.SERVER,
        answers=wire.ServerStatus,
        takes=wire.ExtendRequest,
        codes=(
            Code.INVALID_HOURS,
            Code.EXTENSION_REFUSED,
            Code.QUOTA_EXCEEDED,
            Code.WRONG_STATE,
            Code.REQUEST_ID_REUSED,
        ),
    ),
    Route("DELETE", ONE, server_release, Access.SERVER, answers=wire.ServerStatus, codes=(Code.WRONG_STATE,)),
    Route(
        "POST",
        f"{ONE}/report",
        report,
        Access.SERVER,
        takes=wire.AgentReport,
    ),
]


def _notices_route(longest: float) -> Route:
    return Route(
        "GET",
        f"{ONE}/notices",
        notices,
        Access.SERVER,
        answers=wire.Notices,
        query=(
            Param(
                "after",
                Annotated[int, msgspec.Meta(ge=0)],
                "Number of the last notice you know.",
                default=0,
            ),
            Param(
                "cut_after",
                Annotated[int, msgspec.Meta(ge=0)],
                "Number from the previous answer. Without it, the answer does not wait for `cut`.",
            ),
            Param(
                "wait",
                Annotated[float, msgspec.Meta(ge=0, le=longest)],
                "Seconds to wait for a notice before the answer.",
                default=0.0,
            ),
        ),
    )


_KEYS = Route(
    "GET",
    f"{ONE}/keys",
    keys,
    Access.SERVER,
    answers=Text,
    query=(
        Param(
            "fingerprint",
            Annotated[str, msgspec.Meta(pattern="^SHA256:[A-Za-z0-9+/]{43}$")],
            "Fingerprint of the offered key.",
            required=True,
        ),
    ),
)
