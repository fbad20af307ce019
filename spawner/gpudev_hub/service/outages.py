"""Times at which a part we depend on was away: allowances stand still meanwhile."""

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
    """What is away now, and which times have not been accounted for yet.

    No instant is forgotten, however often what accounts for it could not be committed, and none is accounted
    for twice, however many parts were away in it. (Where that took several commits and a later one failed,
    those whom the first was about gain what they lost once more.)
    """

    def __init__(self, over: Callable[[], None]) -> None:
        """``over``: called when one is, and is to be accounted for."""
        self._notify = over
        self._begun: dict[str, Millis] = {}
        self._detail: dict[str, str] = {}
        self._over: list[tuple[Millis, Millis, str]] = []
        """Since, until, what."""
        self._accounted: Millis = 0
        """Everything up to here has been."""
        self._taken: Millis = 0

    def begin(self, what: str, now: Millis, detail: str) -> bool:
        """It does not answer; true if that is news."""
        self._detail[what] = detail
        if what in self._begun:
            return False
        self._begun[what] = now
        return True

    def lasted(self, what: str, now: Millis) -> Millis:
        """How long it has not answered."""
        return now - self._begun.get(what, now)

    def lasting(self, now: Millis) -> Mapping[str, Millis]:
        """For how long each part has not answered; 0: it answers."""
        return {part: self.lasted(part, now) for part in PARTS}

    def end(self, what: str, now: Millis) -> bool:
        """It answers; true if that is news."""
        self._detail.pop(what, None)
        since = self._begun.pop(what, None)
        if since is None:
            return False
        self.was(what, since, now)
        return True

    def was(self, what: str, since: Millis, until: Millis) -> None:
        """It was away between these instants."""
        self._over.append((since, until, what))
        self._notify()

    def take(self, now: Millis, *, due: bool) -> list[Outage]:
        """What is to be accounted for up to now: outages that are over, and, if something is due, all.

        The same again, and more, until ``accounted`` says that it is durable.
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
        """What was taken last is durable."""
        self._accounted = self._taken
        self._over = [stretch for stretch in self._over if stretch[1] > self._accounted]

    def reasons(self) -> list[str]:
        """What is away, in words."""
        return [f"{what}: {detail}" for what, detail in sorted(self._detail.items())]
