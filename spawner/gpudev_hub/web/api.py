"""What people and their programs may ask of the service: the routes below ``api/v1/``."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from gpudev import wire
from gpudev_hub.core.errors import SEE_YOURS, Code, Refused
from gpudev_hub.core.model import Outcome, Reservation, State
from gpudev_hub.core.permissions import Action, check_role, roles

from . import guests, present
from .routes import Access, Call, Param, Route, Text
from .settings import WebSettings
from .usage import PARAMS as USAGE_PARAMS
from .usage import usage, usage_csv

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
    record = await call.site.service.find(ref, call.person.owner.subject)
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
        records, following = await call.site.service.ended(owner, page, call.query["limit"])
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
            record = await call.site.service.wait_change(record.id, record.version, wait)
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
    found = await call.site.service.logs(record.id, call.query["lines"])
    if call.site.bastion is not None and (said := call.site.bastion.lines_of(record.id)):
        found.logs["bastion"] = said
    return call.site.presenter.logs(found)


async def history(call: Call) -> wire.History:
    """Return every change of a reservation, oldest first, with its cause and actor."""
    record = await find(call, Action.READ_LOGS)
    entries, following = await call.site.service.history(
        record.id, cursor(call.query["cursor"]) or 0, call.query["limit"]
    )
    return call.site.presenter.history(entries, following)


async def availability(call: Call) -> wire.Availability:
    """Return what is free now, and when each size could start."""
    hours = call.query["hours"]
    hold = call.site.service.policy.default_hold if hours is None else present.millis(hours)
    found = call.site.service.availability(call.person.owner, hold)
    return call.site.presenter.availability(found, hold, call.person)


async def timeline(call: Call) -> wire.Timeline:
    """Return the running reservations with their GPUs and ends, and the queue."""
    return call.site.presenter.timeline(call.person, call.site.service.clock.now())


async def me(call: Call) -> wire.Me:
    """Return who the caller is, and the caller's limits."""
    return call.site.presenter.me(call.person)


async def github_check(call: Call) -> wire.GithubCheck:
    """Check every fact about GitHub that the hub relies on. Takes several requests to GitHub."""
    if call.site.github_check is None:
        raise Refused(
            Code.WRONG_STATE,
            "This hub does not use GitHub: GPUDEV_GITHUB is not set.",
            "See docs/github-app.md for the set-up.",
        )
    found = await call.site.github_check()
    return wire.GithubCheck(
        ok=all(check.ok for check in found),
        facts=[wire.GithubFact(name=c.name, ok=c.ok, found=c.found, todo=c.todo) for c in found],
    )


async def doctor(call: Call) -> wire.Doctor:
    """Check the installation: database, Hub, cluster, nodes, network policies, bastion and GitHub."""
    if call.site.doctor is None:
        raise Refused(
            Code.WRONG_STATE,
            "This hub runs on one machine, without Kubernetes.",
            "Read /services/gpudev/health/ready instead: it names what does not answer.",
        )
    found = await call.site.doctor()
    return wire.Doctor(
        ok=all(one.ok for one in found),
        facts=[
            wire.DoctorFact(id=one.id, name=one.name, ok=one.ok, found=one.found, todo=one.todo)
            for one in found
        ],
    )


async def ssh(call: Call) -> wire.SshAccess:
    """Return the servers that the caller can connect to, and how."""
    return present.ssh_access(await call.site.access.hosts(call.person.owner))


async def operate_node(call: Call) -> None:
    """Drain a node, undrain it, or mark it as lost."""
    body: wire.NodeRequest = call.body
    name = call.path["name"]
    if name not in call.site.service.view.nodes:
        known = ", ".join(sorted(call.site.service.view.nodes))
        hint = f"Known nodes: {known}." if known else "There are no nodes."
        raise Refused(Code.NOT_FOUND, f"There is no node {name[:64]!r}.", hint)
    await call.site.service.operate_node(name, body.action, call.person.owner.subject)


def api_routes(settings: WebSettings) -> list[Route]:
    """The routes of people, all below ``api/v1/``."""
    wait = Annotated[float, msgspec.Meta(ge=0, le=settings.max_wait)]
    limit = Param(
        "limit",
        Annotated[int, msgspec.Meta(ge=1, le=settings.max_page)],
        "Maximum number of entries on a page.",
        default=min(50, settings.max_page),
    )
    page = Param("cursor", str, "`next` of the previous page.")
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
                Param(
                    "owner", Literal["me", "all"], "Whose reservations: the caller's or all.", default="me"
                ),
                Param("ended", bool, "Ended reservations, and those being stopped.", default=False),
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
                Param("wait", wait, "Seconds to wait for a change before the answer.", default=0.0),
                Param(
                    "version",
                    Annotated[int, msgspec.Meta(ge=0)],
                    "The version you know. If the current version differs, the answer comes at once.",
                ),
            ),
        ),
        Route(
            "DELETE",
            one,
            end,
            person,
            answers=wire.Reservation,
            query=(
                Param(
                    "reason",
                    wire.Reason,
                    "Why an operator ends it. The history records it, and the owner sees it.",
                ),
            ),
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
            "PUT",
            f"{one}/guests/{{login}}",
            share,
            person,
            answers=wire.Reservation,
            codes=(unknown, Code.WRONG_STATE, Code.QUOTA_EXCEEDED),
        ),
        Route(
            "DELETE",
            f"{one}/guests/{{login}}",
            unshare,
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
                    "Maximum number of lines of each log.",
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
            query=(Param("hours", float, "Hold time to plan for. Default: the default of the service."),),
        ),
        Route(
            "GET",
            f"{root}/timeline",
            timeline,
            person,
            answers=wire.Timeline,
        ),
        Route("GET", f"{root}/me", me, person, answers=wire.Me),
        Route("GET", f"{root}/usage", usage, person, answers=wire.Usage, query=USAGE_PARAMS),
        Route(
            "GET", f"{root}/usage.csv", usage_csv, person, answers=Text, query=USAGE_PARAMS, media="text/csv"
        ),
        Route(
            "GET",
            f"{root}/ssh",
            ssh,
            person,
            answers=wire.SshAccess,
        ),
        Route(
            "GET",
            f"{root}/github-check",
            github_check,
            Access.OPERATOR,
            answers=wire.GithubCheck,
            codes=(Code.WRONG_STATE,),
        ),
        Route(
            "GET",
            f"{root}/doctor",
            doctor,
            Access.OPERATOR,
            answers=wire.Doctor,
            codes=(Code.WRONG_STATE,),
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
