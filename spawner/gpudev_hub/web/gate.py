"""The gate: routes that the Hub calls before, while and after a server runs, on their own listener."""

from __future__ import annotations

from typing import Annotated

import msgspec

from gpudev_hub.core import gate
from gpudev_hub.core.errors import Code, Refused
from gpudev_hub.core.limits.quota import hold_for, longest_request
from gpudev_hub.core.model import Owner
from gpudev_hub.core.views.availability import PoolOutlook, SizeOutlook
from gpudev_hub.service.people import People

from .routes import Access, Call, route


class MintRequest(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /gate/mint``: create an id for a spawn page of this subject."""

    subject: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class Minted(msgspec.Struct):
    """The answer of ``POST /gate/mint``."""

    id: str


@route("POST", "gate/admit", access=Access.HUB)
async def admit(call: Call, body: gate.AdmitRequest) -> gate.Admission:
    """Return whether and where a server may start."""
    call.reservation = body.server
    return await call.site.service.gate.admit(body)


@route("POST", "gate/name", access=Access.HUB)
async def name(call: Call, body: gate.NameAsked) -> gate.Admission:
    """Return whether the Hub may have a server of this name. Names without a reservation are limited."""
    call.reservation = body.server
    answer = await call.site.service.gate.name(body)
    if answer.verdict is gate.Verdict.REDIRECT:
        call.site.names.spend(body.subject)
    return answer


@route("POST", "gate/started", access=Access.HUB)
async def started(call: Call, body: gate.Started) -> None:
    """Record that the engine built the servers of an attempt."""
    call.reservation = body.server
    call.site.service.gate.started(body)


@route("POST", "gate/failed", access=Access.HUB)
async def failed(call: Call, body: gate.Failed) -> None:
    """Record that the servers of an attempt cannot start."""
    call.reservation = body.server
    call.site.service.gate.failed(body)


@route("POST", "gate/stop", access=Access.HUB)
async def stop(call: Call, body: gate.StopAsked) -> gate.StopAnswer:
    """Return whether the spawner may stop a server."""
    call.reservation = body.server
    return await call.site.service.gate.stop_asked(body)


@route("POST", "gate/deleted", access=Access.HUB)
async def deleted(call: Call, body: gate.Deleted) -> None:
    """Record that a server was deleted in the Hub."""
    call.reservation = body.server
    await call.site.service.gate.deleted(body)


@route("POST", "gate/mint", access=Access.HUB)
async def mint(call: Call, body: MintRequest) -> Minted:
    """Create an id for a spawn page."""
    return Minted(id=await call.site.service.mint(body.subject))


@route("POST", "gate/picker", access=Access.HUB)
async def picker(call: Call, body: gate.PickerAsked) -> gate.PickerAnswer:
    """Return what the spawn page of an id shows."""
    service = call.site.service
    longest = longest_request(service.policy, service.view, body.subject)
    refused = ""
    found: list[tuple[PoolOutlook, list[SizeOutlook]]] = []
    try:
        hold = min(service.policy.default_hold, longest)
        if body.hours is not None:
            hold = hold_for(service.policy, service.view, body.subject, body.hours)
        found = service.availability(Owner(body.subject, "", body.login), hold)
    except Refused as error:
        refused = error.message
    return gate.PickerAnswer(
        now=service.clock.now(),
        longest=longest,
        limits=tuple(call.site.presenter.limits_in_words(body.subject)),
        refused=refused,
        sizes=tuple(
            gate.SizeNow(
                outlook.pool.name,
                size.gpus,
                size.nodes,
                size.free_now,
                size.earliest_start,
                size.longest_now,
                size.starts_now,
                size.reason or "",
                size.refused is not None,
            )
            for outlook, sizes in found
            for size in sizes
        ),
        location=await _instead(call, body),
    )


async def _instead(call: Call, body: gate.PickerAsked) -> str | None:
    """Return the page to show instead if no new reservation can be made with the id."""
    minted = call.site.service.view.minted.get(body.server)
    if minted is not None and minted.subject == body.subject:
        return None
    record = await call.site.service.reads.find(body.server)
    return "new" if record is None or record.owner.subject != body.subject else f"reservations/{record.id}"


@route("POST", "gate/login", access=Access.HUB)
async def login(call: Call, body: gate.LoginAsked) -> gate.LoginAnswer:
    """Return whether a GitHub account may log in, and as which user of the Hub."""
    return await _people(call).login(body.github_id, body.login)


@route("GET", "gate/people/{name}", access=Access.HUB)
async def person(call: Call, name: str) -> gate.PersonAnswer:
    """Return whether a user of the Hub still has access."""
    return _people(call).access_of(name)


def _people(call: Call) -> People:
    access = call.site.service.access
    if access.sweep is None:
        raise Refused(Code.NOT_FOUND, "People do not log in to this hub with GitHub.", "Set GPUDEV_GITHUB.")
    return access.people
