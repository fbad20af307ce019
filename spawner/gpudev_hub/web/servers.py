"""What a running server may ask with its own token; all of it works while the Hub is down."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from gpudev import wire
from gpudev_hub.core.errors import Code, Refused
from gpudev_hub.core.model import Reservation

from .present import instant
from .routes import Access, Call, Param, Route, Text
from .settings import WebSettings

FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")


def _asking(call: Call) -> Reservation:
    assert call.server is not None
    return call.server


async def report(call: Call) -> None:
    """The agent says what answers in its server."""
    body: wire.AgentReport = call.body
    record = _asking(call)
    if body.attempt != record.attempt:
        raise Refused(
            Code.FORBIDDEN,
            f"attempt {body.attempt} of {record.id} reports with the token of attempt {record.attempt}",
            "",
        )
    if body.rank >= max(1, len(record.allocation)):
        raise Refused(
            Code.INVALID_REQUEST,
            f"{record.id} has {len(record.allocation)} servers, there is no rank {body.rank}",
            "ranks count from 0",
        )
    await call.site.service.agent_report(
        record.id, record.attempt, body.rank, body.jupyter, body.sshd, body.detail, body.notice
    )


async def notices(call: Call) -> wire.Notices:
    """What to tell the user in his terminals."""
    record = _asking(call)
    with call.site.polls.one(call.caller):
        found = await call.site.service.notices(record.id, call.query["after"], call.query["wait"])
    latest = call.site.service.view.reservations.get(record.id, record)
    return wire.Notices(
        notices=[wire.Notice(seq=n.seq, text=n.text, minutes=n.minutes) for n in found],
        ends_at=instant(latest.ends_at),
    )


async def keys(call: Call) -> Text:
    """Lines for authorized_keys that open this server to the key offered; empty: none do."""
    fingerprint = call.query["fingerprint"]
    if not FINGERPRINT.fullmatch(fingerprint):
        raise Refused(Code.INVALID_REQUEST, f"{fingerprint[:64]!r} is no SHA256 fingerprint", "")
    lines = await call.site.access.authorized_keys(_asking(call).id, fingerprint)
    return Text("".join(f"{line}\n" for line in lines))


def server_routes(settings: WebSettings) -> list[Route]:
    """The routes of servers, below ``api/v1/servers/``."""
    root = f"{wire.API}/servers/{{id}}"
    server = Access.SERVER
    return [
        Route(
            "POST",
            f"{root}/report",
            report,
            server,
            takes=wire.AgentReport,
        ),
        Route(
            "GET",
            f"{root}/notices",
            notices,
            server,
            answers=wire.Notices,
            query=(
                Param(
                    "after", Annotated[int, msgspec.Meta(ge=0)], "the last notice known already", default=0
                ),
                Param(
                    "wait",
                    Annotated[float, msgspec.Meta(ge=0, le=settings.max_wait)],
                    "seconds to wait for a notice before answering",
                    default=0.0,
                ),
            ),
        ),
        Route(
            "GET",
            f"{root}/keys",
            keys,
            server,
            answers=Text,
            query=(
                Param(
                    "fingerprint",
                    Annotated[str, msgspec.Meta(pattern="^SHA256:[A-Za-z0-9+/]{43}$")],
                    "of the key offered",
                    required=True,
                ),
            ),
        ),
    ]
