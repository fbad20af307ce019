"""What people and their programs may ask of the service: the routes below ``api/v1/``."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from gpudev import wire
from gpudev_hub.core.errors import Code, Refused
from gpudev_hub.core.model import Outcome, Reservation, State

from . import present
from .routes import Access, Call, Param, Route
from .settings import WebSettings

OF_A_REFUSED_REQUEST = (
    Code.INVALID_SHAPE,
    Code.INVALID_HOURS,
    Code.INVALID_NAME,
    Code.INVALID_IMAGE,
    Code.UNKNOWN_GPU_TYPE,
    Code.NAME_TAKEN,
    Code.QUOTA_EXCEEDED,
    Code.REQUEST_ID_REUSED,
)


async def find(call: Call, *, own: bool) -> Reservation:
    """The reservation that the path names: an id, or the name of a live one of the caller's.

    ``own``: refuse somebody else's, unless an operator asks.
    """
    ref = call.path["ref"]
    record = await call.site.service.find(ref, call.person.owner.subject)
    if record is None:
        raise Refused(
            Code.NOT_FOUND,
            f"there is no reservation {ref[:64]!r}, by id or by the name of a live one of yours",
            "see `gpu-dev list`",
        )
    call.reservation = record.id
    mine = record.owner.subject == call.person.owner.subject
    if own and not mine and not call.person.operator:
        raise Refused(
            Code.FORBIDDEN,
            f"reservation {record.id} is {record.owner.login}'s",
            "only its owner and operators may do that; see yours with `gpu-dev list`",
        )
    return record


def shown(call: Call, record: Reservation) -> wire.Reservation:
    """A reservation as the caller sees it."""
    call.reservation = record.id
    return call.site.presenter.reservation(record, call.person)


def cursor(text: str | None) -> int | None:
    """A page's cursor, as it was handed out."""
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise Refused(Code.INVALID_REQUEST, f"{text[:64]!r} is no cursor", "use `next` of the page before")
    return int(text)


async def reserve(call: Call) -> wire.Reservation:
    """Ask for GPUs. Answered once the request is durable, with its place in the queue."""
    body: wire.ReserveRequest = call.body
    record = await call.site.service.submit(call.person.owner, present.ask(body), body.request_id)
    call.headers["Location"] = f"{call.site.settings.prefix}{wire.API}/reservations/{record.id}"
    return shown(call, record)


async def list_reservations(call: Call) -> wire.ReservationList:
    """Live reservations in the order of the queue, or past ones, latest first.

    The first page of past ones begins with those that are being stopped: nobody can use them any more.
    """
    owner = None if call.query["owner"] == "all" else call.person.owner.subject
    live = call.site.service.view.reservations
    if call.query["ended"]:
        page = cursor(call.query["cursor"])
        stopping = [record for record in live.values() if record.state is State.STOPPING and page is None]
        records, following = await call.site.service.ended(owner, page, call.query["limit"])
        known = {record.id for record in records}
        records = [
            *(r for r in reversed(stopping) if r.id not in known and owner in (None, r.owner.subject)),
            *records,
        ]
    else:
        if call.query["cursor"] is not None:
            raise Refused(
                Code.INVALID_REQUEST, "a cursor goes with ended=1", "live reservations are one page"
            )
        records = sorted(
            (record for record in live.values() if owner is None or record.owner.subject == owner),
            key=lambda record: record.seq,
        )
        following = None
    return wire.ReservationList(
        reservations=[call.site.presenter.reservation(record, call.person) for record in records],
        next=None if following is None else str(following),
    )


async def show(call: Call) -> wire.Reservation:
    """One reservation, by id or by the name of a live one of the caller's."""
    record = await find(call, own=False)
    wait, version = call.query["wait"], call.query["version"]
    if wait and record.live and version in (None, record.version):
        with call.site.polls.one(call.caller):
            record = await call.site.service.wait_change(record.id, record.version, wait)
    return shown(call, record)


async def end(call: Call) -> wire.Reservation:
    """Cancel it (while queued) or release it."""
    record = await find(call, own=True)
    actor = call.person.owner.subject
    outcome = None if record.owner.subject == actor else Outcome.ENDED_BY_OPERATOR
    return shown(call, await call.site.service.end(record.id, actor, outcome))


async def extend(call: Call) -> wire.Reservation:
    """Prolong it, all or nothing; a refusal says the longest that would be granted."""
    body: wire.ExtendRequest = call.body
    by = present.millis(body.hours)
    record = await find(call, own=True)
    actor = call.person.owner.subject
    return shown(call, await call.site.service.extend(record.id, actor, by, body.request_id))


async def resume(call: Call) -> wire.Reservation:
    """Start its server again after it was stopped in the Hub."""
    record = await find(call, own=True)
    return shown(call, await call.site.service.resume(record.id, call.person.owner.subject))


async def logs(call: Call) -> wire.Logs:
    """Start events and the last lines of its server's logs."""
    record = await find(call, own=True)
    return call.site.presenter.logs(await call.site.service.logs(record.id, call.query["lines"]))


async def history(call: Call) -> wire.History:
    """Every change of it, oldest first, with cause and actor."""
    record = await find(call, own=True)
    entries, following = await call.site.service.history(
        record.id, cursor(call.query["cursor"]) or 0, call.query["limit"]
    )
    return call.site.presenter.history(entries, following)


async def availability(call: Call) -> wire.Availability:
    """What is free now, and when each size could start."""
    hours = call.query["hours"]
    hold = call.site.service.policy.default_hold if hours is None else present.millis(hours)
    found = call.site.service.availability(call.person.owner, hold)
    return call.site.presenter.availability(found, hold, call.person)


async def timeline(call: Call) -> wire.Timeline:
    """Who holds what until when, and who waits."""
    return call.site.presenter.timeline(call.person, call.site.service.clock.now())


async def me(call: Call) -> wire.Me:
    """Who the caller is, and his limits."""
    return call.site.presenter.me(call.person)


async def ssh(call: Call) -> wire.SshAccess:
    """The servers that the caller may enter, and how."""
    return present.ssh_access(await call.site.access.hosts(call.person.owner))


async def operate_node(call: Call) -> None:
    """Drain a node, put it back, or say that it is lost for good."""
    body: wire.NodeRequest = call.body
    name = call.path["name"]
    if name not in call.site.service.view.nodes:
        known = ", ".join(sorted(call.site.service.view.nodes)) or "none"
        raise Refused(Code.NOT_FOUND, f"there is no node {name[:64]!r}", f"there are: {known}")
    await call.site.service.operate_node(name, body.action, call.person.owner.subject)


def api_routes(settings: WebSettings) -> list[Route]:
    """The routes of people, all below ``api/v1/``."""
    wait = Annotated[float, msgspec.Meta(ge=0, le=settings.max_wait)]
    limit = Param(
        "limit",
        Annotated[int, msgspec.Meta(ge=1, le=settings.max_page)],
        "entries of one page, at most",
        default=min(50, settings.max_page),
    )
    page = Param("cursor", str, "`next` of the page before")
    root = wire.API
    one = f"{root}/reservations/{{ref}}"
    person, unknown = Access.PERSON, Code.NOT_FOUND
    return [
        Route(
            "POST",
            f"{root}/reservations",
            reserve,
            person,
            answers=wire.Reservation,
            takes=wire.ReserveRequest,
            codes=OF_A_REFUSED_REQUEST,
            status=201,
        ),
        Route(
            "GET",
            f"{root}/reservations",
            list_reservations,
            person,
            answers=wire.ReservationList,
            query=(
                Param("owner", Literal["me", "all"], "whose: mine, or everybody's", default="me"),
                Param("ended", bool, "past reservations, and those being stopped", default=False),
                limit,
                page,
            ),
        ),
        Route(
            "GET",
            one,
            show,
            person,
            answers=wire.Reservation,
            codes=(unknown,),
            query=(
                Param("wait", wait, "seconds to wait for a change before answering", default=0.0),
                Param(
                    "version",
                    Annotated[int, msgspec.Meta(ge=0)],
                    "the version known already: with another one the answer comes at once",
                ),
            ),
        ),
        Route(
            "DELETE",
            one,
            end,
            person,
            answers=wire.Reservation,
            codes=(unknown, Code.WRONG_STATE),
        ),
        Route(
            "POST",
            f"{one}/extend",
            extend,
            person,
            answers=wire.Reservation,
            takes=wire.ExtendRequest,
            codes=(
                unknown,
                Code.INVALID_HOURS,
                Code.EXTENSION_REFUSED,
                Code.QUOTA_EXCEEDED,
                Code.WRONG_STATE,
                Code.REQUEST_ID_REUSED,
            ),
        ),
        Route(
            "POST",
            f"{one}/resume",
            resume,
            person,
            answers=wire.Reservation,
            codes=(unknown, Code.WRONG_STATE),
        ),
        Route(
            "GET",
            f"{one}/logs",
            logs,
            person,
            answers=wire.Logs,
            codes=(unknown,),
            query=(
                Param(
                    "lines",
                    Annotated[int, msgspec.Meta(ge=1, le=1000)],
                    "lines of each log, at most",
                    default=100,
                ),
            ),
        ),
        Route(
            "GET",
            f"{one}/history",
            history,
            person,
            answers=wire.History,
            codes=(unknown,),
            query=(limit, page),
        ),
        Route(
            "GET",
            f"{root}/availability",
            availability,
            person,
            answers=wire.Availability,
            codes=(Code.INVALID_HOURS,),
            query=(Param("hours", float, "hold time to plan for; left out: the service's default"),),
        ),
        Route(
            "GET",
            f"{root}/timeline",
            timeline,
            person,
            answers=wire.Timeline,
        ),
        Route("GET", f"{root}/me", me, person, answers=wire.Me),
        Route(
            "GET",
            f"{root}/ssh",
            ssh,
            person,
            answers=wire.SshAccess,
        ),
        Route(
            "POST",
            f"{root}/nodes/{{name}}",
            operate_node,
            Access.OPERATOR,
            takes=wire.NodeRequest,
            codes=(unknown, Code.WRONG_STATE),
        ),
    ]
