"""The Hub's side of sharing: who may open JupyterLab on whose server.

JupyterHub has its own list of guests for each server. This makes that list equal to the guests of the
reservation: after a change, when the Hub has started a server, and with every full pass.
"""

from __future__ import annotations

import logging

from gpudev_hub.core.access_model import Access
from gpudev_hub.core.model import Reservation
from gpudev_hub.core.permissions import WHEN, Action
from gpudev_hub.core.ports import HubUnavailable, OwnerUnknownToHub
from gpudev_hub.service.context import Context

from .tasks import FIRST_PAUSE, LONGEST_PAUSE, EffectTasks

log = logging.getLogger(__name__)


class HubShares:
    """Corrects the Hub's lists of guests."""

    def __init__(self, context: Context, tasks: EffectTasks) -> None:
        self._view = context.view
        self._hub = context.adapters.hub
        self._lab_shared = context.adapters.lab_shared
        self._removed = context.remembered.lab_closed
        self._tasks = tasks
        self._granted: dict[str, frozenset[str]] = {}
        """The guests that the Hub last had, of servers that are or were shared."""

    def changed(self, record: Reservation) -> None:
        """Check a committed reservation whose guests differ from the Hub's."""
        if not record.live:
            self._granted.pop(record.id, None)  # the Hub forgets it together with the server
        elif self._wanted(record) != self._granted.get(record.id, frozenset()):
            self.check(record.id)

    def person_changed(self, subject: str) -> None:
        """Check all reservations that are shared with a person whose access may have changed."""
        for record in self._view.reservations.values():
            if record.guest(subject) is not None:
                self.changed(record)

    def check(self, id: str) -> None:
        """Compare a server's guests with the Hub's list, and correct the list until both are equal."""
        self._tasks.run_again(("share", id, 0), lambda: self._correct(id))

    def check_all(self, *, everything: bool = False) -> None:
        """Check each server with guests; ``everything``: also servers that may have lost their last guest."""
        for record in self._view.reservations.values():
            if record.state in WHEN[Action.ENTER] and (everything or record.guests):
                self.check(record.id)

    def _wanted(self, record: Reservation) -> frozenset[str]:
        if not self._lab_shared:
            return frozenset()
        people = ((guest, self._view.people.get(guest.subject)) for guest in record.guests)
        return frozenset(g.hub_user for g, p in people if p is None or p.access is not Access.REVOKED)

    async def _correct(self, id: str) -> None:
        pause = FIRST_PAUSE
        while (record := self._view.reservations.get(id)) is not None:
            try:
                await self._equalize(record)
            except HubUnavailable as error:
                log.warning("cannot correct the Hub's guests of %s: %s", id, error, extra={"reservation": id})
                await self._tasks.wait(("share", id, 0), pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                return

    async def _equalize(self, record: Reservation) -> None:
        owner, server = record.owner.hub_user, record.id
        known, wanted = await self._hub.guests(owner, server), self._wanted(record)
        if known is None:
            # The Hub does not have the server now. It is checked again once the Hub starts it.
            self._granted.pop(server, None)
            return
        for name in sorted(known - wanted):
            await self._hub.unshare(owner, server, name)
            self._removed(server, name)
            log.info("the Hub no longer lets %s open %s", name, server, extra={"reservation": server})
        added = set()
        for name in sorted(wanted - known):
            try:
                await self._hub.share(owner, server, name)
            except OwnerUnknownToHub:
                # The guest has not logged in since the Hub lost its database. The next pass tries again.
                log.warning(
                    "the Hub does not know %s, a guest of %s", name, server, extra={"reservation": server}
                )
                continue
            added.add(name)
            log.info("the Hub lets %s open %s", name, server, extra={"reservation": server})
        self._granted[server] = (known & wanted) | added
