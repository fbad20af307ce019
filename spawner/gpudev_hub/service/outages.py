"""Outages of what the service depends on; allowances stand still during them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from gpudev_hub.core.events import Outage
from gpudev_hub.core.model import Millis

STORE: Final = "the database"
HUB: Final = "the Hub"
CLUSTER: Final = "the cluster"
PARTS: Final = (STORE, HUB, CLUSTER)


class Outages:
    """What does not answer now, and which outages are not accounted for yet.

    No outage is lost if a commit that accounts for it fails. No time is accounted for twice, however many
    parts were unavailable in it.
    """

    def __init__(self, over: Callable[[], None]) -> None:
        """``over``: called when an outage is over and must be accounted for."""
        self._notify = over
        self._begun: dict[str, Millis] = {}
        self._detail: dict[str, str] = {}
        self._over: list[tuple[Millis, Millis, str]] = []
        """Outages that are over: since, until, what."""
        self._accounted: Millis = 0
        """Everything up to this instant is accounted for."""
        self._taken: Millis = 0

    def begin(self, what: str, now: Millis, detail: str) -> bool:
        """Record that something does not answer; return whether that is new."""
        self._detail[what] = detail
        if what in self._begun:
            return False
        self._begun[what] = now
        return True

    def lasted(self, what: str, now: Millis) -> Millis:
        """Return for how long it has not answered."""
        return now - self._begun.get(what, now)

    def lasting(self, now: Millis) -> Mapping[str, Millis]:
        """Return for how long each part has not answered; 0: it answers."""
        return {part: self.lasted(part, now) for part in PARTS}

    def end(self, what: str, now: Millis) -> bool:
        """Record that something answers; return whether that is new."""
        self._detail.pop(what, None)
        since = self._begun.pop(what, None)
        if since is None:
            return False
        self.was(what, since, now)
        return True

    def was(self, what: str, since: Millis, until: Millis) -> None:
        """Record an outage between two instants."""
        self._over.append((since, until, what))
        self._notify()

    def take(self, now: Millis, *, due: bool) -> list[Outage]:
        """Return outages to account for up to now: those that are over, and, if ``due``, all.

        They are returned again, with more, until ``accounted`` is called.
        """
        if not self._over and not (due and self._begun):
            self._taken = self._accounted
            return []
        self._taken = now
        stretches = self._over + [(since, now, what) for what, since in self._begun.items()]
        found: list[Outage] = []
        for since, until, what in sorted(stretches):
            start = max([since, self._accounted, *(outage.until for outage in found[-1:])])
            if start < until:
                found.append(Outage(start, until, what, lasting=what in self._begun and until == now))
        return found

    def accounted(self) -> None:
        """Record that the outages taken last are durable."""
        self._accounted = self._taken
        self._over = [stretch for stretch in self._over if stretch[1] > self._accounted]

    def reasons(self) -> list[str]:
        """Return texts on what does not answer."""
        return [f"{what}: {detail}" for what, detail in sorted(self._detail.items())]
