"""Routes for reservations."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from gpudev import wire
from gpudev_hub.core.errors import SEE_YOURS, Code, Refused
from gpudev_hub.core.model import Outcome, Reservation, State
from gpudev_hub.core.permissions import Action, check_role, roles

from . import guests, present
from .routes import Call, Version, Wait, route
from .settings import MAX_PAGE

ALL = f"{wire.API}/reservations"
ONE = ALL + "/{ref}"
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
OF_A_REFUSED_EXTENSION = (
    Code.INVALID_HOURS,
    Code.EXTENSION_REFUSED,
    Code.QUOTA_EXCEEDED,
    Code.WRONG_STATE,
    Code.REQUEST_ID_REUSED,
)
Whose = Annotated[Literal["me", "all"], Meta(description="Whose reservations: the caller's or all.")]
Ended = Annotated[bool, Meta(description="Ended reservations, and those being stopped.")]
Limit = Annotated[int, Meta(ge=1, le=MAX_PAGE, description="Maximum number of entries on a page.")]
Cursor = Annotated[str, Meta(description="`next` of the previous page.")]
Lines = Annotated[int, Meta(ge=1, le=1000, description="Maximum number of lines of each log.")]
WhyEnded = Annotated[
    wire.Reason, Meta(description="Why an operator ends it. The history records it, and the owner sees it.")
]


async def find(call: Call, ref: str, action: Action) -> Reservation:
    """Return the reservation with an id, or with the name of a live reservation that the caller may enter.

    Raises ``Refused`` if there is none, or if the caller may not do this with it.
    """
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
    """Return a reservation as the caller may see it."""
    call.reservation = record.id
    return call.site.presenter.reservation(record, call.person)


def position(text: str | None) -> int | None:
    """Return the number of a cursor. Raises ``Refused``."""
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise Refused(
            Code.INVALID_REQUEST, f"{text[:64]!r} is not a cursor.", "Use `next` of the previous page."
        )
    return int(text)


@route("POST", ALL, *OF_A_REFUSED_REQUEST, status=201)
async def reserve(call: Call, body: wire.ReserveRequest) -> wire.Reservation:
    """Request GPUs. The answer, with the position in the queue, is sent once the request is stored."""
    record = await call.site.service.submit(call.person.owner, present.ask(body), body.request_id)
    call.headers["Location"] = f"{call.site.settings.prefix}{ALL}/{record.id}"
    return shown(call, record)


@route("GET", ALL)
async def list_reservations(
    call: Call, owner: Whose = "me", ended: Ended = False, limit: Limit = 50, cursor: Cursor | None = None
) -> wire.ReservationList:
    """List live reservations in queue order, or ended reservations, latest first.

    The caller's live reservations include those that others share with the caller.

    The first page of ended reservations starts with those that are being stopped.
    """
    subject = None if owner == "all" else call.person.owner.subject
    if ended:
        page = position(cursor)
        live = call.site.service.view.reservations.values()
        stopping = [record for record in live if record.state is State.STOPPING and page is None]
        records, following = await call.site.service.reads.ended(subject, page, limit)
        known = {record.id for record in records}
        records = [
            *(r for r in reversed(stopping) if r.id not in known and subject in (None, r.owner.subject)),
            *records,
        ]
    else:
        if cursor is not None:
            raise Refused(
                Code.INVALID_REQUEST,
                "A cursor can be used only with ended=1.",
                "Leave cursor out: live reservations have only one page.",
            )
        records = call.site.presenter.live(subject)
        following = None
    return wire.ReservationList(
        reservations=[call.site.presenter.reservation(record, call.person) for record in records],
        next=None if following is None else str(following),
    )


@route("GET", ONE, Code.NOT_FOUND)
async def show(call: Call, ref: str, wait: Wait = 0.0, version: Version | None = None) -> wire.Reservation:
    """Return one reservation, by its id or by the name of a live reservation of the caller."""
    record = await find(call, ref, Action.SEE)
    if wait and record.live and version in (None, record.version):
        with call.site.polls.one(call.caller):
            record = await call.site.service.reads.wait_change(record.id, record.version, wait)
    return shown(call, record)


@route("DELETE", ONE, Code.NOT_FOUND, Code.WRONG_STATE)
async def end(call: Call, ref: str, reason: WhyEnded | None = None) -> wire.Reservation:
    """Cancel a queued request, or release a reservation."""
    record = await find(call, ref, Action.END)
    actor = call.person.owner.subject
    outcome = None if record.owner.subject == actor else Outcome.ENDED_BY_OPERATOR
    why = present.reason(reason)
    return shown(call, await call.site.service.end(record.id, actor, outcome, why))


@route("POST", f"{ONE}/extend", Code.NOT_FOUND, *OF_A_REFUSED_EXTENSION)
async def extend(call: Call, ref: str, body: wire.ExtendRequest) -> wire.Reservation:
    """Extend a reservation, all or nothing. A refusal gives the longest extension available."""
    by = present.millis(body.hours)
    record = await find(call, ref, Action.EXTEND)
    actor = call.person.owner.subject
    reason = present.reason(body.reason)
    return shown(call, await call.site.service.extend(record.id, actor, by, body.request_id, reason))


@route("POST", f"{ONE}/resume", Code.NOT_FOUND, Code.WRONG_STATE)
async def resume(call: Call, ref: str) -> wire.Reservation:
    """Start the server of a reservation again after its user stopped it."""
    record = await find(call, ref, Action.RESUME)
    return shown(call, await call.site.service.resume(record.id, call.person.owner.subject))


@route("PUT", ONE + "/guests/{login}", Code.NOT_FOUND, Code.WRONG_STATE, Code.QUOTA_EXCEEDED)
async def share(call: Call, ref: str, login: str) -> wire.Reservation:
    """Give another user access to the server of a reservation, by SSH and in JupyterLab, until it ends.

    Sharing again with the same user changes nothing.
    """
    record = await find(call, ref, Action.SHARE)
    return shown(call, await guests.share(call.site, record, call.person, login))


@route("DELETE", ONE + "/guests/{login}", Code.NOT_FOUND, Code.WRONG_STATE)
async def unshare(call: Call, ref: str, login: str) -> wire.Reservation:
    """End a guest's access to the server of a reservation, and their connections.

    If the user is not a guest, nothing changes.
    """
    record, actor = await find(call, ref, Action.UNSHARE), call.person.owner.subject
    return shown(call, await guests.unshare(call.site, record, actor, login))


@route("GET", f"{ONE}/logs", Code.NOT_FOUND)
async def logs(call: Call, ref: str, lines: Lines = 100) -> wire.Logs:
    """Return the start events of a reservation and the last lines of its server's logs."""
    record = await find(call, ref, Action.READ_LOGS)
    found = await call.site.service.reads.logs(record.id, lines)
    if call.site.bastion is not None and (said := call.site.bastion.lines_of(record.id)):
        found.logs["bastion"] = said
    return call.site.presenter.logs(found)


@route("GET", f"{ONE}/history", Code.NOT_FOUND)
async def history(call: Call, ref: str, limit: Limit = 50, cursor: Cursor | None = None) -> wire.History:
    """Return every change of a reservation, oldest first, with its cause and actor."""
    record = await find(call, ref, Action.READ_LOGS)
    entries, following = await call.site.service.reads.history(record.id, position(cursor) or 0, limit)
    return call.site.presenter.history(entries, following)
