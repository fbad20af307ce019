"""The routes of reservations: what people and their programs may do with them."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from gpudev import wire
from gpudev_hub.core.errors import SEE_YOURS, Code, Refused
from gpudev_hub.core.model import Outcome, Reservation, State
from gpudev_hub.core.permissions import Action, check_role, roles

from . import guests, present
from .routes import Access, Call, Param, Route, poll_params
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


async def find(call: Call, action: Action) -> Reservation:
    """The reservation that the path names: an id, or the name of a live one that the caller may enter.

    Raises ``Refused`` if there is none, or if the caller may not do this to it.
    """
    ref = call.path["ref"]
    record = await call.site.service.reads.find(ref, call.person.owner.subject)
    if record is None:
        raise Refused(
            Code.NOT_FOUND,
            f"There is no reservation {ref[:64]!r}: no reservation has this id, "
            "and you have no live reservation with this name.",
            SEE_YOURS,
        )
    call.reservation = record.id
    held = roles(record, call.person.owner.subject, operator=call.person.operator)
    check_role(record, held, action)
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
        raise Refused(
            Code.INVALID_REQUEST, f"{text[:64]!r} is not a cursor.", "Use `next` of the previous page."
        )
    return int(text)


async def reserve(call: Call) -> wire.Reservation:
    """Request GPUs. The answer, with the position in the queue, is sent once the request is stored."""
    body: wire.ReserveRequest = call.body
    record = await call.site.service.submit(call.person.owner, present.ask(body), body.request_id)
    call.headers["Location"] = f"{call.site.settings.prefix}{wire.API}/reservations/{record.id}"
    return shown(call, record)


async def list_reservations(call: Call) -> wire.ReservationList:
    """List live reservations in queue order, or ended reservations, latest first.

    The caller's live reservations include those that others share with the caller.

    The first page of ended reservations starts with those that are being stopped.
    """
    owner = None if call.query["owner"] == "all" else call.person.owner.subject
    live = call.site.service.view.reservations
    if call.query["ended"]:
        page = cursor(call.query["cursor"])
        stopping = [record for record in live.values() if record.state is State.STOPPING and page is None]
        records, following = await call.site.service.reads.ended(owner, page, call.query["limit"])
        known = {record.id for record in records}
        records = [
            *(r for r in reversed(stopping) if r.id not in known and owner in (None, r.owner.subject)),
            *records,
        ]
    else:
        if call.query["cursor"] is not None:
            raise Refused(
                Code.INVALID_REQUEST,
                "A cursor can be used only with ended=1.",
                "Leave cursor out: live reservations have only one page.",
            )
        records = sorted(
            (
                record
                for record in live.values()
                if owner is None or record.owner.subject == owner or record.guest(owner) is not None
            ),
            key=lambda record: (owner is not None and record.owner.subject != owner, record.seq),
        )
        following = None
    return wire.ReservationList(
        reservations=[call.site.presenter.reservation(record, call.person) for record in records],
        next=None if following is None else str(following),
    )


async def show(call: Call) -> wire.Reservation:
    """Return one reservation, by its id or by the name of a live reservation of the caller."""
    record = await find(call, Action.SEE)
    wait, version = call.query["wait"], call.query["version"]
    if wait and record.live and version in (None, record.version):
        with call.site.polls.one(call.caller):
            record = await call.site.service.reads.wait_change(record.id, record.version, wait)
    return shown(call, record)


async def end(call: Call) -> wire.Reservation:
    """Cancel a queued request, or release a reservation."""
    record = await find(call, Action.END)
    actor = call.person.owner.subject
    outcome = None if record.owner.subject == actor else Outcome.ENDED_BY_OPERATOR
    reason = present.reason(call.query["reason"])
    return shown(call, await call.site.service.end(record.id, actor, outcome, reason))


async def extend(call: Call) -> wire.Reservation:
    """Extend a reservation, all or nothing. A refusal gives the longest extension available."""
    body: wire.ExtendRequest = call.body
    by = present.millis(body.hours)
    record = await find(call, Action.EXTEND)
    actor = call.person.owner.subject
    reason = present.reason(body.reason)
    return shown(call, await call.site.service.extend(record.id, actor, by, body.request_id, reason))


async def resume(call: Call) -> wire.Reservation:
    """Start the server of a reservation again after its user stopped it."""
    record = await find(call, Action.RESUME)
    return shown(call, await call.site.service.resume(record.id, call.person.owner.subject))


async def share(call: Call) -> wire.Reservation:
    """Give another user access to the server of a reservation, by SSH and in JupyterLab, until it ends.

    Sharing again with the same user changes nothing.
    """
    record = await find(call, Action.SHARE)
    return shown(call, await guests.share(call.site, record, call.person, call.path["login"]))


async def unshare(call: Call) -> wire.Reservation:
    """End a guest's access to the server of a reservation, and their connections.

    If the user is not a guest, nothing changes.
    """
    record, actor = await find(call, Action.UNSHARE), call.person.owner.subject
    return shown(call, await guests.unshare(call.site, record, actor, call.path["login"]))


async def logs(call: Call) -> wire.Logs:
    """Return the start events of a reservation and the last lines of its server's logs."""
    record = await find(call, Action.READ_LOGS)
    found = await call.site.service.reads.logs(record.id, call.query["lines"])
    if call.site.bastion is not None and (said := call.site.bastion.lines_of(record.id)):
        found.logs["bastion"] = said
    return call.site.presenter.logs(found)


async def history(call: Call) -> wire.History:
    """Return every change of a reservation, oldest first, with its cause and actor."""
    record = await find(call, Action.READ_LOGS)
    entries, following = await call.site.service.reads.history(
        record.id, cursor(call.query["cursor"]) or 0, call.query["limit"]
    )
    return call.site.presenter.history(entries, following)


ALL = f"{wire.API}/reservations"
ONE = f"{ALL}/{{ref}}"


def reservation_routes(settings: WebSettings) -> list[Route]:
    """The routes of reservations, below ``api/v1/reservations``."""
    limit = Param(
        "limit",
        Annotated[int, msgspec.Meta(ge=1, le=settings.max_page)],
        "Maximum number of entries on a page.",
        default=min(50, settings.max_page),
    )
    page = Param("cursor", str, "`next` of the previous page.")
    return [
        _RESERVE,
        _list_route(limit, page),
        _show_route(settings.max_wait),
        *_CHANGES,
        _LOGS,
        _history_route(limit, page),
    ]


_RESERVE = Route(
    "POST",
    ALL,
    reserve,
    Access.PERSON,
    answers=wire.Reservation,
    takes=wire.ReserveRequest,
    codes=OF_A_REFUSED_REQUEST,
    status=201,
)


def _list_route(limit: Param, page: Param) -> Route:
    return Route(
        "GET",
        ALL,
        list_reservations,
        Access.PERSON,
        answers=wire.ReservationList,
        query=(
            Param("owner", Literal["me", "all"], "Whose reservations: the caller's or all.", default="me"),
            Param("ended", bool, "Ended reservations, and those being stopped.", default=False),
            limit,
            page,
        ),
    )


def _show_route(longest: float) -> Route:
    return Route(
        "GET",
        ONE,
        show,
        Access.PERSON,
        answers=wire.Reservation,
        codes=(Code.NOT_FOUND,),
        query=poll_params(longest),
    )


_CHANGES = [
    Route(
        "DELETE",
        ONE,
        end,
        Access.PERSON,
        answers=wire.Reservation,
        query=(
            Param(
                "reason",
                wire.Reason,
                "Why an operator ends it. The history records it, and the owner sees it.",
            ),
        ),
        codes=(Code.NOT_FOUND, Code.WRONG_STATE),
    ),
    Route(
        "POST",
        f"{ONE}/extend",
        extend,
        Access.PERSON,
        answers=wire.Reservation,
        takes=wire.ExtendRequest,
        codes=(
            Code.NOT_FOUND,
            Code.INVALID_HOURS,
            Code.EXTENSION_REFUSED,
            Code.QUOTA_EXCEEDED,
            Code.WRONG_STATE,
            Code.REQUEST_ID_REUSED,
        ),
    ),
    Route(
        "POST",
        f"{ONE}/resume",
        resume,
        Access.PERSON,
        answers=wire.Reservation,
        codes=(Code.NOT_FOUND, Code.WRONG_STATE),
    ),
    Route(
        "PUT",
        f"{ONE}/guests/{{login}}",
        share,
        Access.PERSON,
        answers=wire.Reservation,
        codes=(Code.NOT_FOUND, Code.WRONG_STATE, Code.QUOTA_EXCEEDED),
    ),
    Route(
        "DELETE",
        f"{ONE}/guests/{{login}}",
        unshare,
        Access.PERSON,
        answers=wire.Reservation,
        codes=(Code.NOT_FOUND, Code.WRONG_STATE),
    ),
]


_LOGS = Route(
    "GET",
    f"{ONE}/logs",
    logs,
    Access.PERSON,
    answers=wire.Logs,
    codes=(Code.NOT_FOUND,),
    query=(
        Param(
            "lines",
            Annotated[int, msgspec.Meta(ge=1, le=1000)],
            "Maximum number of lines of each log.",
            default=100,
        ),
    ),
)


def _history_route(limit: Param, page: Param) -> Route:
    return Route(
        "GET",
        f"{ONE}/history",
        history,
        Access.PERSON,
        answers=wire.History,
        codes=(Code.NOT_FOUND,),
        query=(limit, page),
    )
