"""Routes for operators: who may use the hub, and confirming many revocations."""

from __future__ import annotations

from gpudev import wire
from gpudev_hub.core.access_model import Access as HubAccess
from gpudev_hub.core.access_model import Person
from gpudev_hub.core.errors import Code, Refused
from gpudev_hub.core.words import sentence
from gpudev_hub.service.service import Service
from gpudev_hub.times import rfc3339

from .routes import Access, Call, route

NO_GITHUB = "This hub does not use GitHub to decide who has access."


@route("GET", f"{wire.API}/people", access=Access.OPERATOR)
async def people(call: Call) -> wire.People:
    """Return everybody who has logged in with GitHub, and whether they may use the hub."""
    service = call.site.service
    sweep = service.access.sweep
    held = frozenset() if sweep is None else frozenset(sweep.held)
    found = sorted(service.view.people.values(), key=lambda person: (person.login.lower(), person.subject))
    checked_at = service.view.swept_at
    return wire.People(
        people=[_person(call, person, held) for person in found],
        problems=problems(service),
        checked_at=None if checked_at is None else rfc3339(checked_at),
    )


@route("POST", f"{wire.API}/people/revocations", Code.WRONG_STATE, access=Access.OPERATOR)
async def confirm_revocations(call: Call, body: wire.RevocationsRequest) -> wire.People:
    """Let people lose access although they are many at once.

    GitHub is asked about each of them again, and anyone who has access keeps it.
    """
    sweep = call.site.service.access.sweep
    if sweep is None:
        raise Refused(Code.WRONG_STATE, NO_GITHUB)
    unknown = set(body.subjects) - set(sweep.held)
    if unknown:
        raise Refused(
            Code.WRONG_STATE,
            f"{len(unknown)} of the {len(body.subjects)} people on your list are not held now, for example "
            f"{min(unknown)[:64]}. No access was revoked.",
            "Read the list again with `gpu-dev admin access`.",
        )
    await sweep.release(frozenset(body.subjects), call.person.owner.subject)
    return await people(call)


def problems(service: Service) -> list[str]:
    """Return problems for operators as sentences."""
    return [sentence(problem) for problem in service.access.problems()]


def _person(call: Call, person: Person, held: frozenset[str]) -> wire.Person:
    service = call.site.service
    allowed = service.access.people.verdict(person.subject).allowed
    revoked = person.access is HubAccess.REVOKED
    return wire.Person(
        subject=person.subject,
        login=person.login,
        hub_user=person.hub_user,
        access="revoked" if revoked else "allowed" if allowed else "unconfirmed",
        reason=person.reason or None,
        since=rfc3339(person.since),
        confirmed_at=rfc3339(max(person.confirmed_at, 0 if revoked else service.view.swept_at or 0)),
        operator=person.operator,
        teams=list(person.teams),
        held=person.subject in held,
    )
