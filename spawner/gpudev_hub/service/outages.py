"""Times at which a part we depend on was away: allowances stand still meanwhile."""

from __future__ import annotations

from gpudev_hub.core.events import Outage
from gpudev_hub.core.model import Millis


class Outages:
    """What is away now, and since when that has not been accounted for."""

    def __init__(self) -> None:
        self._since: dict[str, Millis] = {}
        self._detail: dict[str, str] = {}

    def begin(self, what: str, now: Millis, detail: str) -> bool:
        """It does not answer; true if that is news."""
        self._detail[what] = detail
        if what in self._since:
            return False
        self._since[what] = now
        return True

    def over(self, what: str, now: Millis) -> Outage | None:
        """It answers; the stretch that is still to be accounted for."""
        self._detail.pop(what, None)
        since = self._since.pop(what, None)
        return None if since is None or since >= now else Outage(since, what)

    def account(self, now: Millis) -> list[Outage]:
        """Everything up to now of what is still away, each stretch once."""
        found = [Outage(since, what) for what, since in self._since.items() if since < now]
        for outage in found:
            self._since[outage.what] = now
        return found

    def reasons(self) -> list[str]:
        """What is away, in words."""
        return [f"{what}: {detail}" for what, detail in sorted(self._detail.items())]
