"""Share servers, for the API and the pages: find the person with a login, and check their access."""

from __future__ import annotations

from gpudev_hub.core.errors import Code, Refused
from gpudev_hub.core.model import Guest, Owner, Reservation
from gpudev_hub.core.permissions import Action, check_state
from gpudev_hub.core.words import listing

from .auth import Identity
from .site import Site


async def share(site: Site, record: Reservation, by: Identity, login: str) -> Reservation:
    """Give the person with this login access. Raises ``Refused``."""
    if by.of_server:
        raise Refused(
            Code.FORBIDDEN,
            "The token of a server cannot give access to others: every guest of the server can read it.",
            "Use `gpu-dev share` on your own machine, or the page of the reservation.",
        )
    check_state(record, Action.SHARE)
    return await site.service.share(record.id, by.owner.subject, await _person(site, login))


async def unshare(site: Site, record: Reservation, actor: str, login: str) -> Reservation:
    """End the access of the guest with this login; nothing changes if that person is not a guest.

    Raises ``Refused``, also if neither a user nor an earlier guest has this login.
    """
    check_state(record, Action.UNSHARE)
    guest = _guest(site, record, login)
    if guest is not None:
        return await site.service.unshare(record.id, actor, guest.subject)
    if await _known(site, login) or await _was_guest(site, record, login):
        return record
    name = record.request.name or record.id
    raise Refused(
        Code.NOT_FOUND,
        f"Reservation {name} is not shared with {login[:64]!r}.",
        f"See who has access with `gpu-dev show {name}`.",
    )


async def _was_guest(site: Site, record: Reservation, login: str) -> bool:
    """Return whether an earlier guest had this login, so that the request may be repeated."""
    name = login.lower()
    after: int | None = 0
    while after is not None:
        entries, after = await site.service.reads.history(record.id, after, 1000)
        records = (entry.change.record for entry in entries)
        guests = (guest for each in records if isinstance(each, Reservation) for guest in each.guests)
        if any(name in (guest.login.lower(), guest.hub_user.lower()) for guest in guests):
            return True
    return False


def _guest(site: Site, record: Reservation, login: str) -> Guest | None:
    """Return the guest with a login.

    After renames, a login can match several people. The order is: the guest who has the login now, who had it
    when the server was shared, and, if nobody has it now, whose name in the Hub it is. Raises ``Refused`` if
    two guests had it.
    """
    view, name = site.service.view, login.lower()
    person = site.service.access.people.by_login(login)
    if person is not None and (guest := record.guest(person.subject)) is not None:
        return guest
    once = [guest for guest in record.guests if guest.login.lower() == name]
    if len(once) > 1:
        now = listing([view.login_of(guest) for guest in once], "and")
        raise Refused(
            Code.INVALID_REQUEST,
            f"{len(once)} guests of this server had the login {login[:64]!r}: {now}.",
            "Give the login that the guest has now.",
        )
    if person is None:
        once += [guest for guest in record.guests if guest.hub_user.lower() == name]
    return next(iter(once), None)


async def _known(site: Site, login: str) -> bool:
    """Return whether the hub has a user with this login."""
    access = site.service.access
    if access.people.by_login(login) is not None:
        return True
    named = site.auth.owner_named(login)
    return access.sweep is None and await site.service.known_to_hub(named.hub_user)


async def _person(site: Site, login: str) -> Owner:
    """Return the person with this login; raises ``Refused`` if nobody may have access by this login."""
    access = site.service.access
    person = access.people.by_login(login)
    if person is not None:
        verdict = access.people.verdict(person.subject)
        if not verdict.allowed:
            raise Refused(
                Code.FORBIDDEN, f"{person.login} may not use this hub. {verdict.message}", verdict.hint
            )
        return Owner(person.subject, person.hub_user, person.login)
    if not await _known(site, login):
        raise Refused(
            Code.NOT_FOUND,
            f"This hub has no user {login[:64]!r}.",
            "Check the spelling. A user must log in to this hub once before you can share with them.",
        )
    return site.auth.owner_named(login)
